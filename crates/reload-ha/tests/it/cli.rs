//! What `reload-ha` does where no HAProxy runs, or something that is none answers. A live HAProxy takes part in the
//! container tests.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::time::{Duration, Instant};

use assert_cmd::assert::Assert;
use lb_core::publish::lock::Lock;
use lb_fixture::{World, assert_help, assert_page, only_line, said, socket};
use predicates::prelude::*;

const TOOL: &str = env!("CARGO_BIN_EXE_reload-ha");

/// Every way to run it that would reach HAProxy.
const WAYS: [&[&str]; 3] = [&[], &["--force"], &["--dry-run"]];

fn reload(world: &World, options: &[&str]) -> Assert {
    world.command(TOOL).args(options).assert()
}

/// A world with a configuration file.
fn world() -> World {
    let world = World::new();
    fs::write(world.config(), "defaults\n    mode http\n").unwrap();
    world
}

/// Shows that it fails in time, in one line that it returns, and leaves the file alone, whatever way it is run.
fn assert_fails(world: &World, options: &[&str]) -> String {
    let (before, start) = (world.config_files(), Instant::now());
    let run = reload(world, options).code(1).stdout("");
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    assert_eq!(world.config_files(), before);
    let line = only_line(&run);
    assert_eq!(world.log().last(), Some(&line));
    line
}

#[test]
fn a_haproxy_that_does_not_run_is_ok_and_told() {
    let world = world();
    let before = world.snapshot();
    for options in [&[][..], &["--force"]] {
        let run = reload(&world, options).success().stdout("");
        assert_eq!(only_line(&run), "reload-ha: HAProxy is not running");
    }
    assert_eq!(world.log(), ["reload-ha: HAProxy is not running"; 2]);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_dry_run_tells_on_standard_output_that_haproxy_does_not_run() {
    let world = world();
    let before = world.snapshot();
    let run = reload(&world, &["--dry-run"]).success().stdout("# HAProxy is not running\n");
    assert!(said(&run).is_empty());
    assert_eq!(world.snapshot(), before);
}

#[test]
fn dead_sockets_mean_that_haproxy_does_not_run() {
    let world = world();
    socket::dead(&world.master_socket());
    socket::dead(&world.admin_socket());
    assert_eq!(only_line(&reload(&world, &[]).success()), "reload-ha: HAProxy is not running");
    reload(&world, &["--dry-run"]).success().stdout("# HAProxy is not running\n");
}

#[test]
fn a_missing_file_is_named() {
    let world = World::new();
    let path = world.config().display().to_string();
    for options in WAYS {
        assert_eq!(assert_fails(&world, options), format!("reload-ha: read {path}: No such file or directory (os error 2)"));
    }
}

#[test]
fn a_missing_directory_is_named() {
    let world = World::new();
    fs::remove_dir(world.path("haproxy")).unwrap();
    for options in WAYS {
        assert!(assert_fails(&world, options).contains(&world.path("haproxy").display().to_string()));
    }
}

#[test]
fn a_haproxy_that_does_not_answer_is_given_up_in_time() {
    let world = world();
    let _socket = socket::silent(&world.master_socket());
    let path = world.master_socket().display().to_string();
    for options in WAYS {
        assert_eq!(assert_fails(&world, options), format!("reload-ha: HAProxy socket {path}: timed out"));
    }
}

#[test]
fn a_haproxy_that_breaks_off_in_its_answer_is_given_up_in_time() {
    let world = world();
    let _socket = socket::breaks_off(&world.master_socket(), "\nmaster> #<PID> ");
    for options in WAYS {
        assert!(assert_fails(&world, options).contains(&world.master_socket().display().to_string()));
    }
}

#[test]
fn a_haproxy_without_master_socket_is_told_how_to_be_started() {
    let world = world();
    let _admin = socket::silent(&world.admin_socket());
    for options in WAYS {
        let line = assert_fails(&world, options);
        assert!(line.ends_with(&format!("start it with -W -S {}", world.master_socket().display())), "{line}");
    }
}

#[test]
fn a_tool_that_holds_the_lock_for_ever_is_waited_for_a_while() {
    let world = world();
    let _lock = Lock::take(&world.config()).unwrap();
    let run = reload(&world, &[]).code(1);
    assert!(only_line(&run).contains("is still locked by another tool after 5 s"), "{run}");
}

#[test]
fn force_and_dry_run_together_are_wrong() {
    reload(&world(), &["--force", "--dry-run"]).code(2).stdout("").stderr(predicate::str::contains("cannot be used with"));
    reload(&world(), &["--frobnicate"]).code(2).stdout("").stderr(predicate::str::starts_with("error: "));
}

#[test]
fn help_is_complete() {
    assert_help(World::new().command(TOOL), &["HAPROXY_CFG", "HAPROXY_ADMIN_SOCKET", "HAPROXY_MASTER_SOCKET", "SERF_LOG"]);
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
