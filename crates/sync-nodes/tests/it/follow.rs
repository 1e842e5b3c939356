//! `sync-nodes --follow` beside a real Serf agent.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use lb_core::tool::wakeup::{pipe_path, wake};
use lb_fixture::{Agent, Background, World, eventually, loopback};
use nix::sys::signal::Signal;

/// Starts the service beside the agent that takes commands at `rpc`.
fn follow(world: &World, rpc: &str, options: &[&str]) -> Background {
    let mut command = world.process(env!("CARGO_BIN_EXE_sync-nodes"));
    Background::start(command.arg("--follow").args(options).env("SERF_RPC_ADDR", rpc))
}

/// So seldom that a test ends before: what is seen in it is seen by a hint.
const NEVER: [&str; 2] = ["--every", "1h"];
const OFTEN: [&str; 2] = ["--every", "100ms"];

fn balancer() -> Agent {
    Agent::start("ha", &["role=balancer"])
}

/// An agent of a node in the cluster of `other`.
fn node(name: &str, other: &Agent) -> Agent {
    let agent = Agent::start(name, &["role=backend"]);
    agent.join(other);
    agent
}

fn eventually_nodes(world: &World, nodes: &[&str]) {
    let names = |world: &World| -> Vec<String> {
        world.nodes().iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    eventually(&format!("the nodes are {nodes:?}"), || names(world) == nodes);
    eventually(&format!("the servers are {nodes:?}"), || world.config().exists() && world.servers().len() == nodes.len());
}

#[test]
fn joins_leaves_and_tags_are_seen_at_once() {
    let world = World::new();
    let ha = balancer();
    let _service = follow(&world, &ha.rpc(), &NEVER);
    eventually_nodes(&world, &[]);
    let s1 = node("s1", &ha);
    eventually_nodes(&world, &["s1"]);
    let s2 = node("s2", &ha);
    eventually_nodes(&world, &["s1", "s2"]);
    s1.tag("weight=7");
    eventually("the weight is in the file", || world.text().contains(" weight 7 "));
    s2.leave();
    eventually_nodes(&world, &["s1"]);
    drop(s1);
    eventually_nodes(&world, &[]);
}

#[test]
fn an_agent_that_is_killed_and_comes_back_is_followed_on() {
    let world = World::new();
    let ha = balancer();
    let rpc = ha.rpc();
    let s1 = node("s1", &ha);
    let mut service = follow(&world, &rpc, &OFTEN);
    eventually_nodes(&world, &["s1"]);

    let trouble = || fs::read_to_string(world.path("run/sync.trouble")).unwrap_or_default();
    assert_eq!(trouble(), "");
    let address = ha.kill();
    eventually("the trouble is logged", || world.log().iter().any(|line| line.contains("connection refused")));
    eventually("a health check sees it", || trouble().starts_with("no member list: serf agent at 127."));
    assert_eq!(world.nodes().len(), 1, "the registry stays while there is no member list");

    let ha = Agent::start_at(address, "ha", &["role=balancer"]);
    eventually("the end of the trouble is logged", || world.log().contains(&"sync-nodes: works again".to_owned()));
    assert_eq!(trouble(), "");
    assert_eq!(world.nodes().len(), 1, "an agent that is alone removes nobody");
    ha.join(&s1);
    let s2 = node("s2", &ha);
    eventually_nodes(&world, &["s1", "s2"]);
    s2.leave();
    eventually_nodes(&world, &["s1"]);
    assert!(service.is_running());
    let trouble = world.log().iter().filter(|line| line.contains("connection refused")).count();
    assert_eq!(trouble, 1, "an error that lasts is logged once: {:#?}", world.log());
}

#[test]
fn hints_come_again_after_the_agent_was_restarted() {
    let world = World::new();
    let ha = balancer();
    let rpc = ha.rpc();
    let _service = follow(&world, &rpc, &NEVER);
    eventually_nodes(&world, &[]);
    let ha = Agent::start_at(ha.kill(), "ha", &["role=balancer"]);
    let _s1 = node("s1", &ha);
    eventually_nodes(&world, &["s1"]);
}

#[test]
fn an_agent_that_starts_later_is_waited_for() {
    let world = World::new();
    let address = loopback();
    let mut service = follow(&world, &format!("{address}:7373"), &OFTEN);
    eventually("the trouble is logged", || !world.log().is_empty());
    let ha = Agent::start_at(address, "ha", &["role=balancer"]);
    let _s1 = node("s1", &ha);
    eventually_nodes(&world, &["s1"]);
    assert!(service.is_running());
}

#[test]
fn nodes_that_an_agent_alone_does_not_know_are_kept() {
    let world = World::new();
    world.register("s1 172.18.0.2");
    let ha = balancer();
    let _service = follow(&world, &ha.rpc(), &OFTEN);
    eventually_nodes(&world, &["s1"]);
    // It has synced again after this file is back.
    fs::remove_file(world.config()).unwrap();
    eventually_nodes(&world, &["s1"]);
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let world = World::new();
    let ha = balancer();
    let _s1 = node("s1", &ha);
    let clock = world.path("clock");
    fs::write(&clock, "+0").unwrap();
    let mut command = world.process(env!("CARGO_BIN_EXE_sync-nodes"));
    // The wall clock alone, as when somebody sets it: no program can be lied to about the time since the start.
    command.arg("--follow").args(OFTEN).env("SERF_RPC_ADDR", ha.rpc());
    command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", &clock);
    command.envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    command.env("PATH", format!("{}:{}", without_preload(&world).display(), std::env::var("PATH").unwrap()));
    let mut service = Background::start(&mut command);
    eventually_nodes(&world, &["s1"]);
    for (jump, name) in [("+3650d", "s2"), ("-3650d", "s3"), ("+0", "s4")] {
        fs::write(&clock, jump).unwrap();
        let node = node(name, &ha);
        eventually_nodes(&world, &["s1", name]);
        node.leave();
        eventually_nodes(&world, &["s1"]);
    }
    assert!(service.is_running());
    let log = fs::read_to_string(world.log_file()).unwrap();
    let decades: BTreeSet<&str> = log.lines().filter_map(|line| line.get(..3)).collect();
    assert_eq!(decades.len(), 3, "the clock did not jump: {decades:?}");
}

/// A folder with a `haproxy` that knows the right time: with Debian 13's libfaketime, `haproxy -c` hangs.
fn without_preload(world: &World) -> PathBuf {
    let folder = world.path("bin");
    let haproxy = folder.join("haproxy");
    fs::create_dir(&folder).unwrap();
    fs::write(&haproxy, "#!/bin/sh\nunset LD_PRELOAD\nexec /usr/sbin/haproxy \"$@\"\n").unwrap();
    fs::set_permissions(&haproxy, Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Debian's library that tells a program another time; `test.sh` installs it.
fn libfaketime() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path().join("faketime/libfaketime.so.1"));
    libraries.into_iter().find(|path| path.exists()).unwrap()
}

#[test]
fn a_handler_wakes_it() {
    let world = World::new();
    let ha = balancer();
    let _s1 = node("s1", &ha);
    let _service = follow(&world, &ha.rpc(), &NEVER);
    eventually_nodes(&world, &["s1"]);
    // The first of these may be the monitor's doing, which tells at its start what was logged before.
    for _ in 0..8 {
        fs::remove_file(world.nodes_dir().join("s1")).unwrap();
        assert!(wake(&pipe_path(&world.master_socket())), "nobody listens");
        eventually_nodes(&world, &["s1"]);
    }
}

#[test]
fn a_template_that_is_mended_takes_effect_by_itself() {
    let world = World::new();
    let good = fs::read_to_string(world.template()).unwrap();
    world.set_template("{{nonsense}}");
    let ha = balancer();
    let _s1 = node("s1", &ha);
    let _service = follow(&world, &ha.rpc(), &OFTEN);
    eventually("the trouble is logged", || world.log().iter().any(|line| line.contains("nonsense")));
    world.set_template(&good);
    eventually_nodes(&world, &["s1"]);
    let told = world.log().iter().filter(|line| line.contains("nonsense")).count();
    assert_eq!(told, 1, "an error that lasts is logged once: {:#?}", world.log());
}

#[test]
fn a_member_that_stays_refused_is_logged_once() {
    let world = World::new();
    let ha = balancer();
    let bad = Agent::start("s1", &["role=backend", "port=http"]);
    bad.join(&ha);
    let _service = follow(&world, &ha.rpc(), &OFTEN);
    let rejected = || world.log().iter().filter(|line| line.contains("'s1' rejected")).count();
    eventually("the member is rejected", || rejected() > 0);
    // Each of these nodes takes a sync of its own.
    for name in ["s2", "s3", "s4"] {
        let node = node(name, &ha);
        eventually_nodes(&world, &[name]);
        node.leave();
        eventually_nodes(&world, &[]);
    }
    assert_eq!(rejected(), 1);
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let world = World::new();
    let ha = balancer();
    let _s1 = node("s1", &ha);
    let _service = follow(&world, &ha.rpc(), &OFTEN);
    eventually_nodes(&world, &["s1"]);
    eventually("it is told", || world.log().iter().any(|line| line.contains("published")));
    let before = (world.snapshot(), world.log());
    // Every sync asks the agent, which logs each client.
    let clients = || ha.log().matches("Accepted client").count();
    let first = clients();
    eventually("there were twenty syncs", || clients() >= first + 20);
    assert_eq!((world.snapshot(), world.log()), before);
}

#[test]
fn fifty_joins_at_once_cost_a_handful_of_syncs() {
    const JOINS: usize = 50;
    let world = World::new();
    let ha = balancer();
    let _service = follow(&world, &ha.rpc(), &NEVER);
    eventually_nodes(&world, &[]);
    // Every sync asks the agent, which logs each client.
    let clients = || ha.log().matches("Accepted client").count();
    let before = clients();
    let join = format!("-join={}", ha.address());
    let nodes: Vec<Agent> = std::thread::scope(|scope| {
        let start = |number| Agent::start_with(loopback(), &format!("s{number:02}"), &["role=backend"], &[&join]);
        let starting: Vec<_> = (0..JOINS).map(|number| scope.spawn(move || start(number))).collect();
        starting.into_iter().map(|agent| agent.join().unwrap()).collect()
    });
    eventually("all are in", || world.config().exists() && world.servers().len() == nodes.len());
    // The readiness of an agent is no client of this one.
    let syncs = clients() - before;
    assert!((1..=JOINS / 3).contains(&syncs), "{syncs} syncs for {JOINS} joins");
}

#[test]
fn it_ends_at_sigterm() {
    let world = World::new();
    let ha = balancer();
    let mut service = follow(&world, &ha.rpc(), &NEVER);
    eventually_nodes(&world, &[]);
    service.signal(Signal::SIGTERM);
    service.wait();
}
