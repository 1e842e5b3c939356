//! `bench/latency`: how soon a starting node gets its first request, and a stopping one its last.
//!
//! Runs a real lab with two permanent nodes and clients that send requests continuously. Another node is started and stopped
//! repeatedly, and these times are taken from the same clock:
//!
//! - Join: from the application's own first answer (it is asked every millisecond at the container's address) to the first
//!   answer that a client gets from it through the balancer.
//! - Stop: from the line in which the node's Serf agent announces that it leaves (by Docker's timestamp) to the last answer
//!   that a client gets from that node. Responses are counted rather than requests, so the times err on the long side.
//!
//! In between, the line of `sync-nodes` in the balancer's log shows how much of the time went to Serf and how much to HAProxy.
//! Whether the targets are met is printed but does not affect the exit code, because other work on the machine may be the cause.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use bench::{machine, milliseconds, percentile};
use clap::Parser;
use e2e::docker::{text, try_docker};
use e2e::http::{client, get_by};
use e2e::{Balancer, Container, Lab, Look};

/// Measure how soon a starting node gets its first request, and a stopping one its last.
#[derive(Debug, Parser)]
#[command(name = "bench/latency")]
struct Options {
    /// Number of nodes to start and stop, one after another
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: u32,
    /// Number of clients that send requests through the balancer
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

/// Pause of a client after a response: together they send a request every millisecond or so, and leave the CPU to others.
const PAUSE: Duration = Duration::from_millis(2);
/// Time limit for every wait.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A node is stopped this long after its first request, when Serf has spread all news about its start.
const SETTLED: Duration = Duration::from_millis(1200);
/// What the agent logs when it begins to leave.
const LEAVES: &str = "graceful leave";

fn main() -> Result<()> {
    let options = Options::parse();
    println!("latency: {} nodes, one after the other; {} clients; {}", options.nodes, options.clients, machine());
    let lab = Lab::new(Look::Hardened);
    // Logged requests would only hide the few lines of interest.
    let balancer = lab.balancer_with("ha", &["-e", "HTTP_LOG=off"]);
    let staying = [lab.node("s1"), lab.node("s2")];
    balancer.settles_on(&staying.iter().collect::<Vec<_>>(), 30);

    let url = format!("http://{}/", balancer.address());
    let clients = Clients::default();
    let mut table = Table::default();
    thread::scope(|scope| -> Result<()> {
        let _end = End(&clients);
        for _ in 0..options.clients {
            scope.spawn(|| clients.ask(&url));
        }
        (1..=options.nodes).try_for_each(|number| one_node(&lab, &balancer, &clients, number, &mut table))
    })?;
    table.print();
    println!(
        "{} requests, {} not answered with 200",
        clients.sent.load(Ordering::Relaxed),
        clients.failed.load(Ordering::Relaxed)
    );
    Ok(())
}

/// Starts a node, waits until it gets requests, stops it.
fn one_node(lab: &Lab, balancer: &Balancer, clients: &Clients, number: u32, table: &mut Table) -> Result<()> {
    let name = format!("j{number}");
    thread::scope(|scope| {
        let starting = scope.spawn(|| lab.node(&name));
        let joined = join(&format!("{}-{name}", lab.network()), clients);
        // Only now: the node may answer before `docker run` returns.
        let node = starting.join().map_err(|_| anyhow::anyhow!("{name} does not start"))?;
        let (member, answered, asked) = joined?;
        table.join.push(since(asked, answered));
        if let Some(known) = logged(balancer, &format!(": registered {member} "), answered - TIMEOUT) {
            table.join_known.push(since(known, answered));
        }
        thread::sleep(SETTLED);
        stop(&node, &member, balancer, clients, table)
    })
}

/// Waits for the first answers of a container that is being started. Returns its member name and the times of the
/// application's own first answer and of the first one through the balancer.
fn join(container: &str, clients: &Clients) -> Result<(String, SystemTime, SystemTime)> {
    let (member, address) = within(container, "has an address", || {
        let format = "{{.State.Running}} {{.Config.Hostname}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let output = text(&try_docker(&["inspect", "--format", format, container], "").stdout);
        let (member, address) = output.trim().strip_prefix("true ")?.split_once(' ')?;
        Some((member.to_owned(), SocketAddr::new(address.parse().ok()?, 3000)))
    })?;
    let mut looks = 0;
    let answered = within(container, "answers on its own port", || {
        looks += 1;
        answers(address).then(SystemTime::now)
    })?;
    if looks == 1 {
        bail!("{container} answered at the first look already: when it began to is not known");
    }
    let asked = within(container, "gets requests", || clients.seen(&member).map(|seen| seen.first))?;
    Ok((member, answered, asked))
}

/// Stops a node and records when each step happened.
fn stop(node: &Container, member: &str, balancer: &Balancer, clients: &Clients, table: &mut Table) -> Result<()> {
    let began = SystemTime::now();
    // Takes longer than any late request: the application itself waits two seconds.
    node.stop();
    let left = logged(node, LEAVES, began).with_context(|| format!("{}: the agent does not say that it leaves", node.name))?;
    let last = clients.seen(member).with_context(|| format!("{}: no request", node.name))?.last;
    table.stop.push(since(last, left));
    table.stop_heard.push(since(left, began));
    if let Some(gone) = logged(balancer, &format!(": unregistered {member}"), began) {
        table.stop_known.push(since(gone, left));
    }
    Ok(())
}

/// Asks the application for its health, once.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(50))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// When a container first logged a line with both texts, not before `after`; by this machine's clock, like all times here.
fn logged(container: &Container, message: &str, after: SystemTime) -> Option<SystemTime> {
    let since = humantime::format_rfc3339_nanos(after).to_string();
    let output = try_docker(&["logs", "--timestamps", "--since", &since, &container.name], "");
    let both = text(&output.stdout) + &text(&output.stderr);
    let times = both.lines().filter(|line| line.contains(message));
    times.filter_map(|line| humantime::parse_rfc3339(line.split_once(' ')?.0).ok()).min()
}

/// Polls every millisecond until there is a value.
fn within<T>(container: &str, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = SystemTime::now() + TIMEOUT;
    while SystemTime::now() < deadline {
        if let Some(value) = look() {
            return Ok(value);
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("not within {} s: {container} {what}", TIMEOUT.as_secs())
}

/// Time between the two, or `None` if they are out of order, as with late timestamps.
fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or(Duration::ZERO)
}

/// What the clients have seen.
#[derive(Default)]
struct Clients {
    ended: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    nodes: Mutex<HashMap<String, Seen>>,
}

/// Stops the clients when dropped, even by a panic, because the threads are joined.
struct End<'a>(&'a Clients);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// The answers of one node.
#[derive(Clone, Copy)]
struct Seen {
    first: SystemTime,
    last: SystemTime,
}

impl Clients {
    /// Sends requests on one connection until told to stop.
    fn ask(&self, url: &str) {
        let agent = client();
        while !self.ended.load(Ordering::Relaxed) {
            let host = get_by(&agent, url, None).ok().filter(|answer| answer.status == 200).and_then(|answer| answer.host().ok());
            self.sent.fetch_add(1, Ordering::Relaxed);
            match host {
                Some(host) => {
                    let now = SystemTime::now();
                    let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
                    nodes.entry(host).or_insert(Seen { first: now, last: now }).last = now;
                }
                None => drop(self.failed.fetch_add(1, Ordering::Relaxed)),
            }
            thread::sleep(PAUSE);
        }
    }

    fn seen(&self, member: &str) -> Option<Seen> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(member).copied()
    }
}

/// The measured times.
#[derive(Default)]
struct Table {
    join: Vec<Duration>,
    join_known: Vec<Duration>,
    stop: Vec<Duration>,
    stop_heard: Vec<Duration>,
    stop_known: Vec<Duration>,
}

impl Table {
    fn print(&self) {
        let target = |limit: u64, measured: Duration| {
            let met = if measured <= Duration::from_millis(limit) { "met" } else { "not met" };
            format!("{limit} ms: {met}")
        };
        let (p50, p95) = (percentile(&self.join, 0.5), percentile(&self.join, 0.95));
        // Every 100 ms, Serf tells a few random members; occasionally the balancer is not among them.
        let in_time = self.stop.iter().filter(|time| **time <= Duration::from_millis(150)).count();
        let stop = format!("150 ms: {in_time} of {}", self.stop.len());
        println!("\n| milliseconds | p50 | p95 | max | target |");
        println!("|---|---|---|---|---|");
        let join = format!("p50 {}, p95 {}", target(100, p50), target(250, p95));
        row("join: the application's own first answer to its first through the balancer", &self.join, &join);
        row("of it, until `sync-nodes` registers the node", &self.join_known, "");
        row("stop: the agent says that it leaves to the node's last answer", &self.stop, &stop);
        row("of it, until `sync-nodes` unregisters the node", &self.stop_known, "");
        row("before it: from `docker stop` to the agent's word", &self.stop_heard, "");
        println!();
    }
}

fn row(what: &str, values: &[Duration], target: &str) {
    if values.is_empty() {
        return println!("| {what} | not seen | | | {target} |");
    }
    let [p50, p95, max] = [0.5, 0.95, 1.0].map(|share| milliseconds(percentile(values, share)));
    println!("| {what} | {p50} | {p95} | {max} | {target} |");
}
