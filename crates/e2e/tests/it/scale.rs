//! `scale-nodes`: the number of nodes follows the load.

use e2e::http::{Load, client};
use e2e::{Balancer, Lab, Look, eventually};
use lb_fixture::Background;

/// The tool on a lab.
fn scale(lab: &Lab, balancer: &Balancer, options: &[&str]) -> Background {
    lab.tool("scale-nodes", balancer, &[&["--image", "softengheigvd/webapp"], options].concat())
}

fn are(lab: &Lab, tool: &Background, names: &[&str]) {
    eventually(&format!("the nodes are {names:?}"), 90, || {
        let found = lab.nodes();
        if found == names { Ok(()) } else { Err(format!("{found:?}: {}", tool.said())) }
    });
}

fn says(tool: &Background, text: &str) {
    eventually(text, 30, || if tool.said().contains(text) { Ok(()) } else { Err(tool.said()) });
}

#[test]
fn a_load_drives_the_nodes_up_and_down_and_no_request_is_lost() {
    let (lab, balancer, _nodes) = Lab::with_nodes(Look::Hardened, 2);
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", balancer.port(80));
    let policy = ["--min", "2", "--max", "5", "--up", "5", "--down", "2.5", "--looks", "3", "--cool-down", "4s"];
    let tool = scale(&lab, &balancer, &policy);
    let light = Load::start(&url("/"), 2);
    says(&tool, "fewer than --down 2.5 for one node less, but --min 2 is reached");

    // Each takes a second: there are always as many in progress as clients.
    let heavy = Load::start(&url("/slow?seconds=1"), 40);
    are(&lab, &tool, &["s1", "s2", "s3", "s4", "s5"]);
    says(&tool, "more than --up 5, but --max 5 is reached");
    let (sent, lost) = heavy.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {lost:?}", lost.len());

    // Down to those that it has not started.
    are(&lab, &tool, &["s1", "s2"]);
    let sent = light.sent();
    eventually("requests go on", 10, || if light.sent() > sent + 100 { Ok(()) } else { Err(light.sent().to_string()) });
    let (sent, lost) = light.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {lost:?}\n{}", lost.len(), tool.said());
    for number in 3..=5 {
        says(&tool, &format!("scale-nodes: stops {}-s{number}: ", lab.network()));
    }
}

#[test]
fn of_several_services_one_is_scaled_even_from_nothing() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer_with("ha", &["-e", "BACKEND_ROLE=*"]);
    let _other = lab.node("other");
    let options =
        ["--service", "shop", "--min", "2", "--max", "3", "--cool-down", "1s", "--", "-e", "SERF_TAGS=host=shop.example"];
    let tool = scale(&lab, &balancer, &options);
    are(&lab, &tool, &["other", "s1", "s2"]);
    let url = format!("http://127.0.0.1:{}/", balancer.port(80));
    let mut hosts = std::collections::BTreeSet::new();
    eventually("both answer for their host", 30, || {
        let answer = client().get(&url).header("Host", "shop.example").call().map_err(|error| error.to_string())?;
        let body = answer.into_body().read_to_string().map_err(|error| error.to_string())?;
        hosts.extend(
            ["s1", "s2", "other"].into_iter().filter(|name| body.contains(&format!("\"host\":\"{}-{name}\"", lab.network()))),
        );
        if hosts.len() == 2 && !hosts.contains("other") { Ok(()) } else { Err(format!("{hosts:?}: {body}")) }
    });
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let (lab, balancer, _nodes) = Lab::with_nodes(Look::Hardened, 2);
    let tool = scale(&lab, &balancer, &["--min", "4", "--max", "5", "--dry-run", "--cool-down", "1s"]);
    let line = "scale-nodes: would start 2 more: 2 nodes are fewer than --min 4\n";
    eventually("it says so twice", 30, || if tool.said().matches(line).count() >= 2 { Ok(()) } else { Err(tool.said()) });
    assert_eq!(lab.nodes(), ["s1", "s2"]);
}

#[test]
fn a_node_that_does_not_get_ready_or_start_is_said_and_the_others_serve() {
    let (lab, balancer, _nodes) = Lab::with_nodes(Look::Hardened, 2);
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 2);
    let times = ["--min", "3", "--max", "5", "--cool-down", "1s", "--ready-within", "3s", "--"];
    let tool = scale(&lab, &balancer, &[&times[..], &["-e", "SERF_READY=http://127.0.0.1:9/"]].concat());
    says(&tool, "s3 is started\n");
    says(&tool, "s3: not ready for 3s\n");
    drop(tool);

    let mut tool = scale(&lab, &balancer, &[&times[..], &["--no-such-option"]].concat());
    says(&tool, "a node is not started: docker run: unknown flag: --no-such-option\n");
    assert!(tool.is_running());
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {lost:?}", lost.len());
}
