//! `deploy-nodes` from outside, without a lab: what it says when something is wrong.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use lb_fixture::{World, assert_help, assert_page, only_line};

const TOOL: &str = env!("CARGO_BIN_EXE_deploy-nodes");

#[test]
fn help_is_complete() {
    assert_help(World::new().command(TOOL), &["NETWORK", "PREFIX"]);
}

#[test]
fn an_engine_that_does_not_answer_is_one_line() {
    let world = World::new();
    let mut command = world.command(TOOL);
    let line = only_line(&command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").assert().code(1));
    assert!(line.starts_with("deploy-nodes: docker image inspect: Cannot connect to the Docker daemon"), "{line}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [["--at-once", "0"], ["--at-once", "51"], ["--drain", "long"], ["--idle", "-1s"], ["--ready-within", "5"]] {
        let _ = World::new().command(TOOL).args(options).assert().code(2);
    }
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
