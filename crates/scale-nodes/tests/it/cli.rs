//! `scale-nodes` from outside, without a lab: what it says when something is wrong.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::env;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

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

/// The tool in the background. Its `docker` is the machine's, with an engine that is not there, and adds a line to the
/// file `asked` each time.
fn start(world: &World, socket: &str) -> Background {
    let folder = world.path("docker");
    fs::create_dir(&folder).unwrap();
    let docker = folder.join("docker");
    let script = format!("#!/bin/sh\necho \"$1\" >>{}\nPATH=${{PATH#*:}} exec docker \"$@\"\n", world.path("asked").display());
    fs::write(&docker, script).unwrap();
    fs::set_permissions(&docker, Permissions::from_mode(0o755)).unwrap();
    let mut command = world.process(TOOL);
    command.args(["--max", "2", "--every", "100ms", "--socket", socket]).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    command.env("PATH", format!("{}:{}", folder.display(), env::var("PATH").unwrap()));
    Background::start(&mut command)
}

/// Shows that it says just these things, and none of them again when it has looked once more; `looks` counts its looks as
/// they begin.
fn says(tool: &mut Background, parts: &[&str], looks: impl Fn() -> usize) {
    eventually(&format!("{parts:?} is said"), || tool.said().lines().count() >= parts.len());
    let before = looks();
    eventually("a look more is over", || looks() >= before + 2);
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
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in socket.incoming() {
            held.push(stream);
            counted.store(held.len(), Ordering::Relaxed);
        }
    });
    let line = format!("nothing can be decided: HAProxy socket {address}");
    says(&mut start(&world, &address), &[&line], || looks.load(Ordering::Relaxed));
}

#[test]
fn a_balancer_whose_name_leads_nowhere_is_said_once() {
    let world = World::new();
    let mut tool = start(&world, "no-such-host.invalid:9999");
    let status = format!("/proc/{}/status", tool.pid());
    // It waits at least once a look, for the next one; the name server is waited for a few times.
    let looks = || {
        let status = fs::read_to_string(&status).unwrap();
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        waits.trim().parse::<usize>().unwrap() / 20
    };
    says(&mut tool, &["nothing can be decided: HAProxy socket no-such-host.invalid:9999"], looks);
    assert!(tool.is_running());
}

#[test]
fn an_engine_that_does_not_answer_is_said_once_as_soon_as_the_balancer_does() {
    let world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut tool = start(&world, &format!("127.0.0.1:{port}"));
    eventually("the balancer is missed", || tool.said().contains("Connection refused"));
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
    let looks = || fs::read_to_string(world.path("asked")).unwrap_or_default().lines().count();
    says(&mut tool, &["Connection refused", "nothing can be decided: docker ps: Cannot connect to the Docker daemon"], looks);
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
