//! What clients see: ports, headers, logs, and no lost request.

use std::collections::BTreeSet;
use std::thread::JoinHandle;

use e2e::docker::docker;
use e2e::http::{Load, client, get};
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, Look, eventually};

#[test]
fn without_a_node_a_503_says_so() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let answer = eventually("port 80 answers", 15, || balancer.get("/", None));
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("The service is unavailable"), "{}", answer.body);
}

#[test]
fn port_80_answers_in_json_with_the_node_s_address() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    let answer = balancer.get("/", None).unwrap();
    assert_eq!(answer.status, 200);
    for field in ["hello", "ip", "host", "tag", "sessionViews", "id"] {
        assert!(answer.field(field).is_ok(), "{field}: {}", answer.body);
    }
    assert_eq!(answer.field("ip").unwrap(), nodes[0].address());
    assert_eq!(answer.field("tag").unwrap(), nodes[0].name, "the container's name, found by its address");
    assert_eq!(answer.backend.as_deref(), Some(nodes[0].address().as_str()));
}

#[test]
fn port_1936_shows_every_node() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 3);
    let page = get(&format!("http://127.0.0.1:{}/", balancer.port(1936)), None).unwrap();
    assert_eq!(page.status, 200);
    for node in &nodes {
        assert!(page.body.contains(&node.member()), "{} is not on the page", node.member());
    }
}

#[test]
fn port_9999_shows_but_changes_nothing() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    let member = nodes[0].member();
    assert!(balancer.statistics("show stat").unwrap().contains(&format!("nodes,{member},")));
    for change in [
        format!("set server nodes/{member} state maint"),
        format!("del server nodes/{member}"),
        "shutdown sessions server nodes/x".to_owned(),
        "show sess".to_owned(),
        "show env".to_owned(),
    ] {
        let answer = balancer.statistics(&change).unwrap();
        assert!(answer.contains("Permission denied"), "{change}: {answer}");
    }
    balancer.settles_on(&[&nodes[0]], 5);
}

#[test]
fn idle_connections_to_port_9999_do_not_keep_the_tools_out() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let port = balancer.port(9999);
    let idle: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let second = lab.node("s2");
    eventually("the second node is in the registry", 10, || same(&balancer.registry().len(), &2));
    let seen = eventually("both answer", 10, || {
        let seen: BTreeSet<String> = (0..4).map(|_| balancer.get("/", None)?.host()).collect::<Result<_, String>>()?;
        if seen.len() == 2 { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    assert!(seen.contains(&second.member()) && seen.contains(&nodes[0].member()));
    drop(idle);
}

#[test]
fn requests_show_in_docker_logs() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    let _ = balancer.get("/?look-for-me", None).unwrap();
    eventually("the request is logged", 5, || {
        let logs = balancer.logs();
        let found = logs.lines().any(|line| line.contains("GET /?look-for-me") && line.contains(&nodes[0].member()));
        if found { Ok(()) } else { Err(logs) }
    });
}

#[test]
fn no_request_is_lost_in_ten_reloads() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let first = balancer.settled_worker(&nodes.iter().collect::<Vec<_>>());
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 8);
    for round in 1..=10 {
        // The lab's own way, and ours.
        let command: &[&str] =
            if round % 2 == 0 { &["s6-svc", "-h", "/var/run/s6/services/ha"] } else { &["reload-ha", "--force"] };
        let before = balancer.worker();
        let _ = balancer.exec(command);
        eventually("a new worker takes over", 10, || if balancer.worker() == before { Err(before.clone()) } else { Ok(()) });
        let sent = load.sent();
        eventually("requests go on", 20, || if load.sent() >= sent + 200 { Ok(()) } else { Err(load.sent().to_string()) });
    }
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert!(sent >= 2000, "{sent} requests");
    assert_ne!(balancer.worker(), first);
}

#[test]
fn no_request_is_lost_while_nodes_come_and_stop() {
    let (lab, balancer, mut nodes) = Lab::with_nodes(Look::Hardened, 2);
    let worker = balancer.settled_worker(&nodes.iter().collect::<Vec<_>>());
    let load = Load::start(&format!("http://127.0.0.1:{}/", balancer.port(80)), 8);
    for number in 3..=5 {
        nodes.push(lab.node(&format!("s{number}")));
        balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 15);
        let gone = nodes.remove(0);
        gone.stop();
        balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 10);
    }
    let (sent, lost) = load.finish();
    assert!(lost.is_empty(), "{} of {sent} lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
    assert!(sent >= 500, "{sent} requests");
    assert_eq!(balancer.worker(), worker, "nodes that come and go do not reload HAProxy");
}

#[test]
fn a_websocket_echoes_through_the_balancer() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let script = "const socket = new (require('ws'))(process.argv[1]);
        socket.on('open', () => socket.send('is anybody there?'));
        socket.on('message', (data) => { console.log(String(data)); socket.close(1000); });
        socket.on('error', (error) => { console.error(error.message); process.exit(1); });";
    let url = format!("ws://{}/ws", balancer.address());
    assert_eq!(nodes[0].exec(&["node", "-e", script, &url]), "is anybody there?\n");
}

#[test]
fn a_request_tells_the_node_where_it_came_from() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    // In the place of the application, what shows the headers that it is sent.
    let show = "require('http').createServer((request, answer) => answer.end(JSON.stringify(request.headers))).listen(3999)";
    let server = ["exec", "-d", &nodes[0].name, "node", "-e", show];
    let _ = docker(&server);
    let _ = nodes[0].exec(&["serf", "tags", "-set", "port=3999"]);
    eventually("the node is asked at its other port", 10, || balancer.get("/", None)?.field("x-forwarded-for"));
    // What the client says of itself, a node must not believe.
    let url = format!("http://127.0.0.1:{}/", balancer.port(80));
    let request = client().get(&url).header("X-Forwarded-For", "6.6.6.6").header("X-Balancer", "another");
    let headers: serde_json::Value = serde_json::from_str(&request.call().unwrap().body_mut().read_to_string().unwrap()).unwrap();
    let header = |name: &str| headers[name].as_str().unwrap_or_default().to_owned();
    let from = header("x-forwarded-for");
    assert!(from != "6.6.6.6" && from.parse::<std::net::IpAddr>().is_ok(), "{headers}");
    assert_eq!(header("x-forwarded-port"), "80");
    // Balancers in a row add to each other's list.
    assert_eq!(header("x-balancer"), format!("another, {}", balancer.member()));
}

#[test]
fn a_request_that_comes_round_again_is_answered_508() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 1);
    // In the place of the application, what asks the balancer for all that it is asked.
    let script = "const http = require('http');
        http.createServer((request, answer) => {
            if (request.url === '/health') return answer.end();
            const options = { host: process.argv[1], path: request.url, headers: request.headers };
            http.get(options, (inner) => { answer.writeHead(inner.statusCode); inner.pipe(answer); });
        }).listen(3999)";
    let _ = docker(&["exec", "-d", &nodes[0].name, "node", "-e", script, &balancer.address()]);
    let _ = nodes[0].exec(&["serf", "tags", "-set", "port=3999"]);
    eventually("the request comes round", 10, || match balancer.get("/", None)? {
        answer if answer.status == 508 => Ok(()),
        answer => Err(format!("{} {}", answer.status, answer.body)),
    });
}

#[test]
fn a_download_goes_on_to_its_end_while_its_node_is_stopped() {
    let (_lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let download = download(&balancer, 5);
    busy(&balancer, &nodes).stop();
    assert_eq!(download.join().unwrap().unwrap().lines().count(), 5);
}

#[test]
fn a_long_download_goes_on_to_its_end_in_the_time_that_docker_stop_is_given() {
    let (_lab, balancer, nodes) = patient_nodes();
    let download = download(&balancer, 30);
    let node = busy(&balancer, &nodes);
    let _ = docker(&["stop", "-t", "40", &node.name]);
    assert_eq!(download.join().unwrap().unwrap().lines().count(), 30);
    assert_eq!(node.inspect("{{.State.ExitCode}}"), "0", "drained, not killed");
}

#[test]
fn a_websocket_goes_on_to_its_end_while_its_node_is_stopped() {
    let (lab, balancer, nodes) = patient_nodes();
    // In no container that is stopped; its role keeps it out of the balancer.
    let client = lab.node_with("client", &["-e", "ROLE=client"]);
    let script = "const fs = require('fs');
        const socket = new (require('ws'))(process.argv[1]);
        const say = () => fs.existsSync('/tmp/end') ? socket.close(1000) : socket.send('still there?');
        socket.on('open', say);
        socket.on('message', (data) => { console.log(String(data)); setTimeout(say, 50); });
        socket.on('error', (error) => console.log(error.message));
        socket.on('close', (code) => console.log('closed', code));";
    let command = r#"exec node -e "$1" "$2" >/tmp/echoes"#;
    let url = format!("ws://{}/ws", balancer.address());
    let _ = docker(&["exec", "-d", &client.name, "sh", "-c", command, "sh", script, &url]);
    let node = busy(&balancer, &nodes);
    let (name, address, line) = (node.name.clone(), node.address(), node.line());
    let stop = std::thread::spawn(move || docker(&["stop", "-t", "40", &name]));

    eventually("the node accepts nothing any more", 20, || {
        if std::net::TcpStream::connect((address.as_str(), 3000)).is_ok() { Err("it does".to_owned()) } else { Ok(()) }
    });
    assert!(!balancer.process().unwrap().contains(&line), "and the balancer has taken it out");
    let echoes = || client.exec(&["cat", "/tmp/echoes"]).lines().count();
    let before = echoes();
    eventually("the websocket goes on", 10, || if echoes() >= before + 20 { Ok(()) } else { Err(echoes().to_string()) });
    assert!(!stop.is_finished(), "the node waits for it");

    let _ = client.exec(&["touch", "/tmp/end"]);
    let _ = stop.join().unwrap();
    let said = client.exec(&["cat", "/tmp/echoes"]);
    assert_eq!(said.lines().last(), Some("closed 1000"), "by the client, not because the node went away");
    assert_eq!(node.inspect("{{.State.ExitCode}}"), "0", "drained, not killed");
}

/// A balancer and two nodes that finish what runs for up to 35 s.
fn patient_nodes() -> (Lab, Balancer, Vec<Container>) {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let nodes: Vec<Container> = ["s1", "s2"].map(|name| lab.node_with(name, &["-e", "DRAIN_TIMEOUT=35"])).into();
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 20);
    (lab, balancer, nodes)
}

/// A download through the balancer that takes this long.
fn download(balancer: &Balancer, seconds: u32) -> JoinHandle<Result<String, ureq::Error>> {
    let url = format!("http://127.0.0.1:{}/slow?seconds={seconds}", balancer.port(80));
    std::thread::spawn(move || ureq::get(&url).call()?.body_mut().read_to_string())
}

/// The one node that has a connection.
fn busy<'a>(balancer: &Balancer, nodes: &'a [Container]) -> &'a Container {
    eventually("one node is busy", 15, || {
        let state = balancer.statistics("show stat")?;
        // Current sessions are the fifth column (HAProxy 3.0 management guide, section 9.1).
        let busy = state.lines().filter(|line| line.starts_with("nodes,")).find(|line| line.split(',').nth(4) == Some("1"));
        let name = busy.and_then(|line| line.split(',').nth(1)).ok_or("none")?.to_owned();
        nodes.iter().find(|node| node.member() == name).ok_or(name)
    })
}
