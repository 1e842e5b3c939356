//! Two witnesses: what gossip says of a node that HAProxy reaches, with real agents and a real HAProxy.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::net::Ipv4Addr;

use lb_core::haproxy::last_applied::{LastApplied, RecordedFor, record_path};
use lb_core::haproxy::{self, ProcessOptions};
use lb_core::registry::witness::Health;
use lb_fixture::{Agent, Application, Background, World, eventually, loopback};
use nix::sys::signal::Signal;

/// A balancer: an agent, HAProxy, and the service that syncs them. Between two hints, it syncs only if it has a reason to.
struct Balancer {
    world: World,
    agent: Agent,
    haproxy: Background,
    service: Background,
}

impl Balancer {
    /// Starts one that knows these nodes. They are there from the start, because Debian 12's HAProxy cannot add their servers at
    /// run time.
    fn start<const N: usize>(names: [&'static str; N]) -> (Self, [Node; N]) {
        let world = World::self_contained();
        let agent = Agent::start("ha", &["role=balancer"]);
        let nodes = names.map(|name| Node::start(name, &agent));
        world.command(env!("CARGO_BIN_EXE_sync-nodes")).env("SERF_RPC_ADDR", agent.rpc()).assert().success();
        let haproxy = world.start_haproxy();
        record_start(&world);
        let service = follow(&world, &agent);
        let balancer = Self { world, agent, haproxy, service };
        balancer.eventually_has(&nodes.each_ref());
        nodes.iter().for_each(|node| balancer.eventually_reaches(node));
        (balancer, nodes)
    }

    /// Waits until exactly these nodes are registered, and in the file.
    fn eventually_has(&self, nodes: &[&Node]) {
        let mut lines: Vec<_> = nodes.iter().map(|node| format!("{} {}", node.name, node.address)).collect();
        lines.sort();
        eventually(&format!("the nodes are {lines:?}"), || self.world.nodes() == lines);
        eventually(&format!("the servers are {lines:?}"), || self.world.servers().len() == lines.len());
    }

    /// Waits until something is logged about a node.
    fn eventually_says(&self, node: &Node, what: &str) {
        let line = format!("sync-nodes: {} {what}", node.name);
        eventually(&line, || self.world.log().contains(&line));
    }

    /// Waits until Serf lists a node with this status.
    fn eventually_lists(&self, node: &Node, status: &str) {
        eventually(&format!("{} is {status}", node.name), || {
            self.agent.members().lines().any(|line| line.starts_with(&format!("{} ", node.name)) && line.contains(status))
        });
    }

    /// Waits until HAProxy's check finds a node up.
    fn eventually_reaches(&self, node: &Node) {
        eventually(&format!("HAProxy reaches {}", node.name), || {
            let options = ProcessOptions {
                config: self.world.config(),
                master_socket: self.world.master_socket(),
                admin_socket: self.world.admin_socket(),
            };
            let witness = haproxy::witness(&options).unwrap();
            witness.health((node.address.into(), 3000)) == Some(Health::Passes)
        });
    }

    /// Shows that all was synced again without taking a node out.
    fn still_has(&self, nodes: &[&Node]) {
        let syncs = || std::fs::metadata(self.world.path("run/last-sync")).unwrap().modified().unwrap();
        for _ in 0..2 {
            let before = syncs();
            eventually("there is another sync", || syncs() > before);
        }
        self.eventually_has(nodes);
        let log = self.world.log();
        assert!(nodes.iter().all(|node| !log.contains(&format!("sync-nodes: unregistered {}", node.name))), "{log:#?}");
    }
}

#[allow(clippy::print_stderr, reason = "what a test that fails leaves to look at")]
impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}\n{:#?}", self.agent.members(), self.haproxy.said(), self.world.log());
        }
    }
}

/// Records that HAProxy has read the file, as its service does.
fn record_start(world: &World) {
    let (master, admin) = (world.master_socket(), world.admin_socket());
    let worker = haproxy::find(&master, &admin).unwrap().expect("a worker").worker();
    let running = LastApplied { text: world.text(), ..LastApplied::default() };
    running.store(&record_path(&master), RecordedFor::Worker(worker)).unwrap();
}

fn follow(world: &World, agent: &Agent) -> Background {
    let mut command = world.process(env!("CARGO_BIN_EXE_sync-nodes"));
    Background::start(command.args(["--follow", "--every", "1h"]).env("SERF_RPC_ADDR", agent.rpc()))
}

/// A node: its application, and an agent beside it that can be lost without it.
struct Node {
    name: &'static str,
    address: Ipv4Addr,
    _application: Application,
    agent: Option<Agent>,
}

impl Node {
    fn start(name: &'static str, other: &Agent) -> Self {
        let address = loopback();
        let application = Application::start_at((address, 3000).into());
        application.become_ready();
        let agent = Agent::start_at(address, name, &["role=backend"]);
        agent.join(other);
        Self { name, address, _application: application, agent: Some(agent) }
    }

    fn kill_agent(&mut self) {
        let _ = self.agent.take().unwrap().kill();
    }

    fn leave(&mut self) {
        self.agent.take().unwrap().leave();
    }
}

const FAILED: &str = "failed in gossip, reachable: kept";
const ABSENT: &str = "missing from gossip, not known to be down: kept";
const LEFT: &str = "left in gossip, reachable: kept until its health check fails";
const MOVED: &str = "at another address in gossip, reachable at the old one: kept there";

#[test]
fn what_gossip_has_lost_goes_when_haproxy_loses_it_too() {
    let (balancer, [mut s1, mut s2]) = Balancer::start(["s1", "s2"]);
    s1.kill_agent();
    s2.kill_agent();
    for node in [&s1, &s2] {
        balancer.eventually_says(node, FAILED);
    }
    balancer.still_has(&[&s1, &s2]);

    let agent = Agent::start_at(s2.address, "s2", &["role=backend"]);
    agent.join(&balancer.agent);
    balancer.eventually_says(&s2, "is confirmed by gossip again");
    drop(s1);
    balancer.eventually_has(&[&s2]);
    let told = balancer.world.log().iter().filter(|line| line.contains(FAILED)).count();
    assert_eq!(told, 2, "what lasts is told once: {:#?}", balancer.world.log());
}

#[test]
fn who_is_dead_for_both_is_out() {
    let (balancer, [s1, s2]) = Balancer::start(["s1", "s2"]);
    drop(s1);
    balancer.eventually_has(&[&s2]);
}

#[test]
fn an_agent_that_starts_anew_costs_no_node() {
    let (mut balancer, [s1, s2]) = Balancer::start(["s1", "s2"]);
    let knows_nobody = Agent::start("ha", &["role=balancer"]);
    balancer.service = follow(&balancer.world, &knows_nobody);
    for node in [&s1, &s2] {
        balancer.eventually_says(node, ABSENT);
    }
    balancer.still_has(&[&s1, &s2]);
    drop(s1);
    balancer.eventually_has(&[&s2]);
}

#[test]
fn a_name_is_not_moved_while_its_old_address_answers() {
    let (balancer, [mut s1]) = Balancer::start(["s1"]);
    // Serf gives the name of a member that has left to the next one at once, that of a failed one only after a while.
    s1.leave();
    balancer.eventually_says(&s1, LEFT);
    let elsewhere = Node::start("s1", &balancer.agent);
    balancer.eventually_says(&s1, MOVED);
    balancer.still_has(&[&s1]);
    drop(s1);
    balancer.eventually_has(&[&elsewhere]);
}

#[test]
fn the_last_node_that_answers_stays_until_it_does_not() {
    let (balancer, [mut s1, mut s2]) = Balancer::start(["s1", "s2"]);
    s1.leave();
    balancer.eventually_has(&[&s2]);
    s2.leave();
    balancer.eventually_says(&s2, LEFT);
    balancer.still_has(&[&s2]);
    drop(s2);
    balancer.eventually_has(&[]);
}

#[test]
fn nobody_goes_while_haproxy_cannot_be_asked() {
    let (balancer, [mut s1, s2]) = Balancer::start(["s1", "s2"]);
    balancer.haproxy.signal_all(Signal::SIGSTOP);
    s1.kill_agent();
    eventually("the trouble is told", || balancer.world.log().iter().any(|line| line.contains("HAProxy socket")));
    balancer.eventually_lists(&s1, "failed");
    assert_eq!(balancer.world.nodes().len(), 2);
    balancer.haproxy.signal_all(Signal::SIGCONT);
    balancer.eventually_says(&s1, FAILED);
    balancer.eventually_has(&[&s1, &s2]);
}

#[test]
fn without_haproxy_gossip_is_believed_but_not_its_silence() {
    let (balancer, [s1, s2]) = Balancer::start(["s1", "s2"]);
    // The files of its sockets stay, as those of a killed one do.
    balancer.haproxy.signal_all(Signal::SIGKILL);
    balancer.service.signal(Signal::SIGKILL);
    drop(s1);
    let world = &balancer.world;
    let sync = |agent: &Agent| {
        world.command(env!("CARGO_BIN_EXE_sync-nodes")).env("SERF_RPC_ADDR", agent.rpc()).assert().success();
        world.nodes()
    };
    eventually("who has failed goes", || sync(&balancer.agent).len() == 1);
    let knows_nobody = Agent::start("ha", &["role=balancer"]);
    assert_eq!(sync(&knows_nobody), [format!("s2 {}", s2.address)]);
}
