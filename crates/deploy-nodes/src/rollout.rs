//! Carries out what was decided, and leaves a working lab whatever goes wrong.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use lb_core::tool::reporter::Reporter;
use nix::sys::signal::{SigSet, Signal};
use scale_nodes::docker::{Container, PLACE, SCALED};
use scale_nodes::figures::{Backend, Server};

use crate::DeployNodes;
use crate::decision::{Decider, Node, Step};

/// Interval between looks at the containers and at HAProxy.
const EVERY: Duration = Duration::from_millis(500);
/// Time that HAProxy has to follow when old nodes get new sessions again.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(10);
/// Number of lines to show of what a new node has printed that does not get ready.
const LINES: u8 = 5;

/// Why a run ends before every node is new.
enum End {
    /// A new node does not start or is not ready. Those that wait for it are of no use either.
    NotReady(Error),
    /// Something else does not work, or the run is interrupted.
    Broken(Error),
}

/// A run.
pub(crate) struct Rollout<'a> {
    tool: &'a DeployNodes,
    reporter: &'a Reporter,
    /// Identifier of the image.
    image: String,
    /// The nodes at the last look, oldest first.
    containers: Vec<Container>,
    /// HAProxy's statistics at the last look.
    backend: Backend,
    /// Names of the nodes at the first look: a new node gets another one.
    taken: BTreeSet<String>,
    /// Identifiers of the nodes that this run has started.
    started: Vec<String>,
    /// Old nodes that this run has drained.
    drained: Vec<Node>,
}

impl<'a> Rollout<'a> {
    /// Takes a first look and logs what will be replaced.
    pub(crate) fn begin(tool: &'a DeployNodes, reporter: &'a Reporter) -> Result<Self> {
        let image = tool.lab.image_id()?;
        let (containers, backend) = look(tool)?;
        ensure!(!containers.is_empty(), "no node is running on the network {}", tool.lab.network);
        let taken = containers.iter().map(|container| container.name.clone()).collect();
        let (started, drained) = (Vec::new(), Vec::new());
        let rollout = Self { tool, reporter, image, containers, backend, taken, started, drained };
        let (old, new) = rollout.names();
        match old.is_empty() {
            true => reporter.log(format_args!("nothing to do: {} run {}", new.join(" "), tool.lab.image)),
            false => {
                let would = if tool.dry_run { "would replace" } else { "replaces" };
                let at_once = old.len().min(tool.at_once.into());
                reporter.log(format_args!("{would} {}, {at_once} at a time, by {}", old.join(" "), tool.lab.image));
            }
        }
        Ok(rollout)
    }

    /// Whether every node runs the image.
    pub(crate) fn is_done(&self) -> bool {
        self.names().0.is_empty()
    }

    /// Replaces the nodes.
    pub(crate) fn run(&mut self) -> Result<()> {
        let interrupts = interrupts()?;
        let Err(end) = self.replace(&interrupts) else { return Ok(()) };
        self.restore();
        let why = match end {
            End::NotReady(error) => {
                self.remove_new();
                error
            }
            End::Broken(error) => error,
        };
        // The last look may be older than what was done since.
        let _ = self.look();
        let (old, new) = self.names();
        let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        Err(anyhow!("{why:#}; running old nodes: {}; new ones: {}", list(old), list(new)))
    }

    fn replace(&mut self, interrupts: &Receiver<Signal>) -> Result<(), End> {
        let mut decider = Decider::new(self.tool.policy());
        let began = Instant::now();
        let mut answered = began;
        loop {
            let pause = match self.look() {
                Ok(()) => {
                    answered = Instant::now();
                    self.reporter.log_new("look", [].into());
                    match decider.decide(began.elapsed(), &self.nodes()) {
                        Step::Done => break,
                        Step::Wait => EVERY,
                        step => {
                            self.act(step, &mut decider)?;
                            Duration::ZERO
                        }
                    }
                }
                // HAProxy may be restarting.
                Err(error) if answered.elapsed() < *self.tool.ready_within => {
                    self.reporter.log_new("look", [format!("{error:#}")].into());
                    EVERY
                }
                Err(error) => return Err(End::Broken(error)),
            };
            if interrupts.recv_timeout(pause).is_ok() {
                return Err(End::Broken(anyhow!("interrupted")));
            }
        }
        let started: Vec<&str> = self.started.iter().map(String::as_str).collect();
        if let Err(error) = self.tool.lab.restart_at_boot(&started) {
            self.reporter.log(format_args!("will not come back after a reboot: {error:#}"));
        }
        let (_, new) = self.names();
        self.reporter.log(format_args!("done: {} run {}", new.join(" "), self.tool.lab.image));
        Ok(())
    }

    fn act(&mut self, step: Step, decider: &mut Decider) -> Result<(), End> {
        let lab = &self.tool.lab;
        match step {
            Step::Start(places) => {
                for place in places {
                    self.start(&place, decider).map_err(End::NotReady)?;
                }
            }
            Step::Undrain(nodes) => {
                for node in nodes {
                    lab.drain(&node.id, false).map_err(End::NotReady)?;
                }
            }
            Step::Drain(nodes) => {
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                self.reporter.log(format_args!("drains {}", names.join(" ")));
                for node in nodes.into_iter().filter(|node| !node.draining) {
                    match lab.drain(&node.id, true) {
                        Ok(()) => self.drained.push(node),
                        // Its agent is dead or frozen: it can be stopped all the same.
                        Err(error) => self.reporter.log(format_args!("{} does not drain: {error:#}", node.name)),
                    }
                }
            }
            Step::Stop(nodes) => {
                for (node, why) in &nodes {
                    self.reporter.log(format_args!("stops {}: {why}", node.name));
                }
                let ids: Vec<&str> = nodes.iter().map(|(node, _)| node.id.as_str()).collect();
                lab.stop(&ids).map_err(End::Broken)?;
                self.drained.retain(|node| !ids.contains(&node.id.as_str()));
            }
            Step::Fail { id, name, why } => {
                for line in lab.logs(&id, LINES).unwrap_or_default().lines() {
                    self.reporter.log(format_args!("{name} said: {line}"));
                }
                return Err(End::NotReady(anyhow!("{name}: {why}")));
            }
            Step::Wait | Step::Done => {}
        }
        Ok(())
    }

    /// Starts a new node in a place, which `scale-nodes` may stop if it may stop the old one.
    fn start(&mut self, place: &str, decider: &mut Decider) -> Result<()> {
        let lab = &self.tool.lab;
        let old = || self.containers.iter().filter(|container| container.place == place);
        let mut labels = vec![format!("--label={PLACE}={place}")];
        if old().any(|container| container.scaled) {
            labels.push(format!("--label={SCALED}={}", lab.network));
        }
        // HAProxy may still have a server with the name of a node that has just left.
        let is_taken = |name: &str| self.taken.contains(name) || self.backend.servers_of(name).next().is_some();
        let name = lab.free_name(is_taken)?;
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let id = lab.start(&name, &labels).with_context(|| format!("{name} is not started"))?;
        decider.started(place, &id, &name);
        let old: Vec<&str> = old().map(|container| container.name.as_str()).collect();
        self.reporter.log(format_args!("{name} is started in place of {}", old.join(" ")));
        self.started.push(id);
        Ok(())
    }

    /// Gives new sessions to the old nodes that this run has drained, and waits until HAProxy sends them some: the new ones may
    /// be removed next.
    fn restore(&mut self) {
        for node in &self.drained {
            if let Err(error) = self.tool.lab.drain(&node.id, false) {
                self.reporter.log(format_args!("{} gets no new sessions: {error:#}", node.name));
            }
        }
        let deadline = Instant::now() + FOLLOWS_WITHIN;
        let drained: Vec<String> = self.drained.iter().map(|node| node.id.clone()).collect();
        while Instant::now() < deadline && self.nodes().iter().any(|node| node.draining && drained.contains(&node.id)) {
            thread::sleep(EVERY);
            let _ = self.look();
        }
    }

    /// Removes the new nodes that were started for old ones which are still running, and whatever else this run has started
    /// that is no running new node.
    fn remove_new(&mut self) {
        // What was started since the last look is not known yet.
        let _ = self.look();
        let nodes = self.nodes();
        let is_old = |place: &str| nodes.iter().any(|node| !node.new && node.place == place);
        let early = nodes.iter().filter(|node| node.new && node.id != node.place && is_old(&node.place));
        let failed = self.started.iter().filter(|id| !nodes.iter().any(|node| node.new && node.id == **id));
        let ids: Vec<&str> = early.map(|node| node.id.as_str()).chain(failed.map(String::as_str)).collect();
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.tool.lab.stop(&ids) {
            self.reporter.log(format_args!("not removed: {error:#}"));
        }
    }

    fn look(&mut self) -> Result<()> {
        (self.containers, self.backend) = look(self.tool)?;
        Ok(())
    }

    fn nodes(&self) -> Vec<Node> {
        self.containers.iter().map(|container| self.node(container)).collect()
    }

    fn node(&self, container: &Container) -> Node {
        let servers: Vec<&Server> = self.backend.servers_of(&container.hostname).collect();
        Node {
            id: container.id.clone(),
            name: container.name.clone(),
            place: container.place.clone(),
            new: container.image == self.image,
            state: servers.iter().map(|server| format!("{} {}", server.status, server.check)).next(),
            ready: servers.iter().any(|server| server.is_ready()),
            draining: servers.iter().any(|server| server.is_draining()),
            requests: servers.iter().map(|server| server.requests).sum(),
            total: servers.iter().map(|server| server.total).sum(),
        }
    }

    /// The names of the old nodes and of the new ones.
    fn names(&self) -> (Vec<String>, Vec<String>) {
        let names = |new: bool| self.nodes().into_iter().filter(|node| node.new == new).map(|node| node.name).collect();
        (names(false), names(true))
    }
}

/// The nodes, oldest first, and HAProxy's statistics.
fn look(tool: &DeployNodes) -> Result<(Vec<Container>, Backend)> {
    let mut containers = tool.lab.nodes()?;
    containers.reverse();
    Ok((containers, tool.lab.figures()?))
}

/// Receives the signals that would end the tool in the middle of something.
fn interrupts() -> Result<Receiver<Signal>> {
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    let (sender, receiver) = mpsc::channel();
    // It inherits the mask, so that it alone gets them.
    thread::spawn(move || while signals.wait().is_ok_and(|signal| sender.send(signal).is_ok()) {});
    Ok(receiver)
}
