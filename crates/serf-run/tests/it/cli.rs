//! How `serf-run` writes the configuration of a real Serf agent and becomes that.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lb_fixture::{Agent, Background, World, assert_help, assert_page, eventually, loopback, members_at, only_line, said};
use predicates::prelude::*;
use serde_json::{Value, json};

const TOOL: &str = env!("CARGO_BIN_EXE_serf-run");

/// `serf-run` for the node `s1` at this address, which joins nobody.
fn serf_run(world: &World, address: Ipv4Addr) -> Command {
    let mut command = world.process(TOOL);
    command.env("SERF_DIR", world.path("serf")).env("SERF_NODE_NAME", "s1").env("SERF_JOIN", "");
    command.env("SERF_BIND", format!("{address}:7946")).env("SERF_RPC_ADDR", format!("{address}:7373"));
    command
}

/// The same where it is not to start an agent: there is none in its `PATH`.
fn without_serf(world: &World) -> assert_cmd::Command {
    let mut command = serf_run(world, loopback());
    command.env("PATH", "/nonexistent");
    assert_cmd::Command::from_std(command)
}

/// What was written for the agent, without the password, which is another one each time.
fn configuration(world: &World) -> Value {
    let mut written: Value = serde_json::from_slice(&fs::read(world.path("serf/agent.json")).unwrap()).unwrap();
    let password = written.as_object_mut().unwrap().remove("rpc_auth").unwrap();
    assert_eq!(password.as_str().unwrap().len(), 32);
    written
}

/// The configuration that a run with these options and variables writes.
fn configured(options: &[&str], environment: &[(&str, &str)]) -> Value {
    let world = World::new();
    without_serf(&world).args(options).envs(environment.iter().copied()).assert().code(1);
    configuration(&world)
}

#[test]
fn it_becomes_the_agent() {
    let world = World::new();
    let address = loopback();
    let mut command = serf_run(&world, address);
    let agent = Background::start(command.args(["--tag", "weight=50"]));
    eventually("the agent takes commands", || members_at(address, &world.path("serf/rpc-auth")).contains("s1"));
    assert_eq!(agent.program(), "serf", "another process became the agent");
    let members = members_at(address, &world.path("serf/rpc-auth"));
    for word in ["s1 ", &format!("{address}:7946"), "alive", "role=backend", "weight=50"] {
        assert!(members.contains(word), "{word:?} is not in {members:?}");
    }
    assert!(world.log().is_empty());
}

#[test]
fn it_joins_through_the_names_that_it_is_given() {
    let world = World::new();
    let ha = Agent::start("ha", &["role=balancer"]);
    let join = format!("nobody.invalid {}", ha.address());
    let _agent = Background::start(serf_run(&world, loopback()).env("SERF_JOIN", join));
    eventually("the cluster knows the new member", || ha.members().contains("s1 "));
}

#[test]
fn it_joins_when_the_other_one_starts_later() {
    let world = World::new();
    let address = loopback();
    let _agent = Background::start(serf_run(&world, loopback()).env("SERF_JOIN", address.to_string()));
    let ha = Agent::start_at(address, "ha", &["role=balancer"]);
    eventually("the cluster knows the new member", || ha.members().contains("s1 "));
}

#[test]
fn the_configuration_has_role_tags_and_whom_to_join() {
    let written = configured(
        &["--role", "balancer", "--name", "ha", "--join", " one  two ", "--tag", "port=8080", "--tag", "zone=a=b"],
        &[("SERF_BIND", "127.0.0.2:7946"), ("SERF_RPC_ADDR", "127.0.0.2:7373")],
    );
    assert_eq!(written["node_name"], "ha");
    assert_eq!(written["tags"], json!({"role": "balancer", "port": "8080", "zone": "a=b"}));
    assert_eq!(written["retry_join"], json!(["one", "two"]));
    assert_eq!((&written["bind"], &written["rpc_addr"]), (&json!("127.0.0.2:7946"), &json!("127.0.0.2:7373")));
    assert_eq!((written.get("encrypt_key"), written.get("event_handlers")), (None, None));
}

#[test]
fn the_environment_says_the_same_as_the_options() {
    let handlers = "member-join,member-update=member-join;member-leave=member-leave";
    let environment = [
        ("ROLE", "balancer"),
        ("SERF_NODE_NAME", "ha"),
        ("SERF_JOIN", "one two"),
        ("SERF_TAGS", "port=8080,weight=5"),
        ("SERF_EVENT_HANDLERS", handlers),
        ("SERF_PROFILE", "lan"),
    ];
    let written = configured(&[], &environment);
    assert_eq!(written["node_name"], "ha");
    assert_eq!(written["tags"], json!({"role": "balancer", "port": "8080", "weight": "5"}));
    assert_eq!(written["retry_join"], json!(["one", "two"]));
    assert_eq!(written["profile"], "lan");
    assert_eq!(written["event_handlers"], json!(handlers.split(';').collect::<Vec<_>>()));
}

#[test]
fn without_a_name_the_member_is_called_as_the_host() {
    let world = World::new();
    without_serf(&world).env_remove("SERF_NODE_NAME").env_remove("SERF_JOIN").assert().code(1);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(configuration(&world)["node_name"], host.trim());
    assert_eq!(configuration(&world)["retry_join"], json!(["serf-cluster", "ha"]));
}

/// Shows that an empty variable, which a Compose file hands over for one that is not set, is as good as none.
fn assert_empty_is_none(name: &str) {
    let world = World::new();
    let run = without_serf(&world).env(name, "").timeout(Duration::from_secs(5)).assert().code(1);
    assert!(only_line(&run).contains("is it installed?"), "{run}");
    let mut written = configuration(&world);
    // The only parts that differ from world to world.
    for part in ["bind", "rpc_addr", "snapshot_path"] {
        written.as_object_mut().unwrap().remove(part);
    }
    let none = json!({
        "node_name": "s1", "profile": "local", "retry_interval": "2s", "tags": {"role": "backend"},
        "reconnect_timeout": "10m", "tombstone_timeout": "10m",
    });
    assert_eq!(written, none, "{name}");
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let keys = ["SERF_ENCRYPT_KEY", "SERF_ENCRYPT_KEY_FILE"];
    let others = ["SERF_TAGS", "SERF_EVENT_HANDLERS", "SERF_READY", "SERF_READY_TIMEOUT", "SERF_PROFILE"];
    for name in keys.iter().chain(&others).chain(&["LOG_CONSOLE", "LOG_FORMAT", "RUN_LIMIT", "PUBLISH_CAUSE"]) {
        assert_empty_is_none(name);
    }
    let world = World::new();
    without_serf(&world).env("SERF_NODE_NAME", "").assert().code(1);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(configuration(&world)["node_name"], host.trim());
}

#[test]
fn an_empty_role_is_refused() {
    without_serf(&World::new()).env("ROLE", "").assert().code(2).stderr(predicate::str::contains("--role"));
}

#[test]
fn only_its_user_can_read_the_configuration() {
    let world = World::new();
    fs::create_dir(world.path("serf")).unwrap();
    let path = world.path("serf/agent.json");
    // What an earlier one left behind, open to everybody.
    fs::write(&path, "{}").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    without_serf(&world).assert().code(1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(configuration(&world)["node_name"], "s1");
}

#[test]
fn a_key_is_in_the_configuration_and_nowhere_else() {
    let world = World::new();
    let address = loopback();
    let key = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I=";
    let agent = Background::start(serf_run(&world, address).env("SERF_ENCRYPT_KEY", key));
    eventually("the agent takes commands", || members_at(address, &world.path("serf/rpc-auth")).contains("s1"));
    assert!(agent.said().contains("Encrypted: true"), "{}", agent.said());
    assert_eq!(configuration(&world)["encrypt_key"], key);
    for place in [agent.command_line(), agent.said(), members_at(address, &world.path("serf/rpc-auth")), world.log().concat()] {
        assert!(!place.contains(key), "{place}");
    }
    let with_key: Vec<_> = fs::read_dir(world.path("serf")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let with_key = with_key.iter().filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(key)));
    assert_eq!(with_key.collect::<Vec<_>>(), [&world.path("serf/agent.json")]);
}

/// On a host that others use, they could read the gossip key, or make the member leave.
#[test]
fn the_agent_takes_commands_from_its_user_alone() {
    let world = World::new();
    let address = loopback();
    let password = world.path("serf/rpc-auth");
    let start = || {
        let agent = Background::start(&mut serf_run(&world, address));
        eventually("the agent takes commands", || members_at(address, &password).contains("s1"));
        (agent, fs::read_to_string(&password).unwrap())
    };
    let (agent, first) = start();
    assert_eq!(members_at(address, Path::new("")), "", "without the password");
    assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!agent.command_line().contains(&first) && !agent.said().contains(&first), "{}", agent.said());
    let check = |directory: &str| {
        let rpc = format!("{address}:7373");
        world.command(TOOL).arg("tell-address").env("SERF_RPC_ADDR", rpc).env("SERF_DIR", directory).write_stdin("s1").assert()
    };
    check(world.path("serf").to_str().unwrap()).success().stdout(format!("{address} alive\n"));
    check("/nonexistent").code(1).stderr(predicate::str::contains("Authentication required"));
    drop(agent);
    assert_ne!(start().1, first, "a new one at each start");
}

#[test]
fn the_key_can_be_in_a_file() {
    let (world, key) = (World::new(), "cg8StVXbQJ0gPvMd9o7yrg==");
    let path = world.path("key");
    fs::write(&path, format!("{key}\n")).unwrap();
    let run = |path: &Path| without_serf(&world).env("SERF_ENCRYPT_KEY_FILE", path).env("SERF_ENCRYPT_KEY", "other").assert();
    run(&path).code(1);
    assert_eq!(configuration(&world)["encrypt_key"], key, "the file comes before the variable");
    let before = fs::read(world.path("serf/agent.json")).unwrap();
    for (bad, reason) in [("", "has no gossip key"), ("two words", "has no gossip key")] {
        fs::write(&path, bad).unwrap();
        let line = only_line(&run(&path).code(1));
        assert!(line.starts_with("serf-run: ") && line.contains(reason) && !line.contains("two words"), "{line}");
    }
    let line = only_line(&run(Path::new("/nonexistent")).code(1));
    assert!(line.starts_with("serf-run: read the gossip key /nonexistent: "), "{line}");
    assert_eq!(fs::read(world.path("serf/agent.json")).unwrap(), before, "without its key no agent may start");
}

#[test]
fn a_key_that_is_none_is_refused_and_not_repeated() {
    let world = World::new();
    let mut agent = Background::start(serf_run(&world, loopback()).env("SERF_ENCRYPT_KEY", "not-a-key-at-all"));
    assert!(!agent.wait().success());
    assert!(!agent.said().contains("not-a-key") && agent.said().to_lowercase().contains("key"), "{}", agent.said());
}

#[test]
fn a_name_that_the_cluster_refused_gets_a_number() {
    let world = World::new();
    fs::create_dir(world.path("serf")).unwrap();
    for (refusals, name) in [("", "s1"), ("refused\n", "s1-2"), ("refused\nrefused\n", "s1-3")] {
        fs::write(world.path("serf/name-refused"), refusals).unwrap();
        without_serf(&world).assert().code(1);
        assert_eq!(configuration(&world)["node_name"], name);
    }
}

#[test]
fn without_serf_it_says_so() {
    let world = World::new();
    let run = without_serf(&world).assert().code(1).stdout("");
    assert!(only_line(&run).starts_with("serf-run: start serf; is it installed?: "), "{run}");
    assert_eq!(world.log(), said(&run));
}

#[test]
fn a_directory_that_cannot_be_made_or_written_is_named() {
    let world = World::new();
    fs::write(world.path("file"), "").unwrap();
    for (directory, what) in [("file/serf", "make"), ("file", "make")] {
        let directory = world.path(directory);
        let run = without_serf(&world).env("SERF_DIR", &directory).assert().code(1);
        assert!(only_line(&run).starts_with(&format!("serf-run: {what} {}: ", directory.display())), "{run}");
    }
    fs::create_dir_all(world.path("serf/agent.json")).unwrap();
    let run = without_serf(&world).assert().code(1);
    assert!(only_line(&run).starts_with(&format!("serf-run: write {}: ", world.path("serf/agent.json").display())), "{run}");
}

#[test]
fn wrong_options_exit_2_and_write_nothing() {
    for options in [
        &["--tag", "weight"][..],
        &["--tag", "=5"],
        &["--tag", "role=balancer"],
        &["--tag", "port=80,weight"],
        &["--ready-timeout", "soon"],
        &["--frobnicate"],
        &["agent"],
        &["--name", "s1", "join"],
        &["check-ready", "--name", "s1"],
    ] {
        let world = World::new();
        without_serf(&world).args(options).assert().code(2).stdout("").stderr(predicate::str::starts_with("error: "));
        assert!(!world.path("serf").exists(), "{options:?}");
    }
}

#[test]
fn help_is_complete() {
    let serf = ["SERF_NODE_NAME", "SERF_JOIN", "SERF_TAGS", "SERF_EVENT_HANDLERS", "SERF_BIND", "SERF_RPC_ADDR", "SERF_DIR"];
    let others = ["ROLE", "SERF_READY", "SERF_READY_TIMEOUT", "SERF_LOG"];
    assert_help(World::new().command(TOOL), &[&serf[..], &others].concat());
    World::new().command(TOOL).arg("--help").assert().stdout(predicate::str::contains("SERF_ENCRYPT_KEY"));
    for (command, variable) in [("join", "SERF_JOIN"), ("check-ready", "SERF_READY"), ("tell-address", "SERF_LOG")] {
        World::new().command(TOOL).args([command, "--help"]).assert().success().stdout(predicate::str::contains(variable));
    }
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
