//! `deploy-nodes`: nodes of another image take the place of those that run.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;

use e2e::docker::{docker, text, try_docker};
use e2e::http::{Load, get};
use e2e::wait::same;
use e2e::{Balancer, Lab, Look, eventually};
use lb_fixture::Background;
use nix::sys::signal::Signal;

/// An image of the test's own, removed when the value is dropped: after the containers, if it was made before the lab.
struct Image(String);

impl Image {
    /// The web application with other lines at the end of its Dockerfile.
    fn build(name: &str, lines: &str) -> Self {
        let name = format!("e2e-{}-{name}", std::process::id());
        let built = try_docker(&["build", "--tag", &name, "-"], &format!("FROM softengheigvd/webapp\n{lines}\n"));
        assert!(built.status.success(), "{}", text(&built.stderr));
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = try_docker(&["rmi", "--force", &self.0], "");
    }
}

fn deploy(lab: &Lab, balancer: &Balancer, image: &str, options: &[&str]) -> Background {
    lab.tool("deploy-nodes", balancer, &[&["--image", image], options].concat())
}

fn says(tool: &Background, part: &str) {
    eventually(part, 60, || if tool.said().contains(part) { Ok(()) } else { Err(tool.said()) });
}

/// Waits for the end of the tool, checks its exit code, and returns what it said without the prefix of the nodes' names.
fn ends(lab: &Lab, mut tool: Background, code: i32) -> String {
    eventually("the tool ends", 120, || if tool.is_running() { Err(tool.said()) } else { Ok(()) });
    let said = tool.said();
    assert_eq!(tool.wait().code(), Some(code), "{said}");
    said.replace(&format!("{}-", lab.network()), "")
}

/// The tags that the nodes tell, which their images differ in.
fn tags(balancer: &Balancer, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&tag| tag.to_owned()).collect();
    eventually("the nodes answer", 20, || {
        let ask = |_| balancer.get("/", None)?.field("tag");
        same(&(0..8).map(ask).collect::<Result<BTreeSet<_>, _>>()?, &expected)
    });
}

fn finish(load: Load, tool: &str) {
    let sent = load.sent();
    eventually("requests go on", 20, || if load.sent() > sent + 100 { Ok(()) } else { Err(load.sent().to_string()) });
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {lost:?}\n{tool}", lost.len());
}

#[test]
fn under_load_no_request_is_lost_and_a_session_goes_on_until_the_limit_of_its_node() {
    let image = Image::build("rolling", "ENV TAG=second");
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let url = format!("http://127.0.0.1:{}/", balancer.port(80));
    let load = Load::start(&url, 4);
    let first = balancer.get("/", None).unwrap();
    let (cookie, host) = (first.cookie.clone().unwrap(), first.host().unwrap());
    // One client with a session, until another node answers it.
    let (sender, answers) = mpsc::channel();
    let client = thread::spawn(move || {
        loop {
            let answer = get(&url, Some(&cookie)).unwrap();
            let found = (answer.host().unwrap(), answer.field("sessionViews").unwrap().parse::<u32>().unwrap());
            let moved = found.0 != host;
            if sender.send(found).is_err() || moved {
                break;
            }
        }
    });

    let tool = deploy(&lab, &balancer, &image.0, &["--idle", "2s", "--drain", "10s"]);
    client.join().unwrap();
    // It was at the node that is stopped only because of the client.
    let said = tool.said();
    assert_eq!(said.matches("still in use after 10s").count(), 1, "{said}");
    let mut answers: Vec<(String, u32)> = answers.iter().collect();
    assert_eq!(answers.pop().unwrap().1, 1, "another node has no session of it");
    let views: Vec<u32> = answers.iter().map(|(_, views)| *views).collect();
    let expected: Vec<u32> = (2..).take(views.len()).collect();
    assert_eq!(views, expected, "the session was somewhere else meanwhile: {said}");

    let said = ends(&lab, tool, 0);
    finish(load, &said);
    assert_eq!(lab.nodes(), ["s3", "s4"]);
    let restart = docker(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", &format!("{}-s3", lab.network())]);
    assert_eq!(restart, "unless-stopped", "it comes back after a reboot");
    tags(&balancer, &["second"]);
    for node in &nodes {
        let short = node.name.rsplit('-').next().unwrap();
        assert!(said.contains(&format!("stops {short}: ")), "{said}");
    }
    assert!(said.contains(": no request for 2s\n"), "{said}");
    assert!(said.ends_with(&format!("deploy-nodes: done: s3 s4 run {}\n", image.0)), "{said}");
}

#[test]
fn a_new_node_that_does_not_get_ready_is_removed_and_the_old_ones_serve_as_before() {
    let silent = Image::build("silent", "ENV SERF_READY=http://127.0.0.1:9/");
    let sick = Image::build("sick", "ENV PORT=3001 SERF_READY=http://127.0.0.1:3001/health");
    let short = Image::build("short", r#"ENTRYPOINT ["sh", "-c", "echo it is broken; exit 3"]"#);
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4);
    let last = "; running old nodes: s1 s2; new ones: none\n";
    for (image, within, why) in [
        (&silent, "6s", "not ready after 6s (HAProxy: not a server)"),
        // Its agent has joined, the health check of HAProxy fails.
        (&sick, "20s", "not ready after 20s (HAProxy: DOWN L4CON)"),
        (&short, "6s", "its container has ended"),
    ] {
        let said = ends(&lab, deploy(&lab, &balancer, &image.0, &["--at-once", "2", "--ready-within", within]), 1);
        assert!(said.contains(why) && said.ends_with(last), "{said}");
        assert!(said.contains(" said: "), "{said}");
        assert!(!said.contains("drains"), "{said}");
        assert_eq!(lab.nodes(), ["s1", "s2"]);
    }
    let said = ends(&lab, deploy(&lab, &balancer, &silent.0, &["--", "--no-such-option"]), 1);
    assert!(said.contains("s3 is not started: docker run: unknown flag: --no-such-option; "), "{said}");
    let said = ends(&lab, deploy(&lab, &balancer, "e2e-no-such-image", &[]), 1);
    let line = "deploy-nodes: no image e2e-no-such-image on this machine: build it, or 'docker pull e2e-no-such-image'\n";
    assert_eq!(said, line);
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &format!("network={}", lab.network())]).lines().count(), 3);
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 20);
    finish(load, &said);
}

#[test]
fn an_interrupted_run_leaves_all_nodes_in_use_the_next_one_goes_on_and_another_goes_back() {
    let image = Image::build("blue", "ENV TAG=second");
    let (lab, balancer, _nodes) = Lab::with_nodes(Look::Hardened, 2);
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4);
    let old = "softengheigvd/webapp";
    let said = ends(&lab, deploy(&lab, &balancer, &image.0, &["--dry-run"]), 0);
    assert_eq!(said, format!("deploy-nodes: would replace s1 s2, 1 at a time, by {}\n", image.0));
    assert_eq!(lab.nodes(), ["s1", "s2"]);

    let tool = deploy(&lab, &balancer, &image.0, &["--idle", "10m", "--drain", "10m"]);
    says(&tool, "drains ");
    let weigh = |expected: &[&str]| {
        eventually("a node drains, or none", 10, || {
            let state = balancer.statistics("show servers state nodes")?;
            // The weight that was set is the eighth column (HAProxy 3.0 management guide, section 9.3).
            let weight = |line: &str| line.split(' ').nth(7).map(str::to_owned);
            let mut found: Vec<String> = state.lines().skip(2).filter_map(weight).collect();
            found.sort();
            same(&found, &expected.iter().map(|&weight| weight.to_owned()).collect())
        });
    };
    weigh(&["0", "100", "100"]);
    tool.signal(Signal::SIGINT);
    let said = ends(&lab, tool, 1);
    assert!(said.ends_with("deploy-nodes: interrupted; running old nodes: s1 s2; new ones: s3\n"), "{said}");
    weigh(&["100", "100", "100"]);
    tags(&balancer, &[&format!("{}-s1", lab.network()), &format!("{}-s2", lab.network()), "second"]);

    let said = ends(&lab, deploy(&lab, &balancer, &image.0, &["--idle", "1s", "--at-once", "50"]), 0);
    assert!(said.contains("s4 is started in place of s2") && said.contains("drains s1 s2\n"), "{said}");
    assert_eq!(lab.nodes(), ["s3", "s4"]);
    tags(&balancer, &["second"]);
    let said = ends(&lab, deploy(&lab, &balancer, &image.0, &[]), 0);
    assert_eq!(said, format!("deploy-nodes: nothing to do: s3 s4 run {}\n", image.0));

    let said = ends(&lab, deploy(&lab, &balancer, old, &["--idle", "1s", "--at-once", "50"]), 0);
    assert_eq!(lab.nodes(), ["s1", "s2"]);
    tags(&balancer, &[&format!("{}-s1", lab.network()), &format!("{}-s2", lab.network())]);
    finish(load, &said);
}
