//! What `member-join` does when something around it is broken: one clear line, exit 1, the last good file stays.
#![allow(clippy::indexing_slicing, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use assert_cmd::assert::Assert;
use lb_core::publish::lock::Lock;
use lb_fixture::{TEMPLATE, World, said, socket};

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");

fn join(world: &World, line: &str) -> Assert {
    world.command(TOOL).write_stdin(line).assert()
}

/// A world in which `s1` was published.
fn published() -> World {
    let world = World::new();
    join(&world, "s1\t172.18.0.2\tbackend\t\n").success();
    world
}

/// Shows that a second node cannot be published, that the file stays as it is, and returns the one line that says why.
/// (The line before it says whether the node is registered.)
fn assert_fails(world: &World) -> String {
    let before = world.config_files();
    let run = join(world, "s2\t172.18.0.3\tbackend\t\n").code(1).stdout("");
    assert_eq!(world.config_files(), before);
    let mut lines = said(&run);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let is_registered = world.path("nodes/s2").is_file();
    let registered = if is_registered { "registered s2 172.18.0.3" } else { "not registered: s2 172.18.0.3" };
    assert_eq!(lines[0], format!("member-join: {registered}"));
    assert!(world.log().ends_with(&lines), "{lines:?}");
    lines.remove(1)
}

/// Shows that it takes no longer than the tool's own deadlines of some seconds and what a busy machine adds.
fn assert_bounded(what: &str, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    assert!(start.elapsed() < Duration::from_secs(15), "{what} took {:?}", start.elapsed());
}

#[test]
fn a_broken_template_keeps_the_last_good_file() {
    let line_of = |text: &str| TEMPLATE.lines().position(|line| line.contains(text)).unwrap() + 1;
    let server = line_of("server {{host}}");
    for (template, said_of_it) in [
        (TEMPLATE.replace("{{host}} {{ip}}", "{{host {{ip}}"), format!("line {server}, column ")),
        (TEMPLATE.replace("{{/each}}", ""), "line ".to_owned()),
        (TEMPLATE.replace("{{/each}}", "{{/if}}"), format!("line {}, column ", line_of("{{/each}}"))),
        (TEMPLATE.replace("{{host}} {{ip}}", "{{hots}} {{ip}}"), format!("line {server}, column 12: ")),
        (TEMPLATE.replace("{{host}} {{ip}}", "{{hots}} {{ip}}"), "hots".to_owned()),
        ("{{#each addresses}}{{/each}}\n".to_owned(), " renders to nothing".to_owned()),
        (String::new(), " renders to nothing".to_owned()),
    ] {
        let world = published();
        world.set_template(&template);
        let line = assert_fails(&world);
        let start = format!("member-join: template {}", world.template().display());
        assert!(line.starts_with(&start) && line.contains(&said_of_it), "{said_of_it:?} is not in {line:?}");
    }
}

#[test]
fn a_missing_template_is_named() {
    let world = published();
    fs::remove_file(world.template()).unwrap();
    let path = world.template().display().to_string();
    assert_eq!(assert_fails(&world), format!("member-join: read template {path}: No such file or directory (os error 2)"));
}

#[test]
fn what_haproxy_refuses_keeps_the_last_good_file_and_is_told_in_its_words() {
    for (good, bad, its_words) in [
        ("balance roundrobin", "balance roundrobbin", "balance"),
        ("mode http", "mode htpt", "htpt"),
        ("default_backend {{fallback}}", "default_backend nodse", "nodse"),
        ("frontend stats", "frontedn stats", "frontedn"),
    ] {
        let world = published();
        world.set_template(&TEMPLATE.replace(good, bad));
        let line = assert_fails(&world);
        assert!(line.starts_with("member-join: HAProxy rejects the configuration: ") && line.contains(its_words), "{line}");
        assert!(!line.contains("/dev/stdin"), "{line}");
    }
}

/// The parts of a server line that come from a node are checked, those that come from the template are not.
#[test]
fn a_misspelt_word_on_the_server_line_keeps_the_last_good_file() {
    let world = published();
    world.set_template(&TEMPLATE.replace("check inter 1s", "chekc inter 1s"));
    let line = assert_fails(&world);
    assert!(line.contains("chekc"), "{line}");
}

#[test]
fn a_node_because_of_which_haproxy_refuses_the_whole_is_left_out() {
    let world = World::new();
    // The template has a server of its own, named as a node is.
    world.set_template(&TEMPLATE.replace("{{#each nodes}}", "    server s2 172.18.0.99:3000\n{{#each nodes}}"));
    let run = join(&world, "s1\t172.18.0.4\tbackend\t\ns2\t172.18.0.2\tbackend\t\ns3\t172.18.0.3\tbackend\t\n").code(65);
    let said = said(&run);
    let excluded = said.iter().find(|line| line.contains("excluded")).unwrap();
    assert!(excluded.starts_with("member-join: s2 excluded: HAProxy rejects it: ") && excluded.contains("'s2'"), "{excluded}");
    let config = world.text();
    assert!(config.contains("server s1 ") && config.contains("server s3 ") && !config.contains("172.18.0.2:"), "{config}");
    world.assert_valid();
    // The registry has it, so that a mended template takes it in.
    world.set_template(TEMPLATE);
    join(&world, "s3\t172.18.0.3\tbackend\t\n").success();
    assert!(world.text().contains("server s2 172.18.0.2:3000"));
}

#[test]
fn a_mended_template_takes_effect_at_the_next_run() {
    let world = published();
    world.set_template("{{nonsense}}");
    assert_fails(&world);
    world.set_template(TEMPLATE);
    join(&world, "").success();
    join(&world, "s2\t172.18.0.3\tbackend\t\n").success();
    assert_eq!(world.servers().len(), 2);
}

#[test]
fn a_registry_that_is_missing_or_no_directory_is_named() {
    let world = published();
    fs::remove_dir_all(world.nodes_dir()).unwrap();
    let line = assert_fails(&world);
    let path = world.nodes_dir().display().to_string();
    assert!(line.contains(&path) && line.ends_with("No such file or directory (os error 2)"), "{line}");
    fs::write(world.nodes_dir(), "").unwrap();
    let line = assert_fails(&world);
    assert!(line.contains(&path) && line.ends_with("Not a directory (os error 20)"), "{line}");
}

#[test]
fn a_directory_of_the_configuration_that_is_missing_or_none_is_named() {
    let world = World::new();
    let directory = world.path("haproxy");
    fs::remove_dir(&directory).unwrap();
    let line = assert_fails(&world);
    assert_eq!(line, format!("member-join: lock {}: No such file or directory (os error 2)", directory.display()));
    fs::write(&directory, "").unwrap();
    let line = assert_fails(&world);
    assert!(line.contains(&directory.display().to_string()) && line.ends_with("Not a directory (os error 20)"), "{line}");
}

#[test]
fn a_configuration_that_is_a_directory_is_named() {
    let world = World::new();
    fs::create_dir(world.config()).unwrap();
    let path = world.config().display().to_string();
    assert_eq!(assert_fails(&world), format!("member-join: read {path}: Is a directory (os error 21)"));
}

#[test]
fn a_tool_that_holds_the_lock_for_ever_is_waited_for_a_while() {
    let world = published();
    let lock = Lock::take(&world.config()).unwrap();
    assert_bounded("the wait for the lock", || {
        let line = assert_fails(&world);
        let directory = world.path("haproxy").display().to_string();
        assert_eq!(
            line,
            format!("member-join: {directory} is still locked by another tool after 5 s: look for a tool that hangs")
        );
    });
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
    drop(lock);
    join(&world, "s2\t172.18.0.3\tbackend\t\n").success();
    assert_eq!(world.servers().len(), 2);
}

#[test]
fn a_dead_socket_means_that_haproxy_does_not_run() {
    let world = World::new();
    socket::dead(&world.master_socket());
    socket::dead(&world.admin_socket());
    let run = join(&world, "s1\t172.18.0.2\tbackend\t\n").success();
    assert_eq!(said(&run)[1], "member-join: published generation=1 cause=by-hand applied=file added=s1");
    assert_eq!(world.servers().len(), 1);
}

#[test]
fn a_haproxy_that_does_not_answer_is_given_up_in_time() {
    let world = published();
    let _socket = socket::silent(&world.master_socket());
    assert_bounded("a silent socket", || {
        let line = assert_fails(&world);
        assert_eq!(line, format!("member-join: HAProxy socket {}: timed out", world.master_socket().display()));
    });
}

#[test]
fn a_haproxy_that_does_not_even_accept_is_given_up_in_time() {
    let world = published();
    let _socket = socket::full(&world.master_socket());
    assert_bounded("a full socket", || {
        let line = assert_fails(&world);
        assert_eq!(line, format!("member-join: HAProxy socket {}: timed out", world.master_socket().display()));
    });
}

#[test]
fn a_haproxy_that_breaks_off_in_its_answer_is_given_up_in_time() {
    for half in ["", "\nmaster> #<PID> \x1b[31m"] {
        let world = published();
        let _socket = socket::breaks_off(&world.master_socket(), half);
        assert_bounded("half an answer", || {
            let line = assert_fails(&world);
            assert!(line.contains(&world.master_socket().display().to_string()), "{half:?}: {line}");
        });
    }
}

#[test]
fn a_haproxy_without_master_socket_is_told_how_to_be_started() {
    let world = published();
    let _admin = socket::silent(&world.admin_socket());
    let (admin, master) = (world.admin_socket(), world.master_socket());
    let (admin, master) = (admin.display(), master.display());
    assert_eq!(
        assert_fails(&world),
        format!("member-join: HAProxy answers on {admin}, but not on its master socket {master}: start it with -W -S {master}")
    );
}

#[test]
fn a_socket_that_is_none_is_named() {
    let world = published();
    fs::write(world.master_socket(), "").unwrap();
    fs::write(world.admin_socket(), "").unwrap();
    // The system refuses such a connection as it does one to a dead socket.
    join(&world, "s2\t172.18.0.3\tbackend\t\n").success();
    let long = world.path(&"x".repeat(120));
    let run = world.command(TOOL).env("HAPROXY_MASTER_SOCKET", &long).write_stdin("s3\t172.18.0.4\tbackend\t\n").assert().code(1);
    assert!(said(&run)[1].contains(&long.display().to_string()), "{:?}", said(&run));
}

#[test]
fn a_place_that_everybody_may_write_to_is_refused_with_the_way_out() {
    for (name, mode, start) in [
        ("template", 0o777, "read template "),
        ("template/haproxy.cfg.hb", 0o666, "read template "),
        ("nodes", 0o1777, "read registry "),
        ("haproxy", 0o777, "lock "),
        ("run", 0o777, "HAProxy socket "),
    ] {
        let world = published();
        let place = world.path(name);
        fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
        let line = assert_fails(&world);
        let way_out = format!("anyone can write to it, and so control HAProxy: chmod o-w {}", place.display());
        assert!(line.starts_with(&format!("member-join: {start}")) && line.ends_with(&way_out), "{name}: {line}");
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    for (path, reason) in
        [("missing/serf.log", "No such file or directory"), ("nodes", "Is a directory"), ("loop", "symbolic link")]
    {
        let world = World::new();
        symlink(world.path("loop"), world.path("loop")).unwrap();
        let input = "a/b\t172.18.0.2\tbackend\t\ns1\t172.18.0.2\tbackend\t\n";
        let run = world.command(TOOL).env("SERF_LOG", world.path(path)).write_stdin(input).assert().code(65);
        assert_eq!(world.servers().len(), 1, "{path}");
        // It is told once, however many lines there are.
        let about_the_log: Vec<_> = said(&run).into_iter().filter(|line| line.contains("log file ")).collect();
        assert_eq!(about_the_log.len(), 1, "{path}: {:?}", said(&run));
        assert!(about_the_log[0].contains(reason), "{about_the_log:?}");
        assert_eq!(said(&run).len(), 4, "{path}");
    }
}

#[test]
fn a_machine_without_haproxy_gets_its_file() {
    let world = World::new();
    world.command(TOOL).env("PATH", "/nonexistent").write_stdin("s1\t172.18.0.2\tbackend\t\n").assert().success();
    assert_eq!(world.servers().len(), 1);
}

#[test]
fn of_an_event_that_fails_half_way_the_log_says_which_nodes_are_registered() {
    let world = published();
    // What is in the way of s3 cannot be set aside, because something else was before.
    for directory in ["nodes/s3/in", "nodes/.s3.aside/in"] {
        fs::create_dir_all(world.path(directory)).unwrap();
    }
    let run = join(&world, "s2\t172.18.0.3\tbackend\t\ns3\t172.18.0.4\tbackend\t\ns4\t172.18.0.5\tbackend\t\n").code(1);
    let lines = said(&run);
    let expected = ["registered s2 172.18.0.3", "not registered: s3 172.18.0.4", "not registered: s4 172.18.0.5"];
    let expected = expected.map(|line| format!("member-join: {line}"));
    assert_eq!(lines.get(..3), Some(&expected[..]), "{lines:?}");
    assert!(lines.len() == 4 && lines[3].starts_with("member-join: write "), "{lines:?}");
    assert!(world.path("nodes/s2").is_file() && !world.path("nodes/s4").exists());
}
