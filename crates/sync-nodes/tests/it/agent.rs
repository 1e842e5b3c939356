//! `sync-nodes` run once beside a real Serf agent, or where one should be.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use lb_fixture::scripted::scripted_agent;
use lb_fixture::{Agent, World, eventually, loopback, only_line};

/// The tool beside the agent that takes commands at `rpc`.
fn tool(world: &World, rpc: &str) -> Command {
    let mut command = world.command(env!("CARGO_BIN_EXE_sync-nodes"));
    command.env("SERF_RPC_ADDR", rpc);
    command
}

/// Where no agent is.
fn nowhere() -> String {
    format!("{}:7373", loopback())
}

#[test]
fn the_registry_becomes_what_the_agent_knows() {
    let world = World::new();
    let ha = Agent::start("ha", &["role=balancer"]);
    let s1 = Agent::start("s1", &["role=backend", "weight=50"]);
    let s2 = Agent::start("s2", &["role=backend"]);
    [&s1, &s2].iter().for_each(|agent| agent.join(&ha));
    tool(&world, &ha.rpc()).assert().success();
    assert_eq!(world.nodes(), [format!("s1 {} weight=50", s1.address()), format!("s2 {}", s2.address())]);
    assert_eq!(world.servers().len(), 2);
    let before = world.snapshot();
    tool(&world, &ha.rpc()).assert().success();
    assert_eq!(world.snapshot(), before);

    s2.leave();
    s1.tag("drain=yes");
    eventually("the agent knows the change", || {
        ha.members().contains("drain=yes") && !ha.members().lines().any(|line| line.contains("s2") && line.contains("alive"))
    });
    tool(&world, &ha.rpc()).assert().success();
    assert_eq!(world.nodes(), [format!("s1 {} weight=50 drain=yes", s1.address())]);
}

#[test]
fn an_agent_that_knows_nobody_else_yet_removes_nobody() {
    let world = World::new();
    world.register("s1 172.18.0.2");
    let ha = Agent::start("ha", &["role=balancer"]);
    tool(&world, &ha.rpc()).assert().success();
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
    assert_eq!(world.servers().len(), 1);
}

#[test]
fn without_an_agent_everything_stays_as_it_is() {
    let world = World::new();
    world.register("s1 172.18.0.2");
    fs::write(world.config(), "the last good file").unwrap();
    let before = world.snapshot();
    let run = tool(&world, &nowhere()).assert().code(1).stdout("");
    let line = only_line(&run);
    assert!(line.starts_with("sync-nodes: serf agent at 127.") && line.contains(":7373: connection refused"), "{line}");
    assert_eq!(world.log(), [line]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn the_wait_for_an_agent_is_bounded() {
    let world = World::new();
    let start = Instant::now();
    let run = tool(&world, &nowhere()).args(["--wait", "1s"]).assert().code(1);
    let waited = start.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    // Said once, however often it was tried.
    assert!(only_line(&run).contains("connection refused"), "{run}");
}

#[test]
fn an_agent_that_comes_up_during_the_wait_is_asked() {
    let world = World::new();
    let address = loopback();
    thread::scope(|scope| {
        let run = scope.spawn(|| tool(&world, &format!("{address}:7373")).args(["--wait", "20s"]).assert());
        let _s1 = Agent::start_at(address, "s1", &["role=backend"]);
        run.join().unwrap().success();
    });
    assert_eq!(world.nodes(), [format!("s1 {address}")]);
    assert_eq!(world.log().len(), 2, "{:?}", world.log());
}

#[test]
fn an_agent_that_does_not_answer_is_given_up_in_time() {
    let world = World::new();
    world.register("s1 172.18.0.2");
    let ha = Agent::start("ha", &["role=balancer"]);
    ha.freeze();
    let (before, start) = (world.snapshot(), Instant::now());
    let run = tool(&world, &ha.rpc()).assert().code(1);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(only_line(&run), format!("sync-nodes: serf agent at {} did not answer in 3s", ha.rpc()));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn what_is_no_answer_of_an_agent_changes_nothing() {
    // An answer to the handshake, and what comes after it: nothing, no member list at all, one that ends in a name, one
    // that is a number.
    const ANSWERS: [&[u8]; 6] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x82\xa3Seq\x00\xa5Error\xa0",
        b"\x82\xa3Seq\x00\xa5Error\xa0\x82\xa3Seq\x00\xa5Error\xa0\x81\xa7Members\x90",
        b"\x82\xa3Seq\x00\xa5Error\xa0\x82\xa3Seq\x00\xa5Error\xa0\x81\xa7Members\x92\x83\xa4Name\xa5s",
        b"\x82\xa3Seq\x00\xa5Error\xa0\x82\xa3Seq\x00\xa5Error\xa0\x05",
    ];
    let world = World::new();
    world.register("s1 172.18.0.2");
    let before = world.snapshot();
    for answer in ANSWERS {
        let run = tool(&world, &scripted_agent(answer.to_vec())).assert().code(1);
        let line = only_line(&run);
        let told = ["cannot read its answer", "no member at all", "connection reset"].iter().any(|words| line.contains(words));
        assert!(told, "{line}");
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn an_agent_that_wants_a_key_gets_it() {
    let world = World::new();
    let key = world.path("key.json");
    fs::write(&key, r#"{"rpc_auth": "open sesame"}"#).unwrap();
    let ha = Agent::start_with(loopback(), "ha", &["role=backend"], &[OsStr::new("-config-file"), key.as_os_str()]);
    let run = tool(&world, &ha.rpc()).assert().code(1);
    assert!(only_line(&run).contains("Authentication required"), "{run}");
    let run = tool(&world, &ha.rpc()).env("SERF_RPC_AUTH", "wrong").assert().code(1);
    assert!(only_line(&run).contains("auth: Invalid authentication token"), "{run}");
    tool(&world, &ha.rpc()).env("SERF_RPC_AUTH", "open sesame").assert().success();
    assert_eq!(world.nodes().len(), 1);
}

#[test]
fn a_member_with_bytes_that_are_no_text_is_refused_and_the_others_go_in() {
    let world = World::new();
    let ha = Agent::start("ha", &["role=balancer"]);
    let good = Agent::start("s1", &["role=backend"]);
    let bad = Agent::start_with(loopback(), "s2", &["role=backend"], &[OsStr::from_bytes(b"-tag=weight=\xff\xfe")]);
    [&good, &bad].iter().for_each(|agent| agent.join(&ha));
    let run = tool(&world, &ha.rpc()).assert().code(65);
    assert_eq!(world.nodes(), [format!("s1 {}", good.address())]);
    run.stderr(predicates::str::contains("member 's2' rejected: weight '\\u{fffd}\\u{fffd}' is not 0 to 256\n"));
}

#[test]
fn a_member_with_a_bad_tag_is_refused_and_the_others_go_in() {
    let world = World::new();
    let ha = Agent::start("ha", &["role=balancer"]);
    let good = Agent::start("s1", &["role=backend"]);
    let bad = Agent::start("s2", &["role=backend", "port=http"]);
    // The value of a tag may look like further tags; it forges none.
    let forger = Agent::start("s3", &["role=backend", "zone=a,port=81,drain=yes"]);
    let stranger = Agent::start("s4", &["zone=a,role=backend"]);
    [&good, &bad, &forger, &stranger].iter().for_each(|agent| agent.join(&ha));
    let run = tool(&world, &ha.rpc()).assert().code(65);
    assert_eq!(world.nodes(), [format!("s1 {}", good.address()), format!("s3 {}", forger.address())]);
    let rejected = predicates::str::contains("sync-nodes: member 's2' rejected: port 'http' is not 1 to 65535\n");
    run.stderr(rejected);
}
