//! How `serf-run join` finds the other members for a real agent, and when it starts that anew.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lb_fixture::{Agent, Background, World, eventually, loopback, members_at, only_line};
use nix::sys::signal::Signal;
use serde_json::json;

const TOOL: &str = env!("CARGO_BIN_EXE_serf-run");

/// `serf-run` beside or as the agent at this address.
fn serf_run(world: &World, address: Ipv4Addr, join: &str) -> Command {
    let mut command = world.process(TOOL);
    command.env("SERF_DIR", world.path("serf")).env("SERF_NODE_NAME", "s1").env("SERF_JOIN", join);
    command.env("SERF_BIND", format!("{address}:7946")).env("SERF_RPC_ADDR", format!("{address}:7373"));
    command
}

/// The agent `s1`, which has not joined anybody.
fn start_agent(world: &World, address: Ipv4Addr) -> Background {
    let agent = Background::start(&mut serf_run(world, address, ""));
    eventually("the agent takes commands", || members(world, address).contains("s1"));
    agent
}

fn start_join(world: &World, address: Ipv4Addr, names: &str) -> Background {
    Background::start(serf_run(world, address, names).arg("join"))
}

fn members(world: &World, address: Ipv4Addr) -> String {
    members_at(address, &world.path("serf/rpc-auth"))
}

#[test]
fn it_joins_who_has_one_of_the_names_and_says_nothing() {
    let (world, address) = (World::new(), loopback());
    let ha = Agent::start("ha", &["role=balancer"]);
    let mut join = start_join(&world, address, &format!("nobody.invalid {}", ha.address()));
    // Without an agent it waits.
    let _agent = start_agent(&world, address);
    eventually("the cluster knows the new member", || ha.members().contains("s1 "));
    assert!(join.is_running());
    assert_eq!((join.said(), world.log()), (String::new(), Vec::new()));
}

/// Its members see no difference: the new one answers when the old one is asked for.
#[test]
fn a_balancer_that_was_killed_and_has_the_same_name_and_address_is_found_again() {
    let (world, address) = (World::new(), loopback());
    let agent = start_agent(&world, address);
    let old = Agent::start("ha", &["role=balancer"]);
    let _join = start_join(&world, address, &old.address().to_string());
    eventually("the cluster knows the new member", || old.members().contains("s1 "));
    let joins = || agent.said().matches("agent: joining: ").count();
    let before = joins();
    eventually("it goes on joining", || joins() >= before + 2);
    let new = Agent::start_at(old.kill(), "ha", &["role=balancer"]);
    let began = Instant::now();
    eventually("the new one knows the member", || new.members().contains("s1 "));
    // The agent's own exchange with a random member comes every 15 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn the_agent_whose_name_the_cluster_has_for_another_address_is_started_anew() {
    // One that has left does not give its name back when it had been declared failed.
    for state in ["failed", "left"] {
        let (world, address) = (World::new(), loopback());
        let handler = [format!("-event-handler=query:address=echo 192.0.2.9 {state}")];
        let ha = Agent::start_with(loopback(), "ha", &["role=balancer"], &handler);
        let mut agent = start_agent(&world, address);
        let join = start_join(&world, address, &ha.address().to_string());
        assert!(agent.wait().success(), "{}", agent.said());
        eventually("its leave is known", || ha.members().lines().any(|line| line.starts_with("s1 ") && line.contains("left")));
        let said =
            format!("serf-run: the cluster knows s1 by its old address 192.0.2.9, not by {address}: joining under another name");
        assert_eq!(join.said().trim_end(), said);
        assert_eq!(fs::read_to_string(world.path("serf/name-refused")).unwrap(), "refused\n");
    }
}

#[test]
fn a_name_that_a_balancer_knows_by_the_right_address_is_accepted() {
    let (world, address) = (World::new(), loopback());
    let handler = [format!("-event-handler=query:address=echo {address} alive")];
    let ha = Agent::start_with(loopback(), "ha", &["role=balancer"], &handler);
    let mut agent = start_agent(&world, address);
    let join = start_join(&world, address, &ha.address().to_string());
    eventually("it is accepted", || world.path("serf/name-accepted").exists());
    assert!(agent.is_running());
    assert_eq!(join.said(), "");
}

/// An agent that announces an address which this host does not have, as after a change of it.
#[test]
fn the_agent_that_announces_an_address_of_before_is_started_anew() {
    let (world, address) = (World::new(), loopback());
    fs::create_dir(world.path("serf")).unwrap();
    let configure = |bind: &str| {
        let configuration = json!({"node_name": "s1", "bind": bind}).to_string();
        fs::write(world.path("serf/agent.json"), configuration).unwrap();
    };
    // What somebody has chosen stays.
    configure(&format!("{address}:7946"));
    let agent = Agent::start_with(address, "s1", &[], &["-advertise=192.0.2.7"]);
    let ha = Agent::start("ha", &["role=balancer"]);
    let join = start_join(&world, address, &ha.address().to_string());
    eventually("it has looked", || ha.members().contains("192.0.2.7"));
    assert_eq!(join.said(), "");
    configure("0.0.0.0:7946");
    eventually("the agent leaves", || agent.members().is_empty());
    assert_eq!(join.said().trim_end(), "serf-run: join: s1 is no longer at 192.0.2.7: restarting the agent");
}

/// Runs `join --once` beside the agent at this address.
fn join_once(world: &World, address: Ipv4Addr, names: &str, limit: &str) -> assert_cmd::assert::Assert {
    let mut command = assert_cmd::Command::from_std(serf_run(world, address, names));
    command.args(["join", "--once", limit]).timeout(Duration::from_secs(60)).assert()
}

#[test]
fn after_joining_once_the_agent_has_the_whole_list() {
    for _ in 0..2 {
        let (world, address) = (World::new(), loopback());
        let others = ["ha", "s2", "s3", "s4"].map(|name| Agent::start(name, &["role=backend"]));
        others[1..].iter().for_each(|agent| agent.join(&others[0]));
        eventually("they know each other", || others.iter().all(|agent| agent.members().matches("alive").count() == 4));
        let frozen = Agent::start("frozen", &[]);
        frozen.freeze();
        let names = format!("nobody.invalid {} {}", frozen.address(), others[0].address());
        let (run, known) = thread::scope(|scope| {
            let run = scope.spawn(|| {
                let run = join_once(&world, address, &names, "50s");
                (run, members(&world, address))
            });
            let _agent = start_agent(&world, address);
            run.join().unwrap()
        });
        run.success().stderr("");
        assert_eq!(known.matches(" alive ").count(), 5, "{known}");
    }
}

#[test]
fn who_has_nobody_to_join_does_not_wait() {
    let (world, began) = (World::new(), Instant::now());
    for names in ["", "nobody.invalid", &own_address()] {
        join_once(&world, loopback(), names, "1h").success().stderr("");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// An address of this host that is not loopback, or nothing.
fn own_address() -> String {
    lb_core::members::admission::addresses().unwrap().first().map_or_else(String::new, ToString::to_string)
}

#[test]
fn the_wait_for_others_is_bounded() {
    let (world, address) = (World::new(), loopback());
    let frozen = Agent::start("ha", &["role=balancer"]);
    frozen.freeze();
    let agent = start_agent(&world, address);
    for other in [frozen.address(), loopback()] {
        let began = Instant::now();
        let run = join_once(&world, address, &other.to_string(), "300ms").code(1);
        assert_eq!(only_line(&run), "serf-run: join: no other member has answered in 300ms");
        assert!((300..10_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }
    drop(agent);
}

#[test]
fn a_signal_ends_it_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (world, address) = (World::new(), loopback());
        let _agent = start_agent(&world, address);
        let ha = Agent::start("ha", &["role=balancer"]);
        let mut join = start_join(&world, address, &ha.address().to_string());
        eventually("it works", || ha.members().contains("s1 "));
        let began = Instant::now();
        join.signal(signal);
        join.wait();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_said_once() {
    let (world, address) = (World::new(), loopback());
    let agent = Agent::start_at(address, "s1", &[]);
    fs::create_dir(world.path("serf")).unwrap();
    let join = start_join(&world, address, "");
    eventually("it is said", || !join.said().is_empty());
    let looks = || agent.log().matches("Accepted client").count();
    let before = looks();
    eventually("it has looked again", || looks() >= before + 2);
    let path = world.path("serf/agent.json");
    let said = format!("serf-run: join: read {}: No such file or directory (os error 2)", path.display());
    assert_eq!(join.said().trim_end(), said);
}
