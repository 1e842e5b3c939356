//! `LOG_TARGET`: the log also goes to a syslog server, a real rsyslog.

use e2e::docker::docker;
use e2e::http::{Load, get};
use e2e::{Balancer, Container, Lab, Look, eventually};
use lb_fixture::LAB_TEMPLATE;

/// A syslog server on the lab's network, by the name `logs`.
struct Server(Container);

impl Server {
    fn start(lab: &Lab) -> Self {
        let _ = docker(&["build", "-q", "-t", "e2e-rsyslog", concat!(env!("CARGO_MANIFEST_DIR"), "/images/rsyslog")]);
        Self(lab.run("e2e-rsyslog", "logs", &["--network-alias", "logs"]))
    }

    /// Waits for a message with all of these texts.
    fn gets(&self, texts: &[&str]) {
        eventually(&format!("the server has {texts:?}"), 20, || {
            let messages = self.0.exec(&["cat", "/messages"]);
            let found = messages.lines().any(|line| texts.iter().all(|text| line.contains(text)));
            if found { Ok(()) } else { Err(messages) }
        });
    }
}

/// A balancer and a node that send to `target`.
fn start(lab: &Lab, target: &str) -> (Balancer, Container) {
    let variable = format!("LOG_TARGET={target}");
    let (balancer, node) = (lab.balancer_with("ha", &["-e", &variable]), lab.node_with("s1", &["-e", &variable]));
    balancer.settles_on(&[&node], 20);
    (balancer, node)
}

fn ask(balancer: &Balancer, path: &str) {
    assert_eq!(balancer.get(path, None).unwrap().status, 200);
}

/// How many lines of `docker logs` have this text.
fn said(container: &Container, text: &str) -> usize {
    container.logs().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn the_log_of_every_container_comes_by_udp_and_by_tcp() {
    for scheme in ["udp", "tcp"] {
        let lab = Lab::new(Look::Plain);
        let server = Server::start(&lab);
        let (balancer, node) = start(&lab, &format!("{scheme}://logs:514"));
        ask(&balancer, "/?look-for-me");
        server.gets(&[&balancer.member(), " haproxy local0.info:", "GET /?look-for-me", &node.member()]);
        server.gets(&[&balancer.member(), " serf local0.info:", "sync-nodes: registered ", &node.member()]);
        // As the lab's own handlers do.
        let _ = node.exec(&["sh", "-c", "echo Member join script triggered >>/var/log/serf.log"]);
        server.gets(&[&node.member(), " serf local0.info:", "Member join script triggered"]);
        eventually("docker logs have it too", 5, || {
            let count = said(&balancer, "GET /?look-for-me");
            if count == 1 { Ok(()) } else { Err(format!("{count} times")) }
        });
    }
}

#[test]
fn a_server_that_is_away_delays_nobody_and_gets_what_it_missed() {
    let lab = Lab::new(Look::Plain);
    let server = Server::start(&lab);
    let (balancer, node) = start(&lab, "tcp://logs:514");
    ask(&balancer, "/?before");
    server.gets(&["GET /?before"]);

    server.0.kill();
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 4);
    let second = lab.node("s2");
    balancer.settles_on(&[&node, &second], 15);
    ask(&balancer, "/?away");
    eventually(
        "a thousand requests are answered",
        30,
        || if load.sent() >= 1000 { Ok(()) } else { Err(load.sent().to_string()) },
    );
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {lost:?}", lost.len());
    for program in ["haproxy", "serf"] {
        assert_eq!(said(&balancer, &format!("lines of {program} wait")), 1, "{}", balancer.logs());
    }

    server.0.start();
    server.gets(&["GET /?away"]);
    server.gets(&[" serf ", " registered ", &second.member()]);
    server.gets(&["works again, 0 lines of haproxy were lost"]);
}

#[test]
fn datagrams_find_a_server_that_comes_back() {
    let lab = Lab::new(Look::Plain);
    let server = Server::start(&lab);
    let (balancer, _node) = start(&lab, "udp://logs");
    server.0.kill();
    // What takes its address: it must be found by its name.
    let _taker = lab.node("taker");
    server.0.start();
    eventually("a request of now comes", 30, || {
        ask(&balancer, "/?back");
        let messages = server.0.exec(&["cat", "/messages"]);
        if messages.contains("GET /?back") { Ok(()) } else { Err(messages) }
    });
}

#[test]
fn a_target_that_makes_no_sense_is_said_and_the_container_serves() {
    let lab = Lab::new(Look::Hardened);
    let (balancer, _node) = start(&lab, "logs:514");
    ask(&balancer, "/");
    for program in ["haproxy", "serf"] {
        let line = format!("must be udp://HOST[:PORT] or tcp://HOST[:PORT]: no line of {program} is sent");
        eventually("it is said", 5, || if said(&balancer, &line) == 1 { Ok(()) } else { Err(balancer.logs()) });
    }
}

#[test]
fn with_the_lab_s_own_template_the_tools_lines_come() {
    let lab = Lab::new(Look::Plain);
    let server = Server::start(&lab);
    let folder = std::env::temp_dir().join(lab.network());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("haproxy.cfg.hb"), LAB_TEMPLATE).unwrap();
    let volume = format!("{}:/config:ro", folder.display());
    let balancer = lab.balancer_with("ha", &["-e", "LOG_TARGET=udp://logs", "-v", &volume]);
    let node = lab.node("s1");
    server.gets(&[" serf ", " registered ", &node.member()]);
    let url = format!("http://127.0.0.1:{}/", balancer.port(80));
    eventually("the node answers", 15, || get(&url, None)?.host());
    std::fs::remove_dir_all(&folder).unwrap();
}
