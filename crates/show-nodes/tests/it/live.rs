//! The live page: what is served, to how many, and when the states are looked at.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lb_fixture::scripted::{listed, listed_node, member_list, raw, scripted_agent};
use lb_fixture::{Agent, Background, World, eventually, loopback};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::balancer::{Balancer, line, live_at};

/// The number of viewers that the documentation promises.
const MAX_VIEWERS: usize = 64;
const LIMIT: Duration = Duration::from_secs(30);

/// The page of a balancer, and where it is.
fn serve(balancer: &Balancer) -> (Background, SocketAddr) {
    let address = live_at(&balancer.agent);
    let mut live = balancer.show_on(&["--serve", &address.to_string()]);
    is_served(&mut live, address);
    (live, address)
}

fn is_served(live: &mut Background, address: SocketAddr) {
    eventually("the page is served", || {
        assert!(live.is_running(), "{}", live.said());
        TcpStream::connect(address).is_ok()
    });
}

/// The page beside an agent that only lists these members.
fn serve_beside(members: &[Vec<u8>]) -> (World, Background, SocketAddr) {
    let world = World::self_contained();
    let address = SocketAddr::from((loopback(), 1937));
    let mut command = world.process(env!("CARGO_BIN_EXE_show-nodes"));
    command.env("SERF_RPC_ADDR", scripted_agent(member_list(members))).args(["--serve", &address.to_string()]);
    let mut live = Background::start(&mut command);
    is_served(&mut live, address);
    (world, live, address)
}

/// Head and body of the answer to these bytes.
fn answer(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    (head.to_owned(), body.to_owned())
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    answer(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

/// Somebody who watches.
struct Viewer<S>(BufReader<S>);

impl<S: Read + Write> Viewer<S> {
    /// Begins to watch, and returns the status of the answer.
    fn try_begin(mut stream: S) -> (String, Self) {
        stream.write_all(b"GET /live/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut viewer = Self(BufReader::new(stream));
        let status = viewer.line().expect("an answer");
        (status.trim_end().to_owned(), viewer)
    }

    fn begin(stream: S) -> Self {
        let (status, viewer) = Self::try_begin(stream);
        assert_eq!(status, "HTTP/1.1 200 OK");
        viewer
    }

    /// The next line of the answer; `None` at its end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        // HAProxy resets the connection if the other side does.
        self.0.read_line(&mut line).ok().filter(|length| *length > 0).map(|_| line)
    }

    /// The next event of this kind; `None` if the stream ends before.
    fn try_next(&mut self, kind: &str) -> Option<Value> {
        loop {
            // Through HAProxy, the stream is cut into chunks, between whose lines are others.
            let line = self.line()?;
            if line.trim_end() == format!("event: {kind}") {
                let data = self.line()?;
                return Some(serde_json::from_str(data.trim_end().strip_prefix("data: ").expect("data")).unwrap());
            }
        }
    }

    fn next(&mut self, kind: &str) -> Value {
        self.try_next(kind).expect("the stream goes on")
    }

    /// Watches until a look is as wanted.
    fn sees(&mut self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let mut look = Value::Null;
        eventually(what, || {
            look = self.next("state");
            is_so(&look)
        });
        look
    }
}

fn watch(address: SocketAddr) -> Viewer<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    Viewer::begin(stream)
}

/// The node's row.
fn row<'a>(look: &'a Value, name: &str) -> Option<&'a Value> {
    look["nodes"].as_array().unwrap().iter().find(|row| row["name"] == name)
}

#[test]
fn the_page_is_one_small_file_that_runs_no_other_script() {
    let (_world, _live, address) = serve_beside(&[]);
    let nonce = || {
        let (head, body) = get(address, "/live");
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"),
            "{head}"
        );
        assert!(body.len() <= 40_000, "{} bytes", body.len());
        let policy = head.lines().find(|line| line.starts_with("Content-Security-Policy: ")).unwrap();
        assert!(policy.contains("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        let (_, nonce) = policy.split_once("script-src 'nonce-").unwrap();
        let nonce = nonce.split('\'').next().unwrap().to_owned();
        assert_eq!(body.matches("<script").count(), 1);
        assert!(body.contains(&format!("<script nonce=\"{nonce}\">")) && body.contains(&format!("<style nonce=\"{nonce}\">")));
        // The only address is the name of a format.
        assert_eq!(body.matches("://").count(), body.matches("http://www.w3.org/2000/svg").count());
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!body.contains(way), "{way}");
        }
        nonce
    };
    assert_ne!(nonce(), nonce());
}

#[test]
fn other_requests_are_refused() {
    let (_world, mut live, address) = serve_beside(&[]);
    let long = format!("{:x<8192}", "GET /live HTTP/1.1\r\nX: ");
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /live/../etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /live HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("no request\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let (head, _) = answer(address, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:.40}: {head}");
    }
    assert!(live.is_running());
}

#[test]
fn a_viewer_sees_a_node_come_through_the_four_states_and_go() {
    let balancer = Balancer::start(&[]);
    let (_live, address) = serve(&balancer);
    let mut viewer = watch(address);
    assert_eq!(viewer.next("log")[0]["publish"]["generation"], 1);
    assert_eq!(viewer.next("state")["nodes"], serde_json::json!([]));

    let s1 = Agent::start("s1", &["role=backend"]);
    s1.join(&balancer.agent);
    let look = viewer.sees("it is a member", |look| row(look, "s1").is_some());
    let state = |look: &Value, key: &str| row(look, "s1").unwrap()[key].clone();
    assert_eq!((state(&look, "member"), state(&look, "in_registry")), ("alive".into(), false.into()));
    let look = viewer.sees("that lasts", |look| look["drift"] != serde_json::json!([]));
    assert_eq!((&look["drift"][0]["state"], &look["drift"][0]["remedy"]), (&"registry".into(), &"run sync-nodes".into()));

    balancer.world.register(&line("s1", s1.address()));
    let look = viewer.sees("it is registered", |look| state(look, "in_registry") == true);
    assert_eq!(state(&look, "in_file"), false);
    balancer.publish("agent-log");
    let log = viewer.next("log");
    assert_eq!((&log[0]["publish"]["added"], &log[0]["publish"]["cause"]), (&serde_json::json!(["s1"]), &"agent-log".into()));
    assert!(log[0]["publish"]["total_ms"].as_f64().unwrap() > 0.0, "{log}");
    let look = viewer.sees("HAProxy has it", |look| state(look, "servers") != serde_json::json!([]));
    assert_eq!((state(&look, "in_file"), &look["groups"][0]["name"]), (true.into(), &"nodes".into()));
    let (head, text) = get(address, "/live/node?name=s1");
    assert!(head.contains("Content-Type: text/plain") && head.contains("nosniff"), "{head}");
    assert!(text.starts_with("node      s1\n") && text.contains("added=s1"), "{text}");

    s1.leave();
    balancer.knows(&["s1", "left"]);
    fs::remove_file(balancer.world.nodes_dir().join("s1")).unwrap();
    balancer.publish("agent-log");
    let look = viewer.sees("it is gone", |look| row(look, "s1").is_none());
    assert_eq!(look["gone"], serde_json::json!([{ "name": "s1", "why": "left" }]));
}

#[test]
fn nobody_watches_nothing_is_looked_at() {
    let balancer = Balancer::start(&[]);
    let (live, address) = serve(&balancer);
    let read = || {
        let counters = fs::read_to_string(format!("/proc/{}/io", live.pid())).unwrap();
        counters.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).unwrap()
    };
    // By HAProxy's clock.
    let three_seconds_pass = || {
        let uptime = || {
            let info = balancer.command("show info");
            info.lines().find_map(|line| line.strip_prefix("Uptime_sec: ")?.parse::<u64>().ok()).unwrap()
        };
        let begin = uptime();
        eventually("three seconds pass", || uptime() >= begin + 3);
    };
    let is_idle = || {
        let before = read();
        three_seconds_pass();
        read() == before
    };
    // The connection of the last one who was asked whether the page is served may still be open.
    eventually("it is idle", is_idle);
    let mut viewer = watch(address);
    let _ = viewer.next("state");
    assert!(!is_idle());
    drop(viewer);
    eventually("it is idle again", is_idle);
}

#[test]
fn one_look_is_for_all_viewers_and_the_65th_is_refused_until_one_leaves() {
    let balancer = Balancer::start(&[]);
    let (mut live, address) = serve(&balancer);
    let mut viewers: Vec<_> = (0..MAX_VIEWERS).map(|_| watch(address)).collect();
    let connections = || {
        let info = balancer.command("show info");
        info.lines().find_map(|line| line.strip_prefix("CumConns: ")?.parse::<u64>().ok()).unwrap()
    };
    let _ = viewers[0].next("state");
    let before = connections();
    for _ in 0..3 {
        let looks: Vec<Value> = viewers.iter_mut().map(|viewer| viewer.next("state")).collect();
        assert!(looks.iter().all(|look| look["generation"] == 1));
    }
    // Each look asks HAProxy a few times.
    let asked = connections() - before;
    assert!(asked < 40, "{asked} connections for some 3 looks");

    let again = || Viewer::try_begin(TcpStream::connect(address).unwrap()).0;
    assert_eq!(again(), "HTTP/1.1 503 Service Unavailable");
    assert!(get(address, "/live").0.starts_with("HTTP/1.1 200 OK\r\n"));
    drop(viewers.pop());
    eventually("another one may watch", || again() == "HTTP/1.1 200 OK");
    assert!(live.is_running());
}

#[test]
fn a_viewer_that_takes_nothing_is_dropped_and_the_others_are_not_held_up() {
    let nodes: Vec<_> = (0..=250).map(|last| listed_node(&format!("{last:0>120}"), [10, 9, 8, last])).collect();
    let (_world, _live, address) = serve_beside(&nodes);
    let slow = TcpStream::connect(address).unwrap();
    setsockopt(&slow, sockopt::RcvBuf, &4096).unwrap();
    let _slow = Viewer::begin(slow);
    let mut others: Vec<_> = (1..MAX_VIEWERS).map(|_| watch(address)).collect();
    let again = || Viewer::try_begin(TcpStream::connect(address).unwrap()).0;
    assert_eq!(again(), "HTTP/1.1 503 Service Unavailable");
    eventually("the slow one's place is free", || {
        for other in &mut others {
            assert_eq!(other.next("state")["total"], 251);
        }
        again() == "HTTP/1.1 200 OK"
    });
}

#[test]
fn of_a_thousand_nodes_the_groups_and_some_that_need_attention_are_sent() {
    let nodes: Vec<_> = (0..1000_u16)
        .map(|number| listed_node(&format!("s{number}"), [10, 9, number.to_be_bytes()[0], number.to_be_bytes()[1]]))
        .collect();
    let (_world, _live, address) = serve_beside(&nodes);
    let look = watch(address).next("state");
    assert_eq!((&look["total"], look["nodes"].as_array().unwrap().len()), (&1000.into(), 100));
}

#[test]
fn hostile_text_stays_in_its_event() {
    let name = "\n\ndata: x\n<script>alert(1)</script>\u{202e}";
    let role: &[(&[u8], &[u8])] = &[(&raw(b"role"), &raw(b"backend"))];
    let (world, _live, address) = serve_beside(&[listed(&raw(name.as_bytes()), &raw(&[10, 9, 8, 7]), role)]);
    fs::write(world.log_file(), "2026-01-01T00:00:01Z x: a\rb\u{1b}\nno line of the log\n").unwrap();
    let mut viewer = watch(address);
    let log = viewer.next("log");
    assert_eq!((log.as_array().unwrap().len(), &log[0]["message"]), (1, &"a?b?".into()));
    let look = viewer.next("state");
    assert!(row(&look, name).unwrap()["refused"].as_str().unwrap().starts_with("name '"), "{look}");
    let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut text = String::new();
    eventually("the reason has lasted", || {
        let (head, body) = get(address, &format!("/live/node?name={encoded}"));
        assert!(head.contains("Content-Type: text/plain; charset=utf-8"), "{head}");
        text = body;
        text.contains("\ndrift     the member is rejected: name '")
    });
    assert!(text.starts_with("node      '\\n\\ndata: x\\n<script>alert(1)</script>\\u{202e}'\n"), "{text}");
    assert!(get(address, "/live/node?name=%FF").0.starts_with("HTTP/1.1 404 "));
}

#[test]
fn without_the_agent_and_without_haproxy_the_rest_is_shown() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let mut balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let (_live, address) = serve(&balancer);
    let mut viewer = watch(address);
    let unreadable = |look: &Value| -> Vec<String> {
        look["unreadable"].as_array().unwrap().iter().map(|state| state["state"].as_str().unwrap().to_owned()).collect()
    };
    let _ = viewer.sees("all is there", |look| row(look, "s1").is_some() && unreadable(look).is_empty());
    balancer.kill_haproxy();
    let look = viewer.sees("HAProxy is away", |look| unreadable(look) == ["HAProxy"]);
    assert_eq!(row(&look, "s1").unwrap()["member"], "alive");
    balancer.agent.freeze();
    let look = viewer.sees("the agent is away, too", |look| unreadable(look) == ["members", "HAProxy"]);
    assert_eq!(row(&look, "s1").unwrap()["in_registry"], true);
}

#[test]
fn haproxy_passes_it_on_and_a_reload_brings_the_viewers_to_the_new_worker() {
    let balancer = Balancer::start(&[]);
    let socket = balancer.world.path("run/port-1936.sock");
    let connect = || {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    let (status, _) = Viewer::try_begin(connect());
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    let (_live, _) = serve(&balancer);
    let mut viewer = Viewer::begin(connect());
    let _ = viewer.next("state");
    balancer.reload_haproxy();
    eventually("the old worker's stream ends", || viewer.try_next("state").is_none());
    let _ = Viewer::begin(connect()).next("state");
    // All else is still the statistics page.
    let mut stream = connect();
    stream.write_all(b"GET /livelihood HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("Statistics Report for HAProxy"), "{text}");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let (world, _live, address) = serve_beside(&[]);
    let mut command = world.command(env!("CARGO_BIN_EXE_show-nodes"));
    let line = format!("show-nodes: listen at {address}: Address already in use (os error 98)\n");
    command.args(["--serve", &address.to_string()]).assert().code(1).stderr(line);
    for wrong in [&["--serve", "1937"][..], &["--serve", "127.0.0.1:1937", "--json"], &["--serve", "127.0.0.1:1937", "s1"]] {
        world.command(env!("CARGO_BIN_EXE_show-nodes")).args(wrong).assert().code(2);
    }
}
