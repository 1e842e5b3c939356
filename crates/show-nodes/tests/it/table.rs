//! The table of all nodes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::assert::Assert;
use lb_fixture::{Agent, Application, World, eventually, loopback};
use predicates::prelude::*;

use crate::balancer::{Balancer, application_of, line};

fn stdout(run: &Assert) -> String {
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

/// The words of the row that begins with `name`, without the sign before it.
fn row(text: &str, name: &str) -> Vec<String> {
    let words = |line: &str| line.trim_start_matches("! ").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(words).find(|words| words.first().is_some_and(|first| first == name)).unwrap_or_default()
}

/// Answers every request but those for `/slow`, which it hands over as they are.
fn slow_application(address: SocketAddr) -> Receiver<TcpStream> {
    let listener = TcpListener::bind(address).unwrap();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut begin = [0; 1024];
            let length = stream.read(&mut begin).unwrap_or(0);
            if begin[..length].starts_with(b"GET /slow ") {
                sender.send(stream).unwrap();
            } else {
                // A health check may have gone.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        }
    });
    receiver
}

#[test]
fn four_states_that_agree_are_one_row_a_node_and_exit_0() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let s2 = Agent::start("s2", &["role=backend", "weight=50", "port=3999"]);
    let application = Application::start_at(application_of(&s1));
    application.become_ready();
    let (first, second) = (line("s1", s1.address()), line("s2", s2.address()) + " port=3999 weight=50");
    let balancer = Balancer::start(&[(&first, &s1), (&second, &s2)]);
    let mut text = String::new();
    eventually("HAProxy has checked its servers", || {
        text = stdout(&balancer.show().arg("--wide").assert().success().stderr(""));
        text.contains("L7OK") && text.contains("L4CON")
    });
    let head =
        ["NAME", "CONTAINER", "ADDRESS", "PORT", "WEIGHT", "MEMBER", "REGISTRY", "FILE", "HAPROXY", "SESSIONS", "LAST", "CHECK"];
    assert_eq!(row(&text, "NAME"), head);
    let address = s1.address().to_string();
    assert_eq!(row(&text, "s1")[..11], ["s1", "-", &address, "3000", "100", "alive", "yes", "yes", "UP", "0", "L7OK/200"]);
    let address = s2.address().to_string();
    assert_eq!(row(&text, "s2")[..10], ["s2", "-", &address, "3999", "50", "alive", "yes", "yes", "DOWN", "0"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
    assert!(!balancer.world.log().iter().any(|line| line.starts_with("show-nodes")), "it has logged");
}

#[test]
fn json_says_the_same() {
    let s1 = Agent::start("s1", &["role=backend", "drain=yes"]);
    let balancer = Balancer::start(&[(&(line("s1", s1.address()) + " drain=yes"), &s1)]);
    let text = stdout(&balancer.show().arg("--json").assert().success());
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let node = &shown["nodes"][0];
    assert_eq!((&node["name"], &node["weight"], &node["drains"]), (&"s1".into(), &"0".into(), &true.into()));
    assert_eq!((&node["in_registry"], &node["in_file"], &node["member"]), (&true.into(), &true.into(), &"alive".into()));
    assert_eq!((&node["servers"][0]["server"], &node["servers"][0]["sessions"]), (&"nodes/s1".into(), &0.into()));
    assert_eq!((&shown["drift"], &shown["unreadable"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(shown["generation"], 1);
}

#[test]
fn a_node_that_has_left_and_finishes_what_it_has_is_no_drift() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let slow = slow_application(application_of(&s1));
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let mut client = UnixStream::connect(balancer.world.path("run/port-80.sock")).unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let _request = slow.recv_timeout(Duration::from_secs(30)).expect("the request comes");
    s1.leave();
    balancer.knows(&["s1", "left"]);
    fs::remove_file(balancer.world.nodes_dir().join("s1")).unwrap();
    balancer.publish("agent-log");
    let text = stdout(&balancer.show().arg("--wide").assert().success());
    let words = row(&text, "s1");
    assert_eq!(words[5..10], ["left", "-", "-", "MAINT", "1"], "{text}");
    assert!(text.ends_with("\ns1: has left, 1 session to finish\n"), "{text}");
}

#[test]
fn a_state_that_cannot_be_read_is_told_and_the_others_are_shown() {
    let world = World::new();
    world.register("s1 172.18.0.2");
    let mut command = world.command(env!("CARGO_BIN_EXE_show-nodes"));
    let start = Instant::now();
    let run = command.arg("--wide").env("SERF_RPC_ADDR", format!("{}:7373", loopback())).assert().code(1).stderr("");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let text = stdout(&run);
    assert_eq!(row(&text, "s1"), ["s1", "-", "172.18.0.2", "3000", "100", "?", "yes", "?", "?", "?", "?"]);
    for reason in
        ["cannot read members: serf agent at 127.", "cannot read file: read ", "cannot read HAProxy: HAProxy is not running"]
    {
        assert!(text.contains(reason), "{text}");
    }
    assert!(!text.contains("run sync-nodes"), "what is not known is no drift: {text}");
    fs::remove_dir_all(world.nodes_dir()).unwrap();
    world.command(env!("CARGO_BIN_EXE_show-nodes")).assert().code(1).stdout(predicate::str::contains("cannot read registry: "));
}

#[test]
fn on_a_terminal_it_has_colours_and_fits() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let on_terminal = |columns: u32, variable: &str| {
        let mut command = balancer.world.command("script");
        let inner = format!("stty rows 24 cols {columns}; env TERM=xterm {variable} {}", env!("CARGO_BIN_EXE_show-nodes"));
        let run = command.args(["-qec", &inner, "/dev/null"]).env("SERF_RPC_ADDR", balancer.agent.rpc()).assert().success();
        stdout(&run).replace('\r', "")
    };
    let wide = on_terminal(200, "");
    assert!(wide.contains("\x1b[32malive\x1b[0m") && wide.contains("LAST CHECK"), "{wide:?}");
    let narrow = on_terminal(60, "NO_COLOR=1");
    assert!(!narrow.contains('\x1b') && narrow.contains("HAPROXY") && !narrow.contains("PORT"), "{narrow:?}");
    assert!(narrow.lines().all(|line| line.len() <= 60), "{narrow}");
    // Docker's has no size in its first moments.
    let unknown = on_terminal(0, "NO_COLOR=1");
    assert!(unknown.contains("HAPROXY") && unknown.lines().all(|line| line.len() <= 80), "{unknown}");
    // An empty one is as good as none (no-color.org).
    assert!(on_terminal(200, "NO_COLOR=").contains('\x1b'));
}

#[test]
fn what_is_no_terminal_gets_80_columns_and_failed_members_one_line() {
    let (s1, s2) = (Agent::start("s1", &["role=backend"]), Agent::start("s2", &["role=backend"]));
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    s2.join(&balancer.agent);
    balancer.knows(&["s2", "alive"]);
    let _ = s2.kill();
    balancer.knows(&["s2", "failed"]);
    let text = stdout(&balancer.show().assert().success());
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let columns = row(&text, "NAME");
    assert!(columns.ends_with(&["MEMBER", "REGISTRY", "FILE", "HAPROXY", "SESSIONS"].map(str::to_owned)), "{text}");
    assert!(text.ends_with("\n\n1 failed member: s2 (--all shows them)\n") && row(&text, "s2").is_empty(), "{text}");
    let text = stdout(&balancer.show().arg("--all").assert().success());
    assert!(row(&text, "s2").contains(&"failed".to_owned()) && !text.contains("failed member"), "{text}");
}

#[test]
fn watched_it_looks_again_and_again() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let mut watch = balancer.show_on(&["--watch", "1"]);
    eventually("it was shown twice", || watch.said().matches("NAME").count() >= 2);
    s1.tag("weight=7");
    eventually("the difference is seen", || watch.said().contains("the registry has 's1 "));
    assert!(watch.is_running());
}

#[test]
fn wrong_options_are_exit_2_and_help_is_complete() {
    let show = || World::new().command(env!("CARGO_BIN_EXE_show-nodes"));
    for wrong in [&["--watch", "0"][..], &["--metrics", "s1"], &["--output", "x"], &["--metrics", "--json"], &["s1", "s2"]] {
        show().args(wrong).assert().code(2).stdout("");
    }
    let mut help = show().arg("--help").assert().success().stderr("");
    for text in ["Examples:", "Exit codes:", "  0   ", "  1   ", "  2   ", "[env: NODES_DIR=", "[env: HAPROXY_MASTER_SOCKET="] {
        help = help.stdout(predicate::str::contains(text));
    }
}
