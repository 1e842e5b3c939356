//! Serf loses and merges events; the balancer must not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use e2e::{Lab, Look, eventually};
use lb_fixture::Background;

#[test]
fn a_tag_changed_within_a_second_of_the_join_is_seen() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Hardened, 1);
    let node = lab.node("s2");
    // Join and update within Serf's second of coalescing come as one event, the update.
    eventually("the tag is set", 10, || {
        let output = node.try_exec(&["serf", "tags", "-set", "weight=7"], "");
        if output.status.success() { Ok(()) } else { Err(e2e::docker::text(&output.stderr)) }
    });
    let expected = format!("{} weight=7", node.line());
    eventually("the registry has the weight", 5, || {
        let registry = balancer.registry();
        if registry.contains(&expected) && registry.contains(&nodes[0].line()) { Ok(()) } else { Err(format!("{registry:?}")) }
    });
}

#[test]
fn a_node_that_returns_under_another_address_while_another_churns_is_followed() {
    let (lab, balancer, nodes) = Lab::with_nodes(Look::Plain, 3);
    let [s1, s2, s3] = &nodes[..] else { unreachable!() };
    let before = s1.address();
    s1.stop();
    s3.stop();
    let taker = lab.node("taker");
    s3.start();
    s1.start();
    assert_ne!(s1.address(), before);
    balancer.settles_on(&[s1, s2, s3, &taker], 15);
}

#[test]
fn without_any_event_handler_the_nodes_are_followed_all_the_same() {
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer_with("ha", &["-e", "SERF_EVENT_HANDLERS="]);
    let nodes = [lab.node("s1"), lab.node("s2")];
    balancer.settles_on(&[&nodes[0], &nodes[1]], 15);
    nodes[0].stop();
    balancer.settles_on(&[&nodes[1]], 5);
    assert!(!balancer.logs().contains("member-join: "), "a handler ran");
}

#[test]
fn handlers_that_are_killed_half_way_do_no_harm() {
    let lab = Lab::new(Look::Hardened);
    // Each handler has between 0.1 and 9.1 ms, as the clock's tenth of a second has it.
    let killed = |tool| format!("timeout -s KILL 0.00$(date +%1N)1 {tool} || echo killed >>/tmp/killed");
    let handlers =
        format!("member-join,member-update={};member-leave,member-failed={}", killed("member-join"), killed("member-leave"));
    let balancer = lab.balancer_with("ha", &["-e", &format!("SERF_EVENT_HANDLERS={handlers}")]);
    eventually("sync-nodes runs", 20, || balancer.service_pid("sync").map(drop).ok_or_else(|| "it is down".to_owned()));
    // Without sync-nodes the handlers do the work themselves.
    let _ = balancer.exec(&["s6-svc", "-d", "-wD", "-T", "5000", "/var/run/s6/services/sync"]);
    let nodes = [lab.node("s1"), lab.node("s2"), lab.node("s3")];
    nodes[0].stop();
    // Serf may have merged all of that into one event. An unknown tag is an event that changes no line.
    let mut round = 0;
    eventually("five are killed", 60, || {
        round += 1;
        let _ = nodes[1].try_exec(&["serf", "tags", "-set", &format!("round={round}")], "");
        let killed = balancer.try_exec(&["cat", "/tmp/killed"], "").stdout.iter().filter(|byte| **byte == b'\n').count();
        if killed >= 5 { Ok(()) } else { Err(format!("{killed} in {round} rounds")) }
    });
    let _ = balancer.exec(&["s6-svc", "-u", "/var/run/s6/services/sync"]);
    balancer.settles_on(&[&nodes[1], &nodes[2]], 10);
    let hidden = balancer.exec(&["sh", "-c", "ls -A /nodes | grep '^[.]'"]);
    assert_eq!(hidden, ".registry\n", "a temporary file stayed beside the mark");
}

/// A request without a body in its answer, on this connection.
fn head(connection: &mut TcpStream) -> String {
    connection.write_all(b"HEAD / HTTP/1.1\r\nHost: lb\r\n\r\n").unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while !answer.ends_with(b"\r\n\r\n") {
        let length = connection.read(&mut piece).unwrap();
        assert!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(answer).unwrap().to_lowercase()
}

/// As by a name that has the addresses of both: clients try the second one when the first one refuses a connection.
#[test]
fn a_balancer_that_stops_says_connection_close_and_its_clients_lose_nothing_at_another() {
    let (lab, first, nodes) = Lab::with_nodes(Look::Hardened, 2);
    let second = lab.balancer("other");
    second.settles_on(&[&nodes[0], &nodes[1]], 15);
    let mut idle = TcpStream::connect((first.address(), 80)).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let answer = head(&mut idle);
    assert!(answer.starts_with("http/1.1 200 ") && !answer.contains("connection: close"), "{answer}");

    let both = format!("lb:80:{},{}", first.address(), second.address());
    let each = "%{stderr}%{http_code} %{remote_ip} %{errormsg}\n"; // to standard error, which is not buffered
    let options = ["-s", "--max-time", "20", "-o", "/dev/null", "-w", each, "--resolve", &both];
    let client = Background::start(Command::new("curl").args(options).arg("http://lb/?[1-1000000]"));
    let answered_by = |address: String| {
        eventually(&format!("{address} has answered 200 requests"), 20, || {
            let said = client.said();
            let count = said.matches(&format!("200 {address} ")).count();
            if count >= 200 { Ok(()) } else { Err(format!("{count}, the last: {:?}", said.lines().last())) }
        });
    };
    answered_by(first.address());
    let after = second.address();
    std::thread::scope(|scope| {
        let _ = scope.spawn(|| first.stop());
        answered_by(after);
        let answer = head(&mut idle);
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    });
    let said = client.said();
    let lost: Vec<&str> = said.lines().filter(|line| !line.starts_with("200 ")).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), said.lines().count());
}
