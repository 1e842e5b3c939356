//! What `sync-nodes` makes of a member list that it is given.

use std::fs;

use assert_cmd::assert::Assert;
use lb_core::publish::lock::Lock;
use lb_fixture::{TEMPLATE, World, assert_help, assert_page, only_line, said, socket};
use predicates::prelude::*;

const TOOL: &str = env!("CARGO_BIN_EXE_sync-nodes");

/// A member list as `serf members -format=json` prints it, of members `(name, address, tags, status)`.
pub(crate) fn list(members: &[(&str, &str, &str, &str)]) -> String {
    let entry = |(name, address, tags, status): &(&str, &str, &str, &str)| {
        let tags: Vec<_> = tags.split(',').filter_map(|tag| tag.split_once('=')).collect();
        let tags: Vec<_> = tags.iter().map(|(key, value)| format!(r#""{key}": "{value}""#)).collect();
        let address = if address.contains(':') { format!("[{address}]") } else { (*address).to_owned() };
        format!(
            r#"{{"name": "{name}", "addr": "{address}:7946", "port": 7946, "tags": {{{}}}, "status": "{status}", "protocol": {{"max": 5, "min": 2, "version": 5}}}}"#,
            tags.join(", ")
        )
    };
    let entries: Vec<_> = members.iter().map(entry).collect();
    format!("{{\n  \"members\": [\n{}\n  ]\n}}\n", entries.join(",\n"))
}

const HA: (&str, &str, &str, &str) = ("ha", "172.18.0.7", "role=balancer", "alive");
const S1: (&str, &str, &str, &str) = ("s1", "172.18.0.2", "role=backend", "alive");
const S2: (&str, &str, &str, &str) = ("s2", "172.18.0.3", "role=backend,weight=50", "alive");

fn sync(world: &World, list: &str) -> Assert {
    world.command(TOOL).args(["--from", "-"]).write_stdin(list).assert()
}

#[test]
fn alive_members_of_the_role_are_registered_and_published() {
    let world = World::new();
    let run = sync(&world, &list(&[HA, S2, S1])).success().stdout("");
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3 weight=50"]);
    assert_eq!(world.servers().len(), 2);
    world.assert_valid();
    let told = [
        "registered s1 172.18.0.2",
        "registered s2 172.18.0.3 weight=50",
        "published generation=1 cause=by-hand applied=file added=s1,s2",
    ];
    assert_eq!(said(&run), told.map(|line| format!("sync-nodes: {line}")));
    assert_eq!(world.log(), said(&run));
}

#[test]
fn a_list_in_a_file_is_as_good() {
    let world = World::new();
    fs::write(world.path("members.json"), list(&[HA, S1])).unwrap();
    world.command(TOOL).arg("--from").arg(world.path("members.json")).assert().success();
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
}

#[test]
fn a_flood_of_members_is_refused_in_one_line() {
    let world = World::new();
    sync(&world, &list(&[HA, S2])).success();
    let names: Vec<String> = (0..50).map(|number| format!("a{number}")).collect();
    let flood: Vec<_> = names.iter().map(|name| (name.as_str(), "172.18.0.9", "role=backend", "alive")).chain([HA, S2]).collect();
    let run = world.command(TOOL).args(["--from", "-", "--max-nodes", "3"]).write_stdin(list(&flood)).assert().code(65);
    let rejected: Vec<_> = said(&run).into_iter().filter(|line| line.contains("rejected")).collect();
    assert_eq!(rejected, ["sync-nodes: 48 nodes rejected: the limit is 3 (--max-nodes, MAX_NODES)"]);
    assert_eq!(world.nodes().len(), 3);
    assert!(world.nodes().contains(&"s2 172.18.0.3 weight=50".to_owned()), "who is there stays");
}

#[test]
fn an_empty_variable_is_one_that_is_not_set() {
    let world = World::new();
    let mut command = world.command(TOOL);
    for name in ["BACKEND_ROLE", "BACKEND_PORT", "MAX_NODES", "SYNC_EVERY", "LOG_CONSOLE"] {
        command.env(name, "");
    }
    command.args(["--from", "-"]).write_stdin(list(&[HA, S1])).assert().success();
    assert_eq!((world.nodes(), world.servers().len()), (vec!["s1 172.18.0.2".to_owned()], 1));
    assert!(world.servers()[0].contains(" 172.18.0.2:3000 "), "{:?}", world.servers());
}

#[test]
fn a_second_run_writes_and_says_nothing() {
    let world = World::new();
    sync(&world, &list(&[HA, S1, S2])).success();
    let before = world.snapshot();
    assert!(said(&sync(&world, &list(&[S2, S1, HA])).success()).is_empty());
    assert_eq!(world.snapshot(), before);
}

#[test]
fn the_registry_follows_every_change_of_the_list() {
    let world = World::new();
    sync(&world, &list(&[HA, S1, S2, ("s3", "172.18.0.4", "role=backend", "alive")])).success();
    let next = [
        HA,
        ("s1", "172.18.0.9", "role=backend", "alive"),
        ("s2", "172.18.0.3", "role=backend,drain=yes,port=8080", "alive"),
        ("s4", "fd00::5", "role=backend", "alive"),
    ];
    let run = sync(&world, &list(&next)).success();
    assert_eq!(world.nodes(), ["s1 172.18.0.9", "s2 172.18.0.3 port=8080 drain=yes", "s4 fd00::5"]);
    let servers = world.servers();
    assert!(servers[0].starts_with("server s1 172.18.0.9:3000 weight 100 "), "{servers:?}");
    assert!(servers[1].starts_with("server s2 172.18.0.3:8080 weight 0 "), "{servers:?}");
    assert!(said(&run).contains(&"sync-nodes: unregistered s3".to_owned()), "{run}");
    world.assert_valid();
}

#[test]
fn members_that_are_not_alive_or_have_another_role_are_no_nodes() {
    for (role, status) in
        [("backend", "failed"), ("backend", "left"), ("backend", "leaving"), ("backend", "none"), ("web", "alive"), ("", "alive")]
    {
        let world = World::new();
        sync(&world, &list(&[HA, S1, S2])).success();
        sync(&world, &list(&[HA, S1, ("s2", "172.18.0.3", &format!("role={role}"), status)])).success();
        assert_eq!(world.nodes(), ["s1 172.18.0.2"], "{role} {status}");
    }
    let world = World::new();
    sync(&world, &list(&[HA, ("x", "172.18.0.9", "port=80", "alive")])).success();
    assert!(world.nodes().is_empty());
}

#[test]
fn a_member_that_no_server_can_be_is_refused_and_the_others_go_in() {
    for (name, address, tags, reason) in [
        ("a/b", "172.18.0.9", "role=backend", "name 'a/b' is not 1 to 128 of"),
        ("..", "172.18.0.9", "role=backend", "name '..' is not 1 to 128 of"),
        ("", "172.18.0.9", "role=backend", "name '' is not 1 to 128 of"),
        ("\\u001b[31m", "172.18.0.9", "role=backend", "name '\\u{1b}[31m' is not 1 to 128 of"),
        ("x\\nserver y", "172.18.0.9", "role=backend", "name 'x\\nserver y' is not 1 to 128 of"),
        ("x", "0.0.0.0", "role=backend", "address 0.0.0.0 is unspecified"),
        ("x", "ff02::1", "role=backend", "address ff02::1 is multicast"),
        ("x", "s9", "role=backend", "address 's9' is not an IPv4 or IPv6 address"),
        ("x", "172.18.0.9", "role=backend,port=0", "port '0' is not 1 to 65535"),
        ("x", "172.18.0.9", "role=backend,weight=999", "weight '999' is not 0 to 256"),
        ("x", "172.18.0.9", "role=backend,drain=perhaps", "drain 'perhaps' is not yes or no"),
    ] {
        let world = World::new();
        let run = sync(&world, &list(&[HA, (name, address, tags, "alive"), S1])).code(65);
        let rejected: Vec<_> = said(&run).into_iter().filter(|line| line.contains("rejected")).collect();
        assert_eq!(rejected.len(), 1, "{rejected:?}");
        assert!(
            rejected[0].starts_with("sync-nodes: member '") && rejected[0].contains(reason),
            "{reason:?} is not in {rejected:?}"
        );
        assert!(world.log().contains(&rejected[0]));
        assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
        assert_eq!(world.servers().len(), 1);
    }
}

#[test]
fn a_node_that_became_invalid_is_taken_out() {
    let world = World::new();
    sync(&world, &list(&[HA, S1, S2])).success();
    sync(&world, &list(&[HA, S1, ("s2", "172.18.0.3", "role=backend,port=none", "alive")])).code(65);
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
}

#[test]
fn a_node_whose_network_is_not_admitted_any_more_is_taken_out() {
    let world = World::new();
    let members = list(&[HA, S1, ("s2", "10.0.1.3", "role=backend", "alive")]);
    sync(&world, &members).success();
    assert_eq!(world.nodes().len(), 2);
    let narrow = ["--from", "-", "--node-networks", "172.18.0.0/16"];
    let run = world.command(TOOL).args(narrow).write_stdin(members.as_str()).assert().code(65);
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
    let rejected = "sync-nodes: member 's2' rejected: address 10.0.1.3 is in none of NODE_NETWORKS (172.18.0.0/16)";
    assert!(said(&run).contains(&rejected.to_owned()), "{run}");
}

#[test]
fn what_is_no_member_list_leaves_the_registry_as_it_is() {
    let good = list(&[HA, ("s9", "172.18.0.9", "role=backend", "alive")]);
    let cut_off = &good[..good.len() - 10];
    let twice = format!("{good}{good}");
    for bad in [
        "",
        "\n",
        cut_off,
        &twice,
        "{}",
        "[]",
        "null",
        r#"{"members": null}"#,
        r#"{"members": {}}"#,
        r#"{"members": [{"name": "s9"}]}"#,
        r#"{"members": [{"name": "s9", "addr": 5, "tags": {}, "status": "alive"}]}"#,
        "Error connecting to Serf agent: connection refused\n",
        "s1  172.18.0.2:7946  alive  role=backend\n",
        "\u{1b}[31m",
    ] {
        let world = World::new();
        sync(&world, &list(&[HA, S1, S2])).success();
        let before = world.snapshot();
        let run = sync(&world, bad).code(1).stdout("");
        assert!(only_line(&run).starts_with("sync-nodes: standard input is not a member list: "), "{run}");
        assert_eq!(world.log().last(), Some(&only_line(&run)));
        assert_eq!(world.snapshot(), before, "{bad:?}");
    }
}

#[test]
fn a_list_that_cannot_be_read_is_named() {
    let world = World::new();
    for (name, reason) in [("missing", "No such file or directory (os error 2)"), ("nodes", "Is a directory (os error 21)")] {
        let path = world.path(name);
        let run = world.command(TOOL).arg("--from").arg(&path).assert().code(1);
        assert_eq!(only_line(&run), format!("sync-nodes: read {}: {reason}", path.display()));
    }
    world.command(TOOL).args(["--from", "-"]).write_stdin(b"\xff\xfe".as_slice()).assert().code(1);
}

#[test]
fn registry_files_that_somebody_broke_are_healed() {
    let world = World::new();
    sync(&world, &list(&[HA, S1, S2])).success();
    fs::write(world.nodes_dir().join("s1"), "s1 172.18.0.99\n").unwrap();
    fs::write(world.nodes_dir().join("s2"), vec![b'x'; 1 << 20]).unwrap();
    fs::write(world.nodes_dir().join("s3"), "half a li").unwrap();
    sync(&world, &list(&[HA, S1, S2])).success();
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3 weight=50"]);
    assert!(world.servers()[0].starts_with("server s1 172.18.0.2:3000 "), "{:?}", world.servers());
}

#[test]
fn a_folder_in_the_registry_does_not_stop_it() {
    let world = World::new();
    sync(&world, &list(&[HA, S1])).success();
    fs::create_dir(world.nodes_dir().join("s9")).unwrap();
    sync(&world, &list(&[HA, S1, S2])).success();
    assert_eq!(world.servers().len(), 2);
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3 weight=50"]);
}

#[test]
fn ten_thousand_members_go_in() {
    let world = World::new();
    let names: Vec<_> = (0..10_000).map(|n| (format!("s{n}"), format!("10.0.{}.{}", n / 250, n % 250 + 1))).collect();
    let members: Vec<_> =
        names.iter().map(|(name, address)| (name.as_str(), address.as_str(), "role=backend", "alive")).collect();
    sync(&world, &list(&members)).success();
    assert_eq!(world.servers().len(), 10_000);
    let before = world.snapshot();
    sync(&world, &list(&members)).success();
    assert_eq!(world.snapshot(), before);
}

#[test]
fn what_is_broken_around_it_keeps_the_last_good_file() {
    type Break = fn(&World);
    let faults: [(Break, &str); 4] = [
        (|world| fs::remove_file(world.template()).unwrap(), "read template "),
        (|world| world.set_template("{{#each addresses}}"), "template "),
        (|world| world.set_template(&TEMPLATE.replace("mode http", "mode htpt")), "HAProxy rejects the configuration: "),
        (|world| fs::remove_dir_all(world.nodes_dir()).unwrap(), "read registry "),
    ];
    for (break_it, reason) in faults {
        let world = World::new();
        sync(&world, &list(&[HA, S1])).success();
        break_it(&world);
        let before = world.config_files();
        let run = sync(&world, &list(&[HA, S1, S2])).code(1);
        assert!(said(&run).last().is_some_and(|line| line.contains(reason)), "{reason:?}: {run}");
        assert_eq!(world.config_files(), before);
    }
}

#[test]
fn a_haproxy_that_does_not_answer_keeps_the_last_good_file() {
    let world = World::new();
    sync(&world, &list(&[HA, S1])).success();
    let _socket = socket::silent(&world.master_socket());
    let before = world.config_files();
    let run = sync(&world, &list(&[HA, S1, S2])).code(1);
    let path = world.master_socket().display().to_string();
    assert_eq!(said(&run).last(), Some(&format!("sync-nodes: HAProxy socket {path}: timed out")));
    assert_eq!(world.config_files(), before);
}

#[test]
fn a_tool_that_holds_the_lock_for_ever_is_waited_for_a_while() {
    let world = World::new();
    let before = world.snapshot();
    let _lock = Lock::take(&world.config()).unwrap();
    let run = sync(&world, &list(&[HA, S1])).code(1);
    assert!(only_line(&run).contains("is still locked by another tool after 5 s"), "{run}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn role_and_port_can_be_chosen() {
    let world = World::new();
    let members = list(&[HA, S1, ("w1", "172.18.0.8", "role=web", "alive")]);
    world.command(TOOL).args(["--from", "-", "--role", "web", "--port", "8000"]).write_stdin(members).assert().success();
    assert_eq!(world.nodes(), ["w1 172.18.0.8"]);
    assert!(world.servers()[0].starts_with("server w1 172.18.0.8:8000 "), "{:?}", world.servers());
}

#[test]
fn wrong_options_exit_2() {
    for options in [
        &["--from", "-", "--follow"][..],
        &["--from", "-", "--wait", "3s"],
        &["--follow", "--wait", "3s"],
        &["--every", "often"],
        &["--frobnicate"],
    ] {
        World::new().command(TOOL).args(options).assert().code(2).stdout("").stderr(predicate::str::starts_with("error: "));
    }
}

#[test]
fn help_is_complete() {
    let paths = ["NODES_DIR", "HAPROXY_TEMPLATE", "HAPROXY_CFG", "HAPROXY_ADMIN_SOCKET", "HAPROXY_MASTER_SOCKET", "SERF_LOG"];
    let others = ["BACKEND_ROLE", "BACKEND_PORT", "SYNC_EVERY", "NODE_NETWORKS"];
    assert_help(World::new().command(TOOL), &[&paths[..], &others].concat());
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    fs::write(world.path("members.json"), list(&[HA, S1, S2])).unwrap();
    assert_page(&world, world.process(TOOL).env("SERF_RPC_ADDR", "127.0.0.1:1"));
}
