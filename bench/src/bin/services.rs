//! `bench/services`: what many services cost, beside one with as many nodes.
//!
//! Two HAProxy of the image, with the same number of nodes: in one service, and in many, each with a host of its own. They take
//! turns at: a node that joins (`member-join`), a sync that finds nothing to do and one with an edited template, which is a
//! verified reload (`sync-nodes`), and requests for the last of the services, whose route HAProxy looks at last. All nodes are
//! one listener of the same HAProxy, at an address each, which answers at once.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::{machine, milliseconds, percentile};
use clap::Parser;
use e2e::eventually;
use e2e::live::{Live, State};
use serde_json::json;

/// Measure what many services cost, beside one with as many nodes
#[derive(Parser)]
#[command(name = "bench/services")]
struct Options {
    /// Number of turns of each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Number of services
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=1000))]
    services: u16,
    /// Number of nodes of each service
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: u16,
    /// Length of a turn of requests, in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    milliseconds: u64,
}

/// Number of clients that send requests.
const CLIENTS: usize = 8;
/// Where all nodes answer.
const HEALTH: &str = "\nlisten health\n    bind *:3000\n    option dontlog-normal\n    http-request return\n";

fn main() -> Result<()> {
    let options = Options::parse();
    let nodes = options.services * options.nodes;
    let mut sides = [Side::start(1, nodes)?, Side::start(options.services, nodes)?];
    for round in 0..=options.rounds {
        for side in &mut sides {
            side.take(round, Duration::from_millis(options.milliseconds))?;
        }
    }
    println!("{}; {nodes} nodes; median and 95th percentile of {} turns", machine(), options.rounds);
    println!();
    println!("| services | member-join, ms | sync without a change, ms | sync with a reload, ms | requests/s |");
    println!("|---|---|---|---|---|");
    sides.iter().for_each(|side| println!("{}", side.row()));
    Ok(())
}

/// A HAProxy with its nodes, and what was measured.
struct Side {
    live: Live,
    services: u16,
    nodes: u16,
    /// The member list, as Serf prints it.
    members: String,
    join: Vec<Duration>,
    sync: Vec<Duration>,
    reload: Vec<Duration>,
    /// Requests per second.
    requests: Vec<f64>,
}

/// Role and host of a service; the only one is the default.
fn service(number: u16, services: u16) -> (String, String) {
    if services == 1 {
        return ("backend".to_owned(), "any.example".to_owned());
    }
    (format!("app{number:03}"), format!("app{number:03}.example"))
}

/// HAProxy warns of servers of one service that have the same address, because their cookies are equal.
fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

impl Side {
    fn start(services: u16, nodes: u16) -> Result<Self> {
        let live = Live::start(&State { nodes: &[], revision: "start" });
        let member = |number: u16| {
            let (role, host) = service(number % services, services);
            let tags = if services == 1 { json!({ "role": role }) } else { json!({ "role": role, "host": host }) };
            json!({ "name": format!("s{number:04}"), "addr": format!("{}:7946", address(number)), "tags": tags, "status": "alive" })
        };
        let members: Vec<_> = (0..nodes).map(member).collect();
        let members = json!({ "members": members }).to_string();
        let lists = || (Vec::new(), Vec::new(), Vec::new());
        let (join, sync, reload) = lists();
        let side = Self { live, services, nodes, members, join, sync, reload, requests: Vec::new() };
        side.edit("start");
        side.sync()?;
        eventually("the last service answers", 30, || match ask(&side.socket(), &side.host(), &mut [0; 4096]) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
            Ok(answer) => Err(answer),
            Err(error) => Err(error.to_string()),
        });
        Ok(side)
    }

    /// One turn. The first one is not counted: nothing is in memory yet.
    fn take(&mut self, round: u16, length: Duration) -> Result<()> {
        let (role, host) = service(self.services - 1, self.services);
        let tags = if self.services == 1 { String::new() } else { format!("host={host}") };
        let event = format!("new\t{}\t{role}\t{tags}\n", address(self.nodes));
        let join = self.timed("member-join", &[], &event)?;
        let _ = self.timed("member-leave", &[], &event)?;
        let _ = self.sync()?;
        let sync = self.sync()?;
        self.edit(&format!("round{round}"));
        let reload = self.sync()?;
        let requests = self.requests(length)?;
        if round > 0 {
            self.join.push(join);
            self.sync.push(sync);
            self.reload.push(reload);
            self.requests.push(requests);
        }
        Ok(())
    }

    fn row(&self) -> String {
        let both =
            |times: &[Duration]| format!("{} / {}", milliseconds(percentile(times, 0.5)), milliseconds(percentile(times, 0.95)));
        let (join, sync, reload) = (both(&self.join), both(&self.sync), both(&self.reload));
        format!("| {} | {join} | {sync} | {reload} | {:.0} |", self.services, percentile(&self.requests, 0.5))
    }

    /// Changes the template, so that the next sync is a reload.
    fn edit(&self, revision: &str) {
        self.live.set_template(revision);
        let template = std::fs::read_to_string(self.live.world.template()).expect("a template");
        self.live.world.set_template(&(template + HEALTH));
    }

    fn sync(&self) -> Result<Duration> {
        self.timed("sync-nodes", &["--from", "-"], &self.members)
    }

    /// The time that a tool takes from start to end.
    fn timed(&self, tool: &str, arguments: &[&str], input: &str) -> Result<Duration> {
        let mut command = self.live.command(tool);
        command.args(arguments).env("BACKEND_ROLE", "*").write_stdin(input);
        let start = Instant::now();
        let output = command.output()?;
        let time = start.elapsed();
        ensure!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(time)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.live.world.path("run/http.sock")
    }

    fn host(&self) -> String {
        service(self.services - 1, self.services).1
    }

    /// Requests per second, by clients that keep their connections.
    fn requests(&self, length: Duration) -> Result<f64> {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let client = || -> Result<()> {
            let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.host());
            let (mut stream, mut buffer) = (UnixStream::connect(self.socket())?, [0; 4096]);
            while !stop.load(Ordering::Relaxed) {
                let answer = exchange(&mut stream, &request, &mut buffer)?;
                ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let start = Instant::now();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            thread::sleep(length);
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().try_for_each(|client| client.join().expect("a client ends"))
        })?;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        Ok(count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
    }
}

/// One request on a connection of its own.
fn ask(socket: &Path, host: &str, buffer: &mut [u8]) -> Result<String> {
    exchange(&mut UnixStream::connect(socket)?, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), buffer)
}

/// Sends a request and reads the answer, which has no body.
fn exchange(stream: &mut UnixStream, request: &str, buffer: &mut [u8]) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut length = 0;
    loop {
        let more = stream.read(buffer.get_mut(length..).context("a long answer")?)?;
        ensure!(more > 0, "the connection was closed");
        length += more;
        let answer = buffer.get(..length).unwrap_or_default();
        if answer.ends_with(b"\r\n\r\n") || !answer.starts_with(b"HTTP/1.1 200 ") {
            return Ok(String::from_utf8_lossy(answer).into_owned());
        }
    }
}
