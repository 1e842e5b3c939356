//! What `docker logs` shows: one stream, and each thing once.

use std::fs;

use e2e::docker::{docker, text, try_docker};
use e2e::{Balancer, Container, Lab, Look, eventually};

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ha/config/haproxy.cfg.hb");

/// Waits until the container has logged a line with all these parts.
fn logs(container: &Container, parts: &[&str]) {
    eventually(&format!("{parts:?} is logged"), 30, || {
        let logs = container.logs();
        if logs.lines().any(|line| parts.iter().all(|part| line.contains(part))) { Ok(()) } else { Err(logs) }
    });
}

/// How often a part of a line has been logged, by the time that a request which comes now is logged.
fn count(balancer: &Balancer, part: &str) -> usize {
    let path = format!("/count-{}", part.len() + balancer.logs().len());
    let _ = balancer.get(&path, None);
    logs(balancer, &[&path]);
    balancer.logs().matches(part).count()
}

#[test]
fn all_that_a_container_logs_is_on_standard_output() {
    for look in [Look::Plain, Look::Hardened] {
        let (_lab, balancer, nodes) = Lab::with_nodes(look, 1);
        let (node, member) = (&nodes[0], nodes[0].member());
        let _ = balancer.get("/a-request", None);
        for part in ["New worker", "GET /a-request ", "sync-nodes: published", "member-join: ", "EventMemberJoin: "] {
            logs(&balancer, &[part]);
        }
        logs(node, &["webapp: "]);
        node.stop();
        logs(&balancer, &["member-leave: ", &member]);
        balancer.stop();
        for container in [&balancer.container, node] {
            let output = try_docker(&["logs", &container.name], "");
            assert_eq!(text(&output.stderr), "", "{}", container.name);
        }
    }
}

#[test]
fn a_stop_and_a_death_are_told_apart() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 3);
    nodes[0].stop();
    nodes[1].kill();
    for (node, said) in [(&nodes[0], "left: event member-leave"), (&nodes[1], "failed: event member-failed")] {
        let line = format!("member-leave: {} {said}", node.member());
        logs(&balancer, &[&line]);
        let log = balancer.exec(&["cat", "/var/log/serf.log"]);
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
}

#[test]
fn a_server_that_goes_down_and_up_is_told_once() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let (node, server) = (&nodes[0], format!("Server nodes/{}", nodes[0].member()));
    let service = |option: &str| {
        let _ = node.exec(&["s6-svc", option, "/var/run/s6/services/node"]);
    };
    let (down, up) = (format!("{server} is DOWN,"), format!("{server} is UP,"));
    let before = count(&balancer, &up);
    service("-d");
    logs(&balancer, &[&down]);
    assert_eq!(count(&balancer, &down), 1, "{}", balancer.logs());
    service("-u");
    eventually("it is up again", 20, || {
        let times = count(&balancer, &up) - before;
        if times > 0 { Ok(()) } else { Err(balancer.logs()) }
    });
    assert_eq!(count(&balancer, &up) - before, 1, "{}", balancer.logs());
}

#[test]
fn what_haproxy_refuses_is_told_once() {
    let folder = std::env::temp_dir().join(format!("e2e-{}-template", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let good = fs::read_to_string(TEMPLATE).unwrap();
    let set = |text: &str| fs::write(folder.join("haproxy.cfg.hb"), text).unwrap();
    set(&good);
    let lab = Lab::new(Look::Hardened);
    let volume = format!("{}:/config:ro", folder.display());
    let balancer = lab.balancer_with("ha", &["-v", &volume, "-e", "SYNC_EVERY=1s"]);
    let node = lab.node("s1");
    balancer.settles_on(&[&node], 20);

    // Refused by `haproxy -c`: the tool says so, and goes on trying in silence.
    set(&good.replace("bind *:80", "bind *:70000"));
    logs(&balancer, &["sync-nodes: HAProxy rejects the configuration: ", "70000"]);
    set(&good);
    logs(&balancer, &["sync-nodes: works again"]);
    assert_eq!(count(&balancer, "70000"), 1, "{}", balancer.logs());

    // Valid, but HAProxy cannot have the address: it says so itself, at each attempt.
    let _ = balancer.exec(&["s6-svc", "-d", "-wD", "-T", "5000", "/var/run/s6/services/sync"]);
    set(&good.replace("bind *:80", "bind *:80\n    bind 192.0.2.1:80"));
    let refused = balancer.try_exec(&["sync-nodes"], "");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    logs(&balancer, &["[ALERT]", "cannot bind socket", "192.0.2.1:80"]);
    assert_eq!(count(&balancer, "cannot bind socket"), 1, "{}", balancer.logs());
    set(&good);
    let _ = balancer.exec(&["sync-nodes"]);

    // A HAProxy that does not start says so as well.
    set(&good.replace("bind *:80", "bind *:70000"));
    let first = lab.balancer_with("first", &["-v", &volume]);
    logs(&first, &["render-cfg: HAProxy rejects the configuration: ", "70000"]);
    let _ = docker(&["rm", "-f", "-v", &first.name]);
    fs::remove_dir_all(folder).unwrap();
}
