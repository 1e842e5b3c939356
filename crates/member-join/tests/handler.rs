//! What `member-join` does as an event handler of Serf, which sets `SERF_EVENT`.

use std::fs;
use std::io::Read;

use assert_cmd::Command;
use lb_core::wake::{listen, pipe_path};
use lb_fixture::{World, said};

const LINE: &str = "s1\t172.18.0.2\tbackend\t\n";

fn handler(world: &World) -> Command {
    let mut command = world.command(env!("CARGO_BIN_EXE_member-join"));
    command.env("SERF_EVENT", "member-join");
    command
}

#[test]
fn while_sync_nodes_is_alive_it_only_wakes_that() {
    let world = World::new();
    let mut pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    let before = world.snapshot();
    let run = handler(&world).write_stdin(LINE).assert().success();
    assert_eq!(world.snapshot(), before);
    assert_eq!(said(&run), ["member-join: s1 172.18.0.2 is there"]);
    assert_eq!(pipe.read(&mut [0; 8]).unwrap(), 1, "it was not woken");
}

#[test]
fn an_event_without_a_node_wakes_nobody() {
    let world = World::new();
    let mut pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    handler(&world).write_stdin("ha\t172.18.0.7\tbalancer\t\n").assert().success();
    assert!(pipe.read(&mut [0; 8]).is_err(), "somebody was woken");
}

#[test]
fn bad_lines_are_told_also_when_it_only_wakes() {
    let world = World::new();
    let _pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    handler(&world).write_stdin(format!("a/b\t172.18.0.2\tbackend\t\n{LINE}")).assert().code(65);
}

#[test]
fn without_sync_nodes_it_does_the_work() {
    let world = World::new();
    handler(&world).write_stdin(LINE).assert().success();
    assert_eq!((world.nodes().len(), world.servers().len()), (1, 1));
}

#[test]
fn a_pipe_that_a_killed_sync_nodes_left_behind_is_not_taken_for_a_live_one() {
    let world = World::new();
    drop(listen(&pipe_path(&world.master_socket())).unwrap());
    handler(&world).write_stdin(LINE).assert().success();
    assert_eq!((world.nodes().len(), world.servers().len()), (1, 1));
}

#[test]
fn a_person_s_run_does_the_work_also_while_sync_nodes_is_alive() {
    let world = World::new();
    let _pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    world.command(env!("CARGO_BIN_EXE_member-join")).write_stdin(LINE).assert().success();
    assert_eq!((world.nodes().len(), world.servers().len()), (1, 1));
}

#[test]
fn its_lines_also_go_to_the_console_as_serf_keeps_them_to_itself() {
    let world = World::new();
    let console = world.path("console");
    let run = handler(&world).env("LOG_CONSOLE", &console).write_stdin(LINE).assert().success();
    assert_eq!(fs::read_to_string(&console).unwrap().lines().collect::<Vec<_>>(), said(&run));
    assert_eq!(said(&run).len(), 2);
    handler(&world).env("LOG_CONSOLE", "/nonexistent/console").write_stdin(LINE).assert().success();
}
