//! What could keep `member-join` from ever ending, and with its lock every other tool: it ends all the same.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use lb_fixture::{World, said, socket};

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");
const LINE: &str = "s2\t172.18.0.3\tbackend\t\n";
/// Longest run in these tests, in seconds.
const LIMIT: &str = "3";
const GIVEN_UP: &str = "member-join: timed out after 3s: the next run continues from here";

/// A world in which `s1` was published.
fn published() -> World {
    let world = World::new();
    world.command(TOOL).write_stdin("s1\t172.18.0.2\tbackend\t\n").assert().success();
    world
}

/// Runs the tool on what another program writes, and returns its exit code and its last line.
fn join_output_of(program: &str, argument: &str, world: &World) -> (Option<i32>, String) {
    let mut writer = Command::new(program).arg(argument).stdout(Stdio::piped()).spawn().unwrap();
    let mut tool = world.process("timeout");
    tool.args(["60", TOOL]).env("RUN_LIMIT", LIMIT).stdin(writer.stdout.take().unwrap());
    let output = tool.output();
    writer.kill().unwrap();
    writer.wait().unwrap();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn an_input_that_never_ends_is_given_up() {
    let world = published();
    let before = world.snapshot();
    assert_eq!(join_output_of("sleep", "60", &world), (Some(1), GIVEN_UP.to_owned()));
    assert_eq!(world.log().last().map(String::as_str), Some(GIVEN_UP));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn an_input_of_lines_without_end_is_given_up() {
    let world = published();
    let before = world.snapshot();
    let (code, _) = join_output_of("yes", "s2 172.18.0.3 backend", &world);
    assert_eq!(code, Some(1));
    assert!(world.log().iter().any(|line| line == GIVEN_UP));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_haproxy_that_answers_a_byte_a_second_is_given_up() {
    let world = published();
    let before = world.config_files();
    let _socket = socket::trickles(&world.master_socket(), &"a line without a prompt\n".repeat(100));
    let run = world.command(TOOL).write_stdin(LINE).assert().code(1);
    assert_eq!(said(&run).pop().unwrap(), format!("member-join: HAProxy socket {}: timed out", world.master_socket().display()));
    assert_eq!(world.config_files(), before);
}

#[test]
fn a_fifo_in_the_place_of_a_file_does_not_block() {
    for (file, reason) in [("template/haproxy.cfg.hb", "not a regular file"), ("haproxy/haproxy.cfg", "not a regular file")] {
        let world = published();
        fs::remove_file(world.path(file)).unwrap();
        let made = Command::new("mkfifo").arg(world.path(file)).status().unwrap();
        assert!(made.success());
        let run = world.command(TOOL).write_stdin(LINE).assert().code(1);
        let line = said(&run).pop().unwrap();
        assert!(line.contains(&world.path(file).display().to_string()) && line.ends_with(reason), "{line}");
    }
}

#[test]
fn a_file_of_many_gigabytes_is_not_read() {
    for file in ["template/haproxy.cfg.hb", "haproxy/haproxy.cfg"] {
        let world = published();
        fs::File::create(world.path(file)).unwrap().set_len(20 << 30).unwrap();
        let run = world.command(TOOL).write_stdin(LINE).assert().code(1);
        assert!(said(&run).pop().unwrap().ends_with("larger than 16 MiB"), "{run}");
    }
}

#[test]
fn a_folder_in_the_place_of_the_temporary_file_stops_nobody() {
    for folder in ["nodes/.new", "haproxy/.new"] {
        let world = published();
        fs::create_dir_all(world.path(folder).join("inside")).unwrap();
        world.command(TOOL).write_stdin(LINE).assert().success();
        assert_eq!((world.nodes().len(), world.servers().len()), (2, 2), "{folder}");
    }
}

#[test]
fn a_haproxy_that_hides_while_it_checks_is_given_up() {
    let world = published();
    let program = world.path("bin/haproxy");
    fs::create_dir(world.path("bin")).unwrap();
    fs::write(&program, "#!/bin/sh\nexec >&- 2>&-\nexec sleep 60\n").unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
    let run = world.command(TOOL).env("PATH", path).env("RUN_LIMIT", LIMIT).write_stdin(LINE).assert().code(1);
    assert_eq!(said(&run).last().unwrap(), GIVEN_UP);
}
