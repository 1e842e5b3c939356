//! Nodes that hang, vanish, fail or drain: what clients see.

use std::thread;
use std::time::{Duration, Instant};

use e2e::docker::{docker, text};
use e2e::http::{Load, get_by};
use e2e::{Balancer, Container, Lab, Look, eventually};

/// In the place of the application: sets a session, and fails at one URL.
const APPLICATION: &str = "require('http').createServer((request, answer) => {
        answer.statusCode = request.url === '/bad' ? 500 : 200;
        answer.setHeader('Set-Cookie', 'NODESESSID=mine');
        answer.end('here');
    }).listen(3999)";

/// Nodes that run [`APPLICATION`].
fn lab(count: usize) -> (Lab, Balancer, Vec<Container>) {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let nodes: Vec<Container> =
        (1..=count).map(|number| lab.node_with(&format!("s{number}"), &["-e", "SERF_TAGS=port=3999"])).collect();
    for node in &nodes {
        let _ = docker(&["exec", "-d", &node.name, "node", "-e", APPLICATION]);
    }
    eventually("all nodes are up", 30, || {
        let up = up(&balancer)?;
        if up == count { Ok(()) } else { Err(format!("{up} are up")) }
    });
    (lab, balancer, nodes)
}

/// How many servers HAProxy's check has found up.
fn up(balancer: &Balancer) -> Result<usize, String> {
    let state = balancer.statistics("show stat")?;
    Ok(state.lines().filter(|line| line.starts_with("nodes,") && line.contains(",UP,") && line.contains(",L7OK,")).count())
}

/// How often each server has been taken for down.
fn downs(balancer: &Balancer) -> Vec<String> {
    let state = balancer.statistics("show stat").unwrap();
    let column = state.lines().next().unwrap().split(',').position(|name| name == "chkdown").unwrap();
    let servers = state.lines().filter(|line| line.starts_with("nodes,") && !line.starts_with("nodes,BACKEND,"));
    servers.map(|line| line.split(',').nth(column).unwrap().to_owned()).collect()
}

fn url(balancer: &Balancer, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", balancer.port(80))
}

/// Waits until so many more requests were answered.
fn goes_on(load: &Load, requests: u32) {
    let sent = load.sent();
    eventually("requests go on", 30, || if load.sent() >= sent + requests { Ok(()) } else { Err(load.sent().to_string()) });
}

fn none_lost(load: Load) {
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
}

#[test]
fn six_of_eight_nodes_killed_at_once_cost_no_get() {
    let (_lab, balancer, nodes) = lab(8);
    let load = Load::start(&url(&balancer, "/"), 8);
    goes_on(&load, 500);
    let names: Vec<&str> = nodes[..6].iter().map(|node| node.name.as_str()).collect();
    let _ = docker(&[&["kill"], &names[..]].concat());
    goes_on(&load, 1000);
    none_lost(load);
}

#[test]
fn a_url_that_fails_everywhere_takes_nobody_out() {
    let (_lab, balancer, _nodes) = lab(2);
    let url = |path: &str| url(&balancer, path);
    let before = downs(&balancer);
    let bad = Load::start(&url("/bad"), 2);
    let load = Load::start(&url("/"), 4);
    goes_on(&bad, 500);
    goes_on(&load, 500);
    let (sent, failed) = bad.finish();
    assert_eq!(failed.len(), sent as usize);
    assert_eq!((before.len(), &before), (2, &downs(&balancer)));
    none_lost(load);
}

#[test]
fn sessions_of_draining_nodes_go_on_while_new_clients_get_a_503() {
    let (_lab, balancer, nodes) = lab(2);
    let client = e2e::http::client();
    let first = get_by(&client, &url(&balancer, "/"), None).unwrap();
    for node in &nodes {
        let _ = node.exec(&["serf", "tags", "-set", "drain=yes"]);
    }
    let refused = eventually("new clients are refused", 10, || match balancer.get("/", None)? {
        answer if answer.status == 503 => Ok(answer),
        answer => Err(answer.status.to_string()),
    });
    assert!(refused.body.starts_with("The service is unavailable") && !refused.body.contains("docker"), "{}", refused.body);
    assert_eq!(balancer.get("/", first.cookie.as_deref()).unwrap().status, 200);
}

/// New requests are answered within 10 s of the fault, and those that waited are answered in the end.
fn survives(begin: impl Fn(&Container), end: impl Fn(&Container)) {
    let (_lab, balancer, nodes) = lab(2);
    let waiting = Load::start(&url(&balancer, "/"), 8);
    goes_on(&waiting, 200);
    begin(&nodes[0]);
    // After one failed check of two, it still gets requests.
    eventually("it gets no more requests", 10, || {
        let state = balancer.statistics("show stat")?;
        let servers = state.lines().filter(|line| line.starts_with("nodes,") && !line.starts_with("nodes,BACKEND,"));
        let used = servers.filter(|line| line.contains(",UP")).count();
        if used == 1 { Ok(()) } else { Err(format!("{used} get requests")) }
    });
    let load = Load::start(&url(&balancer, "/"), 4);
    goes_on(&load, 300);
    none_lost(load);
    end(&nodes[0]);
    goes_on(&waiting, 100);
    none_lost(waiting);
}

#[test]
fn a_paused_node_loses_no_get() {
    survives(Container::pause, Container::unpause);
}

#[test]
fn a_stopped_application_loses_no_get() {
    let signal = |node: &Container, name: &str| {
        let _ = node.exec(&["pkill", &format!("-{name}"), "-f", "^node -e"]);
    };
    survives(|node| signal(node, "STOP"), |node| signal(node, "CONT"));
}

#[test]
fn a_node_whose_network_vanishes_loses_no_get() {
    survives(Container::cut_network, |_| {});
}

/// What `show-nodes` prints, whether or not it finds a difference.
fn show_nodes(balancer: &Balancer) -> String {
    text(&balancer.try_exec(&["show-nodes"], "").stdout)
}

/// The gossip of the balancer is cut both ways and one way, longer than Serf takes to declare everybody failed, while each node
/// answers HTTP.
#[test]
fn a_balancer_whose_gossip_is_cut_keeps_its_nodes() {
    const CUT: Duration = Duration::from_secs(40);
    let cut = |chains: &[&str]| {
        let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 3);
        let nodes: Vec<_> = nodes.iter().collect();
        let load = Load::start(&url(&balancer, "/"), 2);
        let end = Instant::now() + CUT;
        balancer.cut_gossip(chains);
        let kept = eventually("nodes are kept", 60, || {
            let shown = show_nodes(&balancer);
            if shown.contains(": kept") { Ok(shown) } else { Err(shown) }
        });
        while Instant::now() < end {
            goes_on(&load, 10);
        }
        assert_eq!(balancer.registry(), nodes.iter().map(|node| node.line()).collect(), "{chains:?}: {kept}");
        balancer.mend_network();
        balancer.settles_on(&nodes, 20);
        eventually("all are members again", 60, || {
            let shown = show_nodes(&balancer);
            if shown.contains(": kept") { Err(shown) } else { Ok(()) }
        });
        none_lost(load);
    };
    thread::scope(|scope| {
        for chains in [&["INPUT", "OUTPUT"][..], &["INPUT"], &["OUTPUT"]] {
            scope.spawn(move || cut(chains));
        }
    });
}
