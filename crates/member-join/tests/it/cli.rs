//! What `member-join` does with an event.

use std::fs;

use assert_cmd::assert::Assert;
use lb_fixture::{World, assert_help, assert_page, said};
use predicates::prelude::*;

const TOOL: &str = env!("CARGO_BIN_EXE_member-join");

fn join(world: &World, input: &str) -> Assert {
    world.command(TOOL).write_stdin(input).assert()
}

#[test]
fn a_node_is_registered_and_the_file_written() {
    let world = World::new();
    let run = join(&world, "s1\t172.18.0.2\tbackend\trole=backend\n").success().stdout("");
    assert_eq!(world.nodes(), ["s1 172.18.0.2"]);
    let line =
        "server s1 172.18.0.2:3000 weight 100 check inter 1s fall 2 rise 1 observe layer4 error-limit 2 on-error mark-down";
    assert_eq!(world.servers(), [line]);
    world.assert_valid();
    assert_eq!(
        said(&run),
        ["member-join: registered s1 172.18.0.2", "member-join: published generation=1 cause=by-hand applied=file added=s1"]
    );
    assert_eq!(world.log(), said(&run));
}

#[test]
fn a_second_run_writes_nothing() {
    let world = World::new();
    join(&world, "s1\t172.18.0.2\tbackend\tport=8080\n").success();
    let before = world.snapshot();
    let run = join(&world, "s1\t172.18.0.2\tbackend\tport=8080\n").success();
    assert_eq!(world.snapshot(), before);
    assert_eq!(said(&run), ["member-join: registered s1 172.18.0.2 port=8080"]);
}

#[test]
fn an_update_replaces_address_and_tags() {
    let world = World::new();
    join(&world, "s1\t172.18.0.2\tbackend\tweight=5\ns2\t172.18.0.3\tbackend\t\n").success();
    join(&world, "s1\t172.18.0.9\tbackend\tport=80\n").success();
    assert_eq!(world.nodes(), ["s1 172.18.0.9 port=80", "s2 172.18.0.3"]);
    let servers = world.servers();
    assert!(servers[0].starts_with("server s1 172.18.0.9:80 weight 100 "), "{servers:?}");
    assert!(servers[1].starts_with("server s2 172.18.0.3:3000 "), "{servers:?}");
}

#[test]
fn tags_show_in_node_file_and_server_line() {
    for (tags, node, server) in [
        ("", "s1 172.18.0.2", "server s1 172.18.0.2:3000 weight 100 "),
        ("port=8080", "s1 172.18.0.2 port=8080", "server s1 172.18.0.2:8080 weight 100 "),
        ("role=backend,weight=50", "s1 172.18.0.2 weight=50", "server s1 172.18.0.2:3000 weight 50 "),
        ("weight=256,drain=no", "s1 172.18.0.2 weight=256", "server s1 172.18.0.2:3000 weight 256 "),
        ("weight=0,port=1", "s1 172.18.0.2 port=1 weight=0", "server s1 172.18.0.2:1 weight 0 "),
        ("drain=yes", "s1 172.18.0.2 drain=yes", "server s1 172.18.0.2:3000 weight 0 "),
        ("drain=yes,weight=7", "s1 172.18.0.2 weight=7 drain=yes", "server s1 172.18.0.2:3000 weight 0 "),
        ("zone=a,colour=red", "s1 172.18.0.2", "server s1 172.18.0.2:3000 weight 100 "),
    ] {
        let world = World::new();
        join(&world, &format!("s1\t172.18.0.2\tbackend\t{tags}\n")).success();
        assert_eq!(world.nodes(), [node], "{tags}");
        assert!(world.servers()[0].starts_with(server), "{tags}: {:?}", world.servers());
        world.assert_valid();
    }
}

#[test]
fn columns_are_separated_by_tabs_or_spaces_and_lines_end_as_on_windows_or_not_at_all() {
    for line in [
        "s1\t172.18.0.2\tbackend\tport=8080\n",
        "s1 172.18.0.2 backend port=8080\n",
        "  s1   172.18.0.2   backend   port=8080  \n",
        "s1\t172.18.0.2\tbackend\tport=8080\r\n",
        "s1 172.18.0.2 backend port=8080\r\n",
        "\r\n\n  \ns1\t172.18.0.2\tbackend\tport=8080",
    ] {
        let world = World::new();
        join(&world, line).success();
        assert_eq!(world.nodes(), ["s1 172.18.0.2 port=8080"], "{line:?}");
    }
}

#[test]
fn members_of_another_role_are_passed_over() {
    for (line, said_of_it) in [
        ("ha\t172.18.0.9\tbalancer\trole=balancer\n", "'ha' has the role 'balancer', not load-balanced"),
        ("x\t172.18.0.9\t\tport=80\n", "'x' has the role '', not load-balanced"),
        ("x\t172.18.0.9\tBackend\t\n", "'x' has the role 'Backend', not load-balanced"),
        // What Serf hands over for a tag `x` with the value `1,role=backend`: a forged role.
        ("x\t172.18.0.9\t\tx=1,role=backend\n", "'x' has the role '', not load-balanced"),
        ("x\t172.18.0.9\tbalancer\trole=backend\n", "'x' has the role 'balancer', not load-balanced"),
    ] {
        let world = World::new();
        let before = world.snapshot();
        let run = join(&world, line).success();
        assert_eq!(said(&run), [format!("member-join: {said_of_it}")]);
        assert_eq!(world.snapshot(), before, "{line:?}");
    }
}

#[test]
fn an_empty_stream_is_ok_and_writes_nothing() {
    for input in ["", "\n", "\r\n  \n\t\n"] {
        let world = World::new();
        let before = world.snapshot();
        let run = join(&world, input).success();
        assert!(said(&run).is_empty(), "{input:?}: {:?}", said(&run));
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn the_members_of_one_event_go_in_together() {
    let world = World::new();
    join(&world, "s2\t172.18.0.3\tbackend\t\nha\t172.18.0.7\tbalancer\t\ns1\t172.18.0.2\tbackend\t\ns3\tfd00::3\tbackend\t\n")
        .success();
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3", "s3 fd00::3"]);
    let names: Vec<_> = world.servers().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(names, ["s1", "s2", "s3"]);
    world.assert_valid();
}

#[test]
fn the_last_line_of_one_name_counts() {
    let world = World::new();
    join(&world, "s1\t172.18.0.2\tbackend\t\ns1\t172.18.0.9\tbackend\t\n").success();
    assert_eq!(world.nodes(), ["s1 172.18.0.9"]);
    assert_eq!(world.servers().len(), 1);
}

#[test]
fn nodes_that_are_there_can_change_whatever_the_limit_is_now() {
    let world = World::new();
    let event = |last: u8| [1, 2, 3].map(|n| format!("s{n}\t172.18.{n}.{last}\tbackend\t\n")).concat();
    join(&world, &event(1)).success();
    for (limit, last) in [("2", 2), ("0", 3)] {
        let run = |input: String| world.command(TOOL).args(["--max-nodes", limit]).write_stdin(input).assert();
        run(event(last)).success();
        assert_eq!(world.nodes(), [1, 2, 3].map(|n| format!("s{n} 172.18.{n}.{last}")));
        let rejected = run("s4\t172.18.4.4\tbackend\t\n".to_owned()).code(65);
        let line = format!("member-join: 1 nodes rejected: the limit is {limit} (--max-nodes, MAX_NODES)");
        assert_eq!(said(&rejected), [line]);
    }
}

#[test]
fn ten_thousand_members_in_one_event_go_in_and_no_more() {
    let world = World::new();
    let line = |n: usize| format!("s{n}\t10.0.{}.{}\tbackend\tweight=50\n", n / 250, n % 250 + 1);
    join(&world, &(0..10_000).map(line).collect::<String>()).success();
    assert_eq!(world.nodes().len(), 10_000);
    assert_eq!(world.servers().len(), 10_000);
    world.assert_valid();

    let before = world.snapshot();
    let run = join(&world, &(10_000..20_000).map(line).collect::<String>()).code(65);
    assert_eq!(
        said(&run),
        ["member-join: 10000 nodes rejected: the limit is 10000 (--max-nodes, MAX_NODES)"],
        "one line, not ten thousand"
    );
    assert_eq!(world.snapshot(), before);
    // Those that are there can still change.
    join(&world, "s7\t10.9.9.9\tbackend\tweight=50\n").success();
    assert_eq!(world.nodes().len(), 10_000);
}

#[test]
fn a_name_that_is_a_word_of_haproxy_is_as_good_as_another() {
    let names =
        ["server", "backend", "listen", "global", "defaults", "default-server", "check", "weight", "disabled", "0", "a.b_c-D"];
    let world = World::new();
    let line = |name: &&str| format!("{name}\t172.18.0.2\tbackend\t\n");
    join(&world, &names.iter().map(line).collect::<String>()).success();
    assert_eq!(world.servers().len(), names.len());
    world.assert_valid();
}

#[test]
fn role_and_port_can_be_chosen() {
    let world = World::new();
    let input = "s1\t172.18.0.2\tbackend\t\nw1\t172.18.0.3\tweb\t\n";
    world.command(TOOL).args(["--role", "web", "--port", "8000"]).write_stdin(input).assert().success();
    assert_eq!(world.nodes(), ["w1 172.18.0.3"]);
    assert!(world.servers()[0].starts_with("server w1 172.18.0.3:8000 "), "{:?}", world.servers());
    world.command(TOOL).env("BACKEND_ROLE", "backend").env("BACKEND_PORT", "81").write_stdin(input).assert().success();
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "w1 172.18.0.3"]);
    assert!(world.servers()[0].starts_with("server s1 172.18.0.2:81 "), "{:?}", world.servers());
}

#[test]
fn a_template_of_the_lab_works_unchanged() {
    let world = World::with_template(lb_fixture::LAB_TEMPLATE);
    join(&world, "s1\t172.18.0.2\tbackend\t\ns2\t172.18.0.3\tbackend\t\n").success();
    assert_eq!(world.servers(), ["server s1 172.18.0.2:3000 check cookie s1", "server s2 172.18.0.3:3000 check cookie s2"]);
    world.assert_valid();
}

#[test]
fn what_somebody_wrote_into_file_or_registry_is_healed() {
    let world = World::new();
    join(&world, "s1\t172.18.0.2\tbackend\t\n").success();
    let good = world.text();
    fs::write(world.config(), "nonsense").unwrap();
    fs::write(world.nodes_dir().join("s1"), "").unwrap();
    join(&world, "s1\t172.18.0.2\tbackend\t\n").success();
    assert_eq!((world.text(), world.nodes()), (good, vec!["s1 172.18.0.2".to_owned()]));
}

#[test]
fn at_a_terminal_it_says_what_it_waits_for() {
    let world = World::new();
    // `script` gives it a terminal, and ends the input.
    world
        .command("script")
        .args(["-qec", TOOL, "/dev/null"])
        .write_stdin("")
        .assert()
        .success()
        .stdout(predicate::str::contains("type event lines, NAME ADDRESS ROLE [TAGS], and end them with Ctrl-D"));
}

#[test]
fn help_is_complete() {
    assert_help(
        World::new().command(TOOL),
        &[
            "BACKEND_ROLE",
            "BACKEND_PORT",
            "NODE_NETWORKS",
            "NODES_DIR",
            "HAPROXY_TEMPLATE",
            "HAPROXY_CFG",
            "HAPROXY_ADMIN_SOCKET",
            "HAPROXY_MASTER_SOCKET",
            "SERF_LOG",
        ],
    );
}

#[test]
fn wrong_options_exit_2_and_change_nothing() {
    for options in [&["--frobnicate"][..], &["--port", "0"], &["--port", "http"], &["s1"]] {
        let world = World::new();
        let before = world.snapshot();
        let run = world.command(TOOL).args(options).write_stdin("s1\t172.18.0.2\tbackend\t\n").assert();
        run.code(2).stdout("").stderr(predicate::str::starts_with("error: "));
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(TOOL));
}
