//! What `member-leave` does with an event, and when something around it is broken.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::io::Read;

use assert_cmd::assert::Assert;
use lb_core::publish::lock::Lock;
use lb_core::tool::wakeup::{listen, pipe_path};
use lb_fixture::{LAB_TEMPLATE, TEMPLATE, World, assert_help, assert_page, said, socket};
use predicates::prelude::*;

const TOOL: &str = env!("CARGO_BIN_EXE_member-leave");

fn leave(world: &World, input: impl Into<Vec<u8>>) -> Assert {
    world.command(TOOL).write_stdin(input).assert()
}

/// A world with these nodes, whose file is as the tools would have written it.
fn world_with(nodes: &[&str]) -> World {
    let world = World::new();
    nodes.iter().for_each(|node| world.register(node));
    // The leave of a node that is not there brings the file up to date.
    leave(&world, "nobody\t\tbackend\t\n").success();
    fs::remove_file(world.log_file()).unwrap();
    world
}

fn two_nodes() -> World {
    world_with(&["s1 172.18.0.2", "s2 172.18.0.3 weight=5"])
}

#[test]
fn a_node_that_leaves_is_removed_from_registry_and_file() {
    let world = two_nodes();
    let run = leave(&world, "s1\t172.18.0.2\tbackend\trole=backend\n").success().stdout("");
    assert_eq!(world.nodes(), ["s2 172.18.0.3 weight=5"]);
    assert_eq!(world.servers().len(), 1);
    assert!(world.servers()[0].starts_with("server s2 "), "{:?}", world.servers());
    assert_eq!(
        said(&run),
        ["member-leave: unregistered s1", "member-leave: published generation=2 cause=by-hand applied=file removed=s1"]
    );
    assert_eq!(world.log(), said(&run));
}

#[test]
fn a_node_that_is_not_known_is_ok_and_writes_nothing() {
    let world = two_nodes();
    let before = world.snapshot();
    let run = leave(&world, "s9\t172.18.0.9\tbackend\t\n").success();
    assert_eq!(world.snapshot(), before);
    assert_eq!(said(&run), ["member-leave: unregistered s9"]);
}

#[test]
fn only_the_name_counts() {
    for line in [
        "s1\t10.9.9.9\tbackend\t\n",
        "s1\t\tbackend\t\n",
        "s1\tnonsense\tbackend\tport=0\n",
        "s1\t172.18.0.2\t\t\n",
        "s1 172.18.0.2 backend\r\n",
        "s1\t172.18.0.2\tbalancer\t",
    ] {
        let world = two_nodes();
        leave(&world, line).success();
        assert_eq!(world.nodes(), ["s2 172.18.0.3 weight=5"], "{line:?}");
    }
}

#[test]
fn several_members_may_leave_at_once() {
    let world = world_with(&["s1 172.18.0.2", "s2 172.18.0.3", "s3 172.18.0.4"]);
    leave(&world, "s3\t172.18.0.4\tbackend\t\nha\t172.18.0.7\tbalancer\t\ns1\t172.18.0.2\tbackend\t\n").success();
    assert_eq!(world.nodes(), ["s2 172.18.0.3"]);
}

#[test]
fn after_the_last_node_the_file_has_no_server_and_is_valid() {
    for template in [TEMPLATE, LAB_TEMPLATE] {
        let world = two_nodes();
        world.set_template(template);
        leave(&world, "s1\t172.18.0.2\tbackend\t\ns2\t172.18.0.3\tbackend\t\n").success();
        assert!(world.nodes().is_empty() && world.servers().is_empty());
        world.assert_valid();
    }
}

#[test]
fn an_empty_stream_is_ok_and_writes_nothing() {
    let world = two_nodes();
    let before = world.snapshot();
    assert!(said(&leave(&world, "\n").success()).is_empty());
    assert_eq!(world.snapshot(), before);
}

#[test]
fn bad_lines_are_refused_each_with_its_reason_and_the_good_ones_go_in() {
    let world = two_nodes();
    let outside = world.path("precious");
    fs::write(&outside, "precious").unwrap();
    let lines: [(&[u8], &str); 6] = [
        (b"../precious\t1.2.3.4\tbackend\t", "name '../precious' is not 1 to 128 of"),
        (b"\t172.18.0.2\tbackend\t", "name '' is not 1 to 128 of"),
        (b"\x1b[2Js1\t172.18.0.2\tbackend\t", "name '\\u{1b}[2Js1' is not 1 to 128 of"),
        (b".\t172.18.0.2\tbackend\t", "name '.' is not 1 to 128 of"),
        (b"s1", "not '<name> <address> <role> [<tags>]'"),
        (b"\xff\t172.18.0.2\tbackend\t", "not UTF-8"),
    ];
    let mut input = lines.map(|(line, _)| line).join(&b'\n');
    input.extend(b"\ns2\t172.18.0.3\tbackend\t\n");
    let run = leave(&world, input).code(65);
    for (number, (_, reason)) in lines.iter().enumerate() {
        let start = format!("member-leave: line {} rejected: {reason}", number + 1);
        assert!(said(&run)[number].starts_with(&start), "{start:?}: {:?}", said(&run)[number]);
    }
    assert_eq!(
        said(&run)[lines.len()..],
        ["member-leave: unregistered s2", "member-leave: published generation=2 cause=by-hand applied=file removed=s2"]
    );
    assert_eq!(world.log(), said(&run));
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
    assert_eq!(fs::read_to_string(outside).unwrap(), "precious");
}

#[test]
fn a_node_file_that_is_a_folder_is_removed_all_the_same() {
    let world = two_nodes();
    leave(&world, "s2\t172.18.0.3\tbackend\t\n").success();
    fs::create_dir(world.nodes_dir().join("s9")).unwrap();
    leave(&world, "s9\t172.18.0.9\tbackend\t\n").success();
    assert!(!world.nodes_dir().join("s9").exists());
}

#[test]
fn what_is_broken_around_it_keeps_the_last_good_file() {
    type Break = fn(&World);
    let faults: [(Break, &str); 6] = [
        (|world| fs::remove_file(world.template()).unwrap(), "read template "),
        (|world| world.set_template("{{#each}"), "template "),
        (|world| world.set_template(&TEMPLATE.replace("mode http", "mode htpt")), "HAProxy rejects the configuration: "),
        (|world| world.set_template(" "), "renders to nothing"),
        (|world| fs::remove_dir_all(world.nodes_dir()).unwrap(), "read registry "),
        (
            |world| fs::remove_dir_all(world.nodes_dir()).and_then(|()| fs::write(world.nodes_dir(), "")).unwrap(),
            "Not a directory",
        ),
    ];
    for (break_it, reason) in faults {
        let world = two_nodes();
        break_it(&world);
        let before = world.config_files();
        let run = leave(&world, "s1\t172.18.0.2\tbackend\t\n").code(1).stdout("");
        let lines = said(&run);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("member-leave: ") && lines[1].contains(reason), "{reason:?} is not in {lines:?}");
        assert_eq!(world.log(), lines);
        assert_eq!(world.config_files(), before);
    }
}

#[test]
fn a_haproxy_that_does_not_answer_keeps_the_last_good_file() {
    let world = two_nodes();
    let _socket = socket::silent(&world.master_socket());
    let before = world.config_files();
    let run = leave(&world, "s1\t172.18.0.2\tbackend\t\n").code(1);
    assert_eq!(said(&run)[1], format!("member-leave: HAProxy socket {}: timed out", world.master_socket().display()));
    assert_eq!(world.config_files(), before);
}

#[test]
fn a_tool_that_holds_the_lock_for_ever_is_waited_for_a_while() {
    let world = two_nodes();
    let before = world.snapshot();
    let _lock = Lock::take(&world.config()).unwrap();
    let run = leave(&world, "s1\t172.18.0.2\tbackend\t\n").code(1);
    assert!(said(&run)[1].contains("is still locked by another tool after 5 s"), "{:?}", said(&run));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn as_a_handler_it_only_wakes_a_live_sync_nodes() {
    let world = two_nodes();
    let handler = || world.command(TOOL).env("SERF_EVENT", "member-failed").write_stdin("s1\t172.18.0.2\tbackend\t\n").assert();
    let mut pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    let before = world.snapshot();
    assert_eq!(said(&handler().success()), ["member-leave: s1 failed: event member-failed"]);
    assert_eq!(world.snapshot(), before);
    assert_eq!(pipe.read(&mut [0; 8]).unwrap(), 1, "it was not woken");
    drop(pipe);
    handler().success();
    assert_eq!(world.nodes(), ["s2 172.18.0.3 weight=5"]);
}

#[test]
fn the_log_tells_a_stop_from_a_death() {
    let world = two_nodes();
    let _pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    let tell = |event: &str, line: &str| {
        world.command(TOOL).env("SERF_EVENT", event).write_stdin(line.to_owned()).assert().success();
    };
    tell("member-leave", "s1\t172.18.0.2\tbackend\t\n");
    tell("member-failed", "s2\t172.18.0.3\tbackend\t\n");
    tell("member-reap", "s2\t172.18.0.3\tbackend\t\n");
    let told = ["s1 left: event member-leave", "s2 failed: event member-failed", "s2 was reaped: event member-reap"];
    assert_eq!(world.log(), told.map(|line| format!("member-leave: {line}")));
}

#[test]
fn at_a_terminal_it_says_what_it_waits_for() {
    let world = World::new();
    // `script` gives it a terminal, and ends the input.
    let run = world.command("script").args(["-qec", TOOL, "/dev/null"]).write_stdin("").assert().success();
    run.stdout(predicate::str::contains("type event lines, NAME ADDRESS ROLE [TAGS], and end them with Ctrl-D"));
}

#[test]
fn help_is_complete() {
    let paths = ["NODES_DIR", "HAPROXY_TEMPLATE", "HAPROXY_CFG", "HAPROXY_ADMIN_SOCKET", "HAPROXY_MASTER_SOCKET", "SERF_LOG"];
    assert_help(World::new().command(TOOL), &[&paths[..], &["BACKEND_ROLE", "BACKEND_PORT"]].concat());
}

#[test]
fn wrong_options_exit_2_and_change_nothing() {
    let world = two_nodes();
    let before = world.snapshot();
    let run = world.command(TOOL).arg("--all").write_stdin("s1\t172.18.0.2\tbackend\t\n").assert().code(2).stdout("");
    run.stderr(predicate::str::starts_with("error: "));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
