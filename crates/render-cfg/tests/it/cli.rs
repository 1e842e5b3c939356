//! What `render-cfg` prints and writes.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use assert_cmd::assert::Assert;
use lb_core::publish::lock::Lock;
use lb_fixture::{LAB_TEMPLATE, TEMPLATE, World, assert_help, assert_page, only_line, said};
use predicates::prelude::*;

const TOOL: &str = env!("CARGO_BIN_EXE_render-cfg");

fn render(world: &World, options: &[&str]) -> Assert {
    world.command(TOOL).args(options).assert()
}

/// What a run printed on standard output.
fn printed(run: &Assert) -> String {
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

fn two_nodes(template: &str) -> World {
    let world = World::with_template(template);
    world.register("s1 172.18.0.2");
    world.register("s2 172.18.0.3 port=8080 weight=5");
    world
}

#[test]
fn the_file_is_written_once_and_left_alone_while_nothing_changes() {
    let world = two_nodes(TEMPLATE);
    let run = render(&world, &[]).success().stdout("");
    assert_eq!(only_line(&run), "render-cfg: published generation=1 cause=by-hand applied=file added=s1,s2");
    assert_eq!(world.log(), said(&run));
    assert_eq!(world.servers().len(), 2);
    assert_eq!(fs::metadata(world.config()).unwrap().permissions().mode() & 0o777, 0o644);
    world.assert_valid();
    let before = world.snapshot();
    assert!(said(&render(&world, &[]).success()).is_empty());
    assert_eq!(world.snapshot(), before);
}

#[test]
fn stdout_prints_the_text_and_writes_nothing() {
    let world = two_nodes(TEMPLATE);
    let before = world.snapshot();
    let run = render(&world, &["--stdout"]).success();
    assert!(said(&run).is_empty() && world.log().is_empty());
    assert_eq!(world.snapshot(), before);
    render(&world, &[]).success();
    assert_eq!(world.text(), printed(&run));
}

#[test]
fn the_lab_s_first_template_has_a_name_and_an_address_from_the_command_line() {
    let world = World::with_template("A node has joined: {{ name }} with the address {{ ip }}\n");
    let options = ["--set", "name=s1", "--set", "ip=172.18.0.3", "--stdout"];
    let run = render(&world, &options).success();
    assert_eq!(printed(&run), "A node has joined: s1 with the address 172.18.0.3\n");
    assert!(said(&run).is_empty());
}

#[test]
fn a_set_value_may_be_empty_or_have_any_text_in_it() {
    let world = World::with_template("{{a}}|{{b}}|{{c}}\n");
    let run = render(&world, &["--set", "a=", "--set", "b=x=y", "--set", "c=<&\"{{a}}", "--stdout"]).success();
    assert_eq!(printed(&run), "|x=y|<&\"{{a}}\n");
}

#[test]
fn a_template_of_the_lab_works_unchanged() {
    let world = two_nodes(LAB_TEMPLATE);
    render(&world, &[]).success();
    assert_eq!(world.servers(), ["server s1 172.18.0.2:3000 check cookie s1", "server s2 172.18.0.3:3000 check cookie s2"]);
    world.assert_valid();
}

#[test]
fn a_registry_without_nodes_gives_a_valid_file() {
    for template in [TEMPLATE, LAB_TEMPLATE] {
        let world = World::with_template(template);
        render(&world, &[]).success();
        assert!(world.servers().is_empty());
        world.assert_valid();
    }
}

#[test]
fn check_tells_whether_haproxy_would_take_the_text_and_writes_nothing() {
    let world = two_nodes(TEMPLATE);
    let before = world.snapshot();
    assert_eq!(only_line(&render(&world, &["--check"]).success().stdout("")), "render-cfg: the configuration is valid");
    world.set_template(&TEMPLATE.replace("check inter 1s", "chekc inter 1s"));
    let line = only_line(&render(&world, &["--check"]).code(1).stdout(""));
    let rendered = String::from_utf8(render(&world, &["--stdout"]).get_output().stdout.clone()).unwrap();
    let server = rendered.lines().position(|line| line.contains("server s1 ")).unwrap() + 1;
    let place = format!("[{}:{server}]", world.config().display());
    assert!(line.starts_with("render-cfg: HAProxy rejects the configuration: "), "{line}");
    assert!(line.contains(&place) && line.contains("unknown keyword 'chekc'"), "{place:?} is not in {line:?}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn check_without_haproxy_does_not_say_that_all_is_well() {
    let world = two_nodes(TEMPLATE);
    let run = world.command(TOOL).arg("--check").env("PATH", "/nonexistent").assert().code(1);
    assert_eq!(only_line(&run), "render-cfg: haproxy is not installed");
}

#[test]
fn diff_prints_what_would_change_and_writes_nothing() {
    let world = two_nodes(LAB_TEMPLATE);
    render(&world, &[]).success();
    render(&world, &["--diff"]).success().stdout("").stderr("");
    fs::remove_file(world.nodes_dir().join("s1")).unwrap();
    world.register("s3 fd00::3");
    let before = world.snapshot();
    let run = render(&world, &["--diff"]).success().stderr("");
    let lines = printed(&run);
    let changed: Vec<_> = lines.lines().filter(|line| line.starts_with(['+', '-'])).map(str::trim_end).collect();
    assert_eq!(
        changed,
        [
            &format!("--- {}", world.config().display()),
            "+++ rendered",
            "-    server s1 172.18.0.2:3000 check cookie s1",
            "+    server s3 fd00::3:3000 check cookie s3",
        ]
    );
    assert_eq!(world.snapshot(), before);
}

#[test]
fn diff_without_a_file_prints_the_whole_text() {
    let world = two_nodes(LAB_TEMPLATE);
    let diff = printed(&render(&world, &["--diff"]).success());
    let added: String = diff.lines().skip(2).filter_map(|line| line.strip_prefix('+')).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(added, printed(&render(&world, &["--stdout"]).success()));
    assert!(!world.config().exists());
}

/// Shows that files which are no node are passed over, each told in one line.
fn assert_passed_over(options: &[&str]) {
    let world = two_nodes(LAB_TEMPLATE);
    fs::write(world.nodes_dir().join("s7"), "s7 nonsense\n").unwrap();
    fs::write(world.nodes_dir().join("s8"), "s1 172.18.0.2\n").unwrap();
    symlink("/etc/hostname", world.nodes_dir().join("s9")).unwrap();
    fs::write(world.nodes_dir().join("evil\n\x1b[31m"), "").unwrap();
    fs::write(world.nodes_dir().join(".new"), "half a li").unwrap();
    let run = render(&world, options).success();
    let told: Vec<_> = said(&run).into_iter().filter(|line| line.contains(": skipped ")).collect();
    assert_eq!(told.len(), 4, "{options:?}: {told:?}");
}

#[test]
fn registry_files_that_are_no_node_are_passed_over_and_told() {
    assert_passed_over(&[]);
}

#[test]
fn registry_files_that_are_no_node_are_told_also_when_nothing_is_written() {
    for option in ["--stdout", "--check", "--diff"] {
        assert_passed_over(&[option]);
    }
}

#[test]
fn output_that_nobody_reads_is_no_crash() {
    let world = World::with_template(LAB_TEMPLATE);
    // More than a pipe holds.
    (0..4_000).for_each(|n| world.register(&format!("s{n} 10.0.{}.{}", n / 250, n % 250 + 1)));
    for options in [&["--stdout"][..], &["--diff"], &["--help"]] {
        let mut child = world.process(TOOL).args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{options:?}: {:?}", output.status);
        assert!(said.lines().count() <= 1 && !said.contains("panic"), "{options:?}: {said}");
    }
}

/// Shows that a template is refused in one line with this reason, and that the last good file stays.
fn assert_refused(template: &str, reason: &str) {
    let world = two_nodes(LAB_TEMPLATE);
    render(&world, &[]).success();
    world.set_template(template);
    let before = world.config_files();
    let line = only_line(&render(&world, &[]).code(1).stdout(""));
    assert!(line.starts_with("render-cfg: ") && line.contains(reason), "{reason:?} is not in {line:?}");
    assert_eq!(world.log().last(), Some(&line));
    assert_eq!(world.config_files(), before);
}

#[test]
fn what_cannot_be_rendered_keeps_the_last_good_file() {
    let line = LAB_TEMPLATE.lines().position(|line| line.contains("{{ host }}")).unwrap() + 1;
    assert_refused(&LAB_TEMPLATE.replace("{{ host }}", "{{ host }"), &format!("line {line}, column "));
    assert_refused(&LAB_TEMPLATE.replace("{{ host }}", "{{ hots }}"), "hots");
    assert_refused("{{#each addresses}}{{/each}}", "renders to nothing");
    assert_refused(&LAB_TEMPLATE.replace("mode http", "mode htpt"), "HAProxy rejects the configuration: ");
}

#[test]
fn what_the_template_has_wrong_on_the_server_line_keeps_the_last_good_file() {
    assert_refused(&LAB_TEMPLATE.replace(":3000 check", ":3000 chekc"), "unknown keyword 'chekc'");
    assert_refused(&LAB_TEMPLATE.replace(":3000 check", ":300000 check"), "HAProxy rejects the configuration: ");
    assert_refused(
        &LAB_TEMPLATE.replace("server {{ host }}", "server {{ ip }}/{{ host }}"),
        "HAProxy rejects the configuration: ",
    );
}

#[test]
fn a_missing_template_or_registry_is_named_whatever_the_output() {
    for options in [&[][..], &["--stdout"], &["--check"], &["--diff"]] {
        let world = two_nodes(TEMPLATE);
        fs::remove_file(world.template()).unwrap();
        let line = only_line(&render(&world, options).code(1).stdout(""));
        assert!(line.starts_with(&format!("render-cfg: read template {}: ", world.template().display())), "{line}");
        fs::remove_dir_all(world.nodes_dir()).unwrap();
        let line = only_line(&render(&world, options).code(1).stdout(""));
        assert!(line.starts_with(&format!("render-cfg: read registry {}: ", world.nodes_dir().display())), "{line}");
    }
}

#[test]
fn only_writing_waits_for_the_lock() {
    let world = two_nodes(TEMPLATE);
    let _lock = Lock::take(&world.config()).unwrap();
    for options in [&["--stdout"], &["--check"], &["--diff"]] {
        render(&world, options).success();
    }
    let run = render(&world, &[]).code(1);
    assert!(only_line(&run).contains("is still locked by another tool after 5 s"), "{run}");
    assert!(!world.config().exists());
}

#[test]
fn wrong_options_exit_2_and_change_nothing() {
    for options in [
        &["--stdout", "--check"][..],
        &["--stdout", "--diff"],
        &["--check", "--diff"],
        &["--set", "name"],
        &["--set", "=value"],
        &["--set", "addresses=none"],
        &["--frobnicate"],
        &["extra"],
    ] {
        let world = two_nodes(TEMPLATE);
        let before = world.snapshot();
        render(&world, options).code(2).stdout("").stderr(predicate::str::starts_with("error: "));
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn help_is_complete() {
    assert_help(
        World::new().command(TOOL),
        &[
            "NODES_DIR",
            "HAPROXY_TEMPLATE",
            "HAPROXY_CFG",
            "BACKEND_PORT",
            "HAPROXY_ADMIN_SOCKET",
            "HAPROXY_MASTER_SOCKET",
            "SERF_LOG",
        ],
    );
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
