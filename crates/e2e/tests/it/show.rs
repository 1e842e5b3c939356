//! `show-nodes` in a real lab: container names, nodes that leave and die, who did what.

use std::io::{Read, Write};
use std::net::TcpStream;

use e2e::docker::text;
use e2e::http::get;
use e2e::{Balancer, Container, Lab, Look, eventually};

/// What it prints, and how it ends.
fn show(balancer: &Balancer, arguments: &[&str]) -> (String, i32) {
    let arguments = if arguments.is_empty() { &["--wide", "--all"] } else { arguments };
    let output = balancer.try_exec(&[&["show-nodes"], arguments].concat(), "");
    (text(&output.stdout), output.status.code().unwrap_or(-1))
}

/// The words of a node's row.
fn row(shown: &str, node: &Container) -> Vec<String> {
    let words = |line: &str| line.trim_start_matches("! ").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let member = node.member();
    shown.lines().map(words).find(|words| words.first() == Some(&member)).unwrap_or_default()
}

#[test]
fn every_node_is_a_row_with_its_container_s_name() {
    for look in [Look::Plain, Look::Hardened] {
        let (_lab, balancer, nodes) = Lab::with_nodes(look, 2);
        eventually("the four states agree", 10, || {
            let (shown, code) = show(&balancer, &[]);
            for node in &nodes {
                let expected = [&node.member(), &node.name, &node.address(), "3000", "100", "alive", "yes", "yes", "UP"];
                if row(&shown, node).get(..9) != Some(&expected.map(str::to_owned)[..]) {
                    return Err(shown);
                }
            }
            if code == 0 { Ok(()) } else { Err(format!("{code}: {shown}")) }
        });
        let (shown, code) = show(&balancer, &[&nodes[1].name]);
        assert_eq!(code, 0, "{shown}");
        assert!(shown.contains("by sync-nodes (cause: "), "{shown}");
        let start = balancer.exec(&["cat", "/var/log/serf.log"]);
        assert!(start.contains("published generation=1 cause=start applied=file "), "{start}");
    }
}

#[test]
fn a_node_that_leaves_with_a_running_answer_is_no_drift_and_then_gone() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let node = &nodes[0];
    let mut client = TcpStream::connect(("127.0.0.1", balancer.port(80))).unwrap();
    client.write_all(b"GET /slow?seconds=15 HTTP/1.0\r\n\r\n").unwrap();
    eventually("the request runs", 5, || {
        let (shown, _) = show(&balancer, &[]);
        if row(&shown, node).get(9).is_some_and(|sessions| sessions == "1") { Ok(()) } else { Err(shown) }
    });
    // The last node would be kept as long as it answers.
    let other = lab.node("other");
    balancer.settles_on(&[node, &other], 15);
    std::thread::scope(|scope| {
        scope.spawn(|| node.stop());
        eventually("it leaves", 5, || {
            let (shown, code) = show(&balancer, &[]);
            let told = format!("{}: has left, 1 session to finish\n", node.member());
            if code == 0 && shown.ends_with(&told) { Ok(()) } else { Err(format!("{code}: {shown}")) }
        });
    });
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("200 OK"), "{answer}");
    eventually("it is gone", 30, || {
        let (shown, code) = show(&balancer, &[]);
        if code == 0 && !shown.contains(&node.member()) { Ok(()) } else { Err(format!("{code}: {shown}")) }
    });
    let (shown, _) = show(&balancer, &[&node.member()]);
    assert!(shown.contains("now       in none of the four states"), "{shown}");
    assert!(shown.contains("(cause: agent-log-leave)") || shown.contains("had finished, and was deleted"), "{shown}");
}

#[test]
fn a_node_that_is_gone_is_explained_by_its_container_s_name() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let told = |name: &str, begin: &str, parts: &[&str]| {
        eventually(&format!("{name} is explained"), 30, || {
            let (shown, _) = show(&balancer, &[name]);
            let fits = shown.starts_with(begin) && parts.iter().all(|part| shown.contains(part));
            if fits { Ok(()) } else { Err(shown) }
        });
    };
    let begin = |node: &Container| format!("node      {}\ncontainer {}\n", node.member(), node.name);
    let (first, second) = (begin(&nodes[0]), begin(&nodes[1]));
    nodes[0].stop();
    told(&nodes[0].name, &first, &["now       in none of the four states: the member has left", "taken out "]);
    // The next container gets the address of the first, and not its row.
    let third = lab.node("s3");
    balancer.settles_on(&[&nodes[1], &third], 20);
    told(&nodes[0].name, &first, &["the member has left"]);
    nodes[1].kill();
    told(&nodes[1].name, &second, &["member    failed"]);
    let fourth = lab.node("s4");
    eventually("no two rows have one container", 20, || {
        let (shown, _) = show(&balancer, &[]);
        let (dead, new) = (row(&shown, &nodes[1]), row(&shown, &fourth));
        let is_right = new.get(1) == Some(&fourth.name) && dead.get(1).is_none_or(|container| container == "-");
        if is_right { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn both_sources_have_metrics() {
    let (_lab, balancer, _nodes) = Lab::with_nodes(Look::Hardened, 2);
    let (shown, code) = show(&balancer, &["--metrics"]);
    assert_eq!(code, 0);
    for sample in ["lb_nodes{state=\"registered\"} 2\n", "lb_publish_failures_total 0\n", "lb_last_sync_timestamp_seconds 1"] {
        assert!(shown.contains(sample), "{sample}: {shown}");
    }
    let answer = get(&format!("http://127.0.0.1:{}/metrics", balancer.port(1936)), None).unwrap();
    assert!(answer.body.contains("haproxy_backend_active_servers{proxy=\"nodes\"} 2"), "{}", answer.body);
}
