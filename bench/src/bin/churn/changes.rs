//! Random changes to the lab under load, reproducible by seed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result};
use e2e::balancer::without_number;
use e2e::http::get;
use e2e::wait::same;
use e2e::{Balancer, Container, Lab, eventually};
use fastrand::Rng;

use crate::journal::{Kill, workers};
use crate::server::Server;

/// Number of nodes at the start, and the minimum left in full use.
const MIN_NODES: usize = 3;
/// Maximum number of running nodes.
const MAX_NODES: usize = 6;
/// The second port of a node's application, used when its port is changed.
const OTHER_PORT: u16 = 3001;
/// Maximum wait in seconds for HAProxy to reflect a change. A killed node that comes back may take half a minute, and longer
/// on a busy machine.
const CHANGE_TIMEOUT: u64 = 120;

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A new node.
    Join,
    /// `docker stop` of a node.
    Stop,
    /// `docker start` of a node that was stopped or killed.
    Start,
    /// `docker kill` of a node.
    Kill,
    /// `docker pause` of a node, and `docker unpause` when HAProxy has noticed.
    Pause,
    /// The gossip of the balancer or of a node does not get through until Serf has noticed.
    Cut,
    /// A node's tag `weight`.
    Weight,
    /// A node's tag `drain`, set or deleted.
    Drain,
    /// A node's tag `port`, set or deleted.
    Port,
    /// The template on the host.
    Template,
}

/// A running node.
#[derive(Debug)]
struct Node {
    container: Container,
    draining: bool,
    /// Whether its application listens on [`OTHER_PORT`] too.
    listens_there: bool,
    /// Whether HAProxy uses [`OTHER_PORT`].
    asked_there: bool,
}

impl Node {
    fn new(container: Container) -> Self {
        Self { container, draining: false, listens_there: false, asked_there: false }
    }
}

/// Changes one lab.
#[derive(Debug)]
pub struct Driver {
    random: Rng,
    /// The balancer of the lab.
    pub balancer: Balancer,
    template: String,
    template_file: PathBuf,
    running: Vec<Node>,
    gone: Vec<Container>,
    started: usize,
    /// The nodes that were killed.
    pub kills: Vec<Kill>,
    /// How many changes of each kind were made.
    pub made: BTreeMap<Change, u64>,
    /// When each change started, and what it was.
    pub history: Vec<(SystemTime, String)>,
    /// How many workers HAProxy had started before the first change.
    pub workers_at_first: usize,
    // Last, so that the containers' logs are available when a run fails.
    lab: Lab,
}

impl Driver {
    /// Starts the nodes and waits until all are in use.
    ///
    /// `template_file` is the balancer's template on this machine, which contains `template`.
    #[must_use]
    pub fn new(seed: u64, lab: Lab, balancer: Balancer, template: String, template_file: PathBuf) -> Self {
        let mut driver = Self {
            random: Rng::with_seed(seed),
            balancer,
            template,
            template_file,
            running: Vec::new(),
            gone: Vec::new(),
            started: 0,
            kills: Vec::new(),
            made: BTreeMap::new(),
            history: Vec::new(),
            workers_at_first: 0,
            lab,
        };
        for _ in 0..=MIN_NODES {
            let _ = driver.add_node();
        }
        driver.settle();
        // HAProxy has just started: the first sync after that may reload it.
        let _ = driver.balancer.exec(&["sync-nodes"]);
        driver.workers_at_first = workers(&driver.balancer.logs());
        driver
    }

    /// How many changes were made.
    #[must_use]
    pub fn all_made(&self) -> u64 {
        self.made.values().sum()
    }

    /// Makes one change, waits until HAProxy reflects it, and returns what it was.
    ///
    /// HAProxy notices a kill before Serf does, so other changes happen while the dead node is still in the member list.
    ///
    /// # Errors
    /// If the template cannot be written.
    pub fn change(&mut self) -> Result<String> {
        let began = SystemTime::now();
        let (change, what) = self.choose()?;
        *self.made.entry(change).or_default() += 1;
        let what = format!("{}: {change:?}: {what}", self.all_made());
        self.history.push((began, what.clone()));
        Ok(what)
    }

    /// Waits until HAProxy has exactly the running nodes.
    pub fn settle(&self) {
        let expected = self.running.iter().map(|node| node.container.line()).collect();
        eventually("HAProxy has the nodes that run", CHANGE_TIMEOUT, || same(&self.balancer.process()?, &expected));
    }

    fn choose(&mut self) -> Result<(Change, String)> {
        // A change that is impossible now is replaced with one that makes it possible.
        let wishes = match self.random.u32(..100) {
            0..12 => [Change::Join, Change::Stop],
            12..25 => [Change::Stop, Change::Join],
            25..38 => [Change::Start, Change::Kill],
            38..50 => [Change::Kill, Change::Join],
            50..53 => [Change::Pause, Change::Join],
            53..56 => [Change::Cut, Change::Join],
            56..64 => [Change::Weight, Change::Template],
            64..76 => [Change::Drain, Change::Join],
            76..86 => [Change::Port, Change::Template],
            _ => [Change::Template, Change::Template],
        };
        for wish in wishes {
            let done = match wish {
                Change::Join => self.join(),
                Change::Stop => self.stop(),
                Change::Start => self.start(),
                Change::Kill => self.kill(),
                Change::Pause => self.pause(),
                Change::Cut => self.cut(),
                Change::Weight => self.weight(),
                Change::Drain => self.drain(),
                Change::Port => self.port(),
                Change::Template => None,
            };
            if let Some(what) = done {
                return Ok((wish, what));
            }
        }
        Ok((Change::Template, self.change_template()?))
    }

    fn join(&mut self) -> Option<String> {
        if self.running.len() >= MAX_NODES {
            return None;
        }
        let index = self.add_node();
        self.wait_until_asked(index);
        Some(self.running[index].container.name.clone())
    }

    fn stop(&mut self) -> Option<String> {
        // After a change of port, requests go to a second application, which is never drained.
        let node = self.take(|node| !node.asked_there)?;
        let member = node.container.member();
        node.container.stop();
        eventually("HAProxy is without the node", CHANGE_TIMEOUT, || {
            self.server(&member).map_or(Ok(()), |server| Err(format!("{server:?}")))
        });
        Some(self.lose(node))
    }

    fn start(&mut self) -> Option<String> {
        if self.running.len() >= MAX_NODES || self.gone.is_empty() {
            return None;
        }
        let container = self.gone.swap_remove(self.random.usize(..self.gone.len()));
        container.start();
        self.running.push(Node::new(container));
        self.wait_until_asked(self.running.len() - 1);
        self.running.last().map(|node| node.container.name.clone())
    }

    fn kill(&mut self) -> Option<String> {
        let node = self.take(|_| true)?;
        let (member, at) = (node.container.member(), SystemTime::now());
        node.container.kill();
        eventually("HAProxy has noticed", CHANGE_TIMEOUT, || match self.server(&member) {
            Some(server) if server.is_up => Err(format!("{server:?}")),
            _ => Ok(()),
        });
        self.kills.push(Kill { member, at, noticed: SystemTime::now() });
        Some(self.lose(node))
    }

    fn pause(&mut self) -> Option<String> {
        let index = self.spare(|_| true)?;
        let node = &self.running[index].container;
        let member = node.member();
        let is_up = || self.server(&member).is_some_and(|server| server.is_up);
        node.pause();
        eventually("HAProxy has noticed", CHANGE_TIMEOUT, || same(&is_up(), &false));
        node.unpause();
        eventually("HAProxy has it back", CHANGE_TIMEOUT, || same(&is_up(), &true));
        Some(node.name.clone())
    }

    /// HAProxy goes on using all nodes.
    fn cut(&mut self) -> Option<String> {
        let index = self.pick(|_| true)?;
        let node = &self.running[index].container;
        let container = if self.random.bool() { node } else { &self.balancer.container };
        let is_alive = || self.is_alive(node);
        container.cut_gossip(&["INPUT", "OUTPUT"]);
        eventually("Serf has noticed", CHANGE_TIMEOUT, || same(&is_alive(), &false));
        let _ = self.balancer.exec(&["sync-nodes"]);
        // Those that were killed before may be there as well, for a while.
        let used = self.balancer.process().expect("HAProxy answers");
        let lost: Vec<String> =
            self.running.iter().map(|node| node.container.line()).filter(|line| !used.contains(line)).collect();
        assert!(lost.is_empty(), "HAProxy is without {lost:?}");
        container.mend_network();
        eventually("Serf has it back", CHANGE_TIMEOUT, || same(&is_alive(), &true));
        Some(container.name.clone())
    }

    /// Whether the balancer's agent says so.
    /// Whether the balancer's agent finds the node alive, under its plain name or with a number.
    fn is_alive(&self, node: &Container) -> bool {
        let members = self.balancer.exec(&["serf", "members", "-status=alive"]);
        let line = node.line();
        members.lines().any(|member| {
            let mut words = member.split_whitespace();
            let (Some(name), Some(address)) = (words.next(), words.next()) else { return false };
            address.rsplit_once(':').is_some_and(|(ip, _)| without_number(&format!("{name} {ip}")) == line)
        })
    }

    fn weight(&mut self) -> Option<String> {
        let index = self.pick(|node| !node.draining)?;
        let weight = *self.random.choice(&["1", "20", "50", "100", "200"])?;
        self.tag(index, "-set", &format!("weight={weight}"), |server| server.weight == weight);
        Some(format!("{weight}, {}", self.running[index].container.name))
    }

    fn drain(&mut self) -> Option<String> {
        if let Some(index) = self.running.iter().position(|node| node.draining) {
            self.tag(index, "-delete", "drain", |server| server.weight != "0");
            self.running[index].draining = false;
            return Some(format!("no more, {}", self.running[index].container.name));
        }
        let index = self.spare(|_| true)?;
        self.running[index].draining = true;
        self.tag(index, "-set", "drain=yes", |server| server.weight == "0");
        Some(self.running[index].container.name.clone())
    }

    fn port(&mut self) -> Option<String> {
        let index = self.pick(|_| true)?;
        let node = &mut self.running[index];
        node.asked_there = !node.asked_there;
        if !node.asked_there {
            self.tag(index, "-delete", "port", |server| server.port == "3000");
            return Some(format!("as before, {}", self.running[index].container.name));
        }
        if !node.listens_there {
            listen_there(&node.container);
            node.listens_there = true;
        }
        let port = OTHER_PORT.to_string();
        self.tag(index, "-set", &format!("port={port}"), |server| server.port == port);
        Some(format!("{port}, {}", self.running[index].container.name))
    }

    /// Replaces the file atomically, as an editor does, in the directory mounted into the balancer.
    fn change_template(&mut self) -> Result<String> {
        let number = self.made.get(&Change::Template).unwrap_or(&0) + 1;
        // Alternates the balancing algorithm; the last line makes the file differ in any case.
        let balance = if number % 2 == 1 { "balance leastconn" } else { "balance roundrobin" };
        let text = format!("{}\n# change {number}\n", self.template.replace("balance roundrobin", balance));
        let worker = self.balancer.worker();
        write_template(&self.template_file, &text)?;
        // Without a hint, it is noticed within 10 s.
        if self.random.u32(..6) > 0 {
            let _ = self.balancer.exec(&["sync-nodes"]);
        }
        eventually("a new worker takes over", CHANGE_TIMEOUT, || {
            let now = self.balancer.worker();
            if now == worker { Err(format!("worker {now}")) } else { Ok(()) }
        });
        Ok(balance.to_owned())
    }

    fn add_node(&mut self) -> usize {
        self.started += 1;
        let node = self.lab.node(&format!("s{}", self.started));
        self.running.push(Node::new(node));
        self.running.len() - 1
    }

    /// Takes a node out of the running ones, unless too few would be left.
    fn take(&mut self, fits: impl Fn(&Node) -> bool) -> Option<Node> {
        let index = self.spare(fits)?;
        Some(self.running.swap_remove(index))
    }

    /// Index of a node that can be spared, with enough left in full use.
    fn spare(&mut self, fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let in_use = self.running.iter().filter(|node| !node.draining).count();
        self.pick(|node| fits(node) && (node.draining || in_use > MIN_NODES))
    }

    /// Index of any running node that fits.
    fn pick(&mut self, fits: impl Fn(&Node) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.running.len()).filter(|index| fits(&self.running[*index])).collect();
        self.random.choice(&fitting).copied()
    }

    fn lose(&mut self, node: Node) -> String {
        let name = node.container.name.clone();
        self.gone.push(node.container);
        name
    }

    /// Changes a tag of a node and waits until HAProxy has it.
    fn tag(&self, index: usize, how: &str, tag: &str, is_known: impl Fn(&Server) -> bool) {
        let node = &self.running[index].container;
        let _ = node.exec(&["serf", "tags", how, tag]);
        let member = node.member();
        eventually(&format!("HAProxy has {tag} of {}", node.name), CHANGE_TIMEOUT, || match self.server(&member) {
            Some(server) if is_known(&server) => Ok(()),
            server => Err(format!("{server:?}")),
        });
    }

    fn wait_until_asked(&self, index: usize) {
        let line = self.running[index].container.line();
        eventually(&format!("HAProxy has {line}"), CHANGE_TIMEOUT, || {
            let servers = self.balancer.process()?;
            if servers.contains(&line) { Ok(()) } else { Err(format!("{servers:?}")) }
        });
    }

    fn server(&self, member: &str) -> Option<Server> {
        let state = self.balancer.statistics("show servers state nodes").ok()?;
        state.lines().filter_map(Server::parse).find(|server| server.name.starts_with(member))
    }
}

/// Starts a second application in the node, as if it was about to move to another port.
fn listen_there(node: &Container) {
    let command = format!("PORT={OTHER_PORT} exec node /app/server.js");
    let _ = e2e::docker::docker(&["exec", "-d", &node.name, "sh", "-c", &command]);
    let url = format!("http://{}:{OTHER_PORT}/health", node.address());
    eventually(&format!("{url} answers"), CHANGE_TIMEOUT, || get(&url, None));
}

/// Writes the template to the directory mounted into the balancer.
///
/// # Errors
/// If it cannot be written.
pub fn write_template(file: &std::path::Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).context("write the template")
}
