//! `scale-nodes` from outside, without a lab: what it says when something is wrong.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use lb_fixture::{Background, World, assert_help, assert_page, eventually, only_line};

const TOOL: &str = env!("CARGO_BIN_EXE_scale-nodes");

#[test]
fn help_is_complete() {
    assert_help(World::new().command(TOOL), &["NETWORK", "PREFIX"]);
}

#[test]
fn options_that_do_not_fit_each_other_are_one_line() {
    for (options, part) in [
        (&["--min", "3", "--max", "2"][..], "--min 3 is more than --max 2"),
        (&["--max", "2", "--up", "5", "--down", "5"], "--down 5 must be more than 0 and less than --up 5"),
        (&["--max", "2", "--up", "inf"], "less than --up inf"),
        (&["--max", "2", "--down", "NaN"], "--down NaN must be"),
        (&["--max", "2", "--down", "0"], "--down 0 must be"),
    ] {
        let line = only_line(&World::new().command(TOOL).args(options).assert().code(2));
        assert!(line.starts_with("scale-nodes: ") && line.contains(part), "{line}");
    }
    for options in [&["--min", "2"][..], &["--max", "0"], &["--max", "51"], &["--max", "two"], &["--max", "2", "--looks", "0"]] {
        let _ = World::new().command(TOOL).args(options).assert().code(2);
    }
}

/// The tool in the background, with a Docker engine that is not there.
fn start(world: &World, socket: &str) -> Background {
    let mut command = world.process(TOOL);
    command.args(["--max", "2", "--every", "100ms", "--socket", socket]).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    Background::start(&mut command)
}

/// Shows that it has said just these things, and goes on without saying them again.
fn says(tool: &mut Background, parts: &[&str]) {
    eventually(&format!("{parts:?} is said"), || tool.said().lines().count() >= parts.len());
    // For some looks more: one takes 0.1 s, and 2 s if nobody answers.
    let began = Instant::now();
    eventually("some looks more", || began.elapsed() > Duration::from_secs(3));
    let said = tool.said();
    assert_eq!(said.lines().count(), parts.len(), "{said}");
    for (line, part) in said.lines().zip(parts) {
        assert!(line.starts_with("scale-nodes: ") && line.contains(part), "{said}");
    }
    assert!(tool.is_running());
}

#[test]
fn a_balancer_that_does_not_answer_is_said_once() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    says(&mut start(&world, &silent.local_addr().unwrap().to_string()), &["nothing can be decided: HAProxy's socket 127.0.0.1:"]);
    says(
        &mut start(&world, "no-such-host.invalid:9999"),
        &["nothing can be decided: HAProxy's socket no-such-host.invalid:9999"],
    );
}

#[test]
fn an_engine_that_does_not_answer_is_said_once_as_soon_as_the_balancer_does() {
    let world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut tool = start(&world, &format!("127.0.0.1:{port}"));
    says(&mut tool, &["Connection refused"]);
    fs::write(
        world.config(),
        format!(
            "global\n stats socket ipv4@127.0.0.1:{port} level user\ndefaults\n mode http\n timeout connect 1s\n timeout client 1s\n \
             timeout server 1s\nbackend nodes\n server s1 127.0.0.1:1\n"
        ),
    )
    .unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.env("PATH", "/usr/sbin:/usr/bin:/bin").arg("-db").arg("-f").arg(world.config());
    let _haproxy = Background::start(&mut haproxy);
    says(&mut tool, &["Connection refused", "nothing can be decided: docker ps: Cannot connect to the Docker daemon"]);
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
