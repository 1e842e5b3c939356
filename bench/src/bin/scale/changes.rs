//! Simulated members: an agent that says what Serf's would say of them, up to ten thousand.
//!
//! It is cheaper than a real one, whose own work for a change is not measured here; `agents` does that.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_fixture::Background;
use lb_fixture::scripted::{ScriptedCluster, left_node, listed, listed_node, raw};

use crate::Options;
use crate::balancer::{Balancer, Started};
use crate::processes::Processes;
use crate::stage::{IMAGE, Stage};
use crate::wait::{settled, soon};

/// Time for a change.
const LIMIT: Duration = Duration::from_secs(60);
/// After this long without a hint, `sync-nodes` acts on the next one at once.
const QUIET: Duration = Duration::from_millis(1200);
/// Nodes that join within a second.
pub const BURST: u16 = 500;
/// Number of runs of `show-nodes`.
const SHOWN: usize = 5;

/// What was measured with one number of nodes.
pub struct Measured {
    pub nodes: u16,
    pub started: Started,
    pub joins: Vec<Change>,
    pub leaves: Vec<Change>,
    pub rest: Rest,
    pub shown: Vec<Duration>,
    pub burst: Burst,
}

/// One join or leave.
pub struct Change {
    /// From the hint until all is done and logged, with HAProxy's part.
    pub applied: Duration,
    /// Processor time of `sync-nodes` in it.
    pub processor: Duration,
    /// The steps of the publish, as `sync-nodes` logs them, and `total`.
    pub steps: Vec<(String, Duration)>,
    /// Whether it was a reload.
    pub is_reload: bool,
}

/// What it costs when nothing happens.
pub struct Rest {
    /// Shares of a core.
    pub sync: f64,
    pub haproxy: f64,
    /// Memory in kB, now and at most.
    pub resident: u64,
    pub peak: u64,
    /// That of HAProxy, with its master.
    pub haproxy_resident: u64,
}

/// Many joins within a second.
pub struct Burst {
    /// How long it took to announce them all.
    pub announced: Duration,
    /// From the last one until HAProxy has all.
    pub applied: Duration,
    pub syncs: u64,
    pub published: u64,
    pub reloads: u64,
    pub failed: u64,
}

/// All of it, with this number of nodes.
pub fn measure(nodes: u16, options: &Options) -> Result<Measured> {
    let stage = Stage::start(IMAGE)?;
    let cluster = cluster(nodes);
    let mut balancer = Balancer::new(&stage, cluster.address(), None)?;
    let _answering = stage.start_nodes(&balancer.world.path(""))?;
    let started = balancer.start()?;
    let (follower, processes) = balancer.follow()?;
    let mut lab = Lab { cluster, balancer: &balancer, follower, processes, nodes };
    lab.settle()?;
    balancer.has(nodes.into())?;
    let (joins, leaves) = lab.changes(options.turns)?;
    let rest = lab.rest(Duration::from_secs(options.rest))?;
    let shown = (0..SHOWN).map(|_| balancer.run("show-nodes", &[])).collect::<Result<_>>()?;
    let burst = lab.burst()?;
    for line in lab.follower.said().lines().filter(|line| line.contains(" applied=reload ")) {
        eprintln!("{line}");
    }
    Ok(Measured { nodes, started, joins, leaves, rest, shown, burst })
}

/// A cluster with a balancer and this number of nodes.
pub fn cluster(nodes: u16) -> ScriptedCluster {
    let cluster = ScriptedCluster::start();
    cluster.list("ha", listed(&raw(b"ha"), &raw(&[127, 0, 0, 1]), &[(&raw(b"role"), &raw(b"balancer"))]));
    for number in 0..nodes {
        cluster.list(&name(number), listed_node(&name(number), address(number).octets()));
    }
    cluster
}

fn name(number: u16) -> String {
    format!("s{number:05}")
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

struct Lab<'a> {
    cluster: ScriptedCluster,
    balancer: &'a Balancer<'a>,
    follower: Background,
    processes: Processes,
    /// Number of nodes that there ever were.
    nodes: u16,
}

impl Lab<'_> {
    /// Waits until `sync-nodes` has not looked for so long that the next hint is the first one of a burst.
    fn settle(&self) -> Result<()> {
        settled("sync-nodes is quiet", QUIET, LIMIT, || Ok(self.cluster.asked())).map(drop)
    }

    /// Each turn, a node joins and leaves.
    fn changes(&mut self, turns: u16) -> Result<(Vec<Change>, Vec<Change>)> {
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            let number = self.nodes;
            self.nodes += 1;
            joins.push(self.change(number, true)?);
            leaves.push(self.change(number, false)?);
        }
        Ok((joins, leaves))
    }

    fn change(&self, number: u16, is_join: bool) -> Result<Change> {
        let name = name(number);
        self.settle()?;
        let said = self.follower.said().len();
        let before = self.processes.time()?;
        let start = Instant::now();
        self.announce(number, is_join);
        let word = format!(" {}={name} ", if is_join { "added" } else { "removed" });
        let line = soon(&format!("sync-nodes has published{word}"), LIMIT, || {
            let now = self.follower.said();
            let mut lines = now.get(said..).unwrap_or_default().split_inclusive('\n').filter(|line| line.ends_with('\n'));
            Ok(lines.find(|line| line.contains(": published ") && line.contains(&word)).map(str::to_owned))
        })?;
        let applied = start.elapsed();
        let processor = self.processes.time()?.saturating_sub(before);
        let weight = self.balancer.ask(&format!("get weight nodes/{name}"))?;
        ensure!(weight.starts_with("100 ") == is_join, "{name}: HAProxy says '{}' after: {line}", weight.trim());
        Ok(Change { applied, processor, steps: steps(&line), is_reload: line.contains(" applied=reload ") })
    }

    /// The list changes, and the agent's log says so.
    fn announce(&self, number: u16, is_join: bool) {
        let (name, address) = (name(number), address(number));
        let member = if is_join { listed_node } else { left_node };
        self.cluster.list(&name, member(&name, address.octets()));
        let event = if is_join { "EventMemberJoin" } else { "EventMemberLeave" };
        self.cluster.say(&format!("2026/01/01 00:00:00 [INFO] serf: {event}: {name} {address}\n"));
    }

    fn rest(&self, length: Duration) -> Result<Rest> {
        self.settle()?;
        let haproxy = self.balancer.haproxy()?;
        let (start, before) = (Instant::now(), (self.processes.time()?, haproxy.time()?));
        sleep(length);
        let took = start.elapsed().as_secs_f64();
        let share = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / took;
        Ok(Rest {
            sync: share(self.processes.time()?, before.0),
            haproxy: share(haproxy.time()?, before.1),
            resident: self.processes.kilobytes("VmRSS")?,
            peak: self.processes.kilobytes("VmHWM")?,
            haproxy_resident: haproxy.kilobytes("VmRSS")?,
        })
    }

    fn burst(&mut self) -> Result<Burst> {
        self.settle()?;
        let (asked, before, servers) = (self.cluster.asked(), self.balancer.counted()?, self.balancer.servers()?);
        let start = Instant::now();
        for number in 0..BURST {
            // A pace, not a wait.
            let at = Duration::from_millis(1000 * u64::from(number) / u64::from(BURST));
            sleep(at.saturating_sub(start.elapsed()));
            self.announce(self.nodes + number, true);
        }
        let announced = start.elapsed();
        self.nodes += BURST;
        // The last one to join is among the last ones that are published.
        let last = format!("get weight nodes/{}", name(self.nodes - 1));
        soon("HAProxy has the last one", LIMIT, || Ok(self.balancer.ask(&last)?.starts_with("100 ").then_some(())))?;
        let applied = start.elapsed().saturating_sub(announced);
        self.settle()?;
        self.balancer.has(servers + usize::from(BURST))?;
        let after = self.balancer.counted()?;
        Ok(Burst {
            announced,
            applied,
            syncs: self.cluster.asked() - asked,
            published: after.at_run_time - before.at_run_time,
            reloads: after.reloads - before.reloads,
            failed: after.failed - before.failed,
        })
    }
}

/// The steps in the log line of a publish.
fn steps(line: &str) -> Vec<(String, Duration)> {
    let step = |word: &str| {
        let (name, time) = word.split_once("_ms=")?;
        Some((name.to_owned(), Duration::from_secs_f64(time.trim().parse::<f64>().ok()? / 1000.0)))
    };
    line.split(' ').filter_map(step).collect()
}

impl Change {
    /// A step of the publish, or `total`, as `sync-nodes` logs it.
    pub fn step(&self, step: &str) -> Duration {
        self.steps.iter().find(|(name, _)| name == step).map_or(Duration::ZERO, |(_, time)| *time)
    }
}
