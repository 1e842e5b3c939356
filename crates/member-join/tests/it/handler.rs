//! What `member-join` does as an event handler of Serf, which sets `SERF_EVENT`.

use std::fs;
use std::io::Read;

use assert_cmd::Command;
use lb_core::tool::wakeup::{listen, pipe_path};
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
    assert_eq!(said(&run), ["member-join: s1 172.18.0.2 joined: event member-join"]);
    assert_eq!(pipe.read(&mut [0; 8]).unwrap(), 1, "it was not woken");
}

#[test]
fn an_update_and_a_member_of_another_role_are_told_with_their_event() {
    let world = World::new();
    let line = "s1\t172.18.0.2\tbackend\tweight=7\n";
    let run = handler(&world).env("SERF_EVENT", "member-update").write_stdin(line).assert().success();
    assert_eq!(said(&run)[0], "member-join: s1 172.18.0.2 weight=7 changed its tags: event member-update");
    let run = handler(&world).write_stdin("ha\t172.18.0.7\tbalancer\t\n").assert().success();
    assert_eq!(said(&run), ["member-join: 'ha' has the role 'balancer', not load-balanced: event member-join"]);
}

#[test]
fn of_a_flood_in_one_event_the_first_members_are_told_and_the_others_counted() {
    let world = World::new();
    let _pipe = listen(&pipe_path(&world.master_socket())).unwrap();
    let flood: String = (0..1234).map(|number| format!("a{number}\t172.18.0.2\tbackend\t\n")).collect();
    let said = said(&handler(&world).write_stdin(flood).assert().success());
    assert_eq!(said.len(), 101);
    assert_eq!(
        said[99..],
        ["member-join: a99 172.18.0.2 joined: event member-join", "member-join: 1134 more members: event member-join"]
    );
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
    assert_eq!(fs::read(&console).unwrap(), run.get_output().stderr);
    assert_eq!(said(&run).len(), 2);
    handler(&world).env("LOG_CONSOLE", "/nonexistent/console").write_stdin(LINE).assert().success();
}

#[test]
fn its_publish_is_one_line_that_says_why_and_counts_up() {
    let world = World::new();
    handler(&world).write_stdin(LINE).assert().success();
    handler(&world).write_stdin(LINE).assert().success();
    handler(&world).env("PUBLISH_CAUSE", "a test").write_stdin("s1\t172.18.0.9\tbackend\t\n").assert().success();
    let published: Vec<_> = world.log().into_iter().filter(|line| line.contains("published")).collect();
    assert_eq!(
        published,
        [
            "member-join: published generation=1 cause=member-join applied=file added=s1",
            "member-join: published generation=2 cause=a?test applied=file changed=s1",
        ]
    );
    let text = fs::read_to_string(world.log_file()).unwrap();
    for step in ["render_ms", "ask_ms", "check_ms", "write_ms", "total_ms"] {
        assert_eq!(text.matches(&format!(" {step}=")).count(), 2, "{step}: {text}");
    }
}

#[test]
fn in_json_every_line_is_an_object_and_the_log_file_stays_text() {
    let world = World::new();
    let run = handler(&world).env("LOG_FORMAT", "json").write_stdin(LINE).assert().success();
    let stderr = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    let lines: Vec<serde_json::Value> = stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(
        (lines.len(), &lines[0]["message"], &lines[1]["message"]),
        (2, &"s1 172.18.0.2 joined: event member-join".into(), &"published".into())
    );
    assert_eq!((&lines[1]["generation"], &lines[1]["cause"]), (&1.into(), &"member-join".into()));
    assert_eq!((&lines[1]["added"], &lines[1]["removed"]), (&["s1"].into_iter().collect(), &serde_json::json!([])));
    assert!(lines[1]["total_ms"].as_f64().is_some_and(|time| time > 0.0), "{stderr}");
    assert_eq!(world.log()[0], "member-join: s1 172.18.0.2 joined: event member-join");
    assert_eq!(world.log().len(), 2);
    handler(&world).env("LOG_FORMAT", "xml").write_stdin(LINE).assert().code(2);
}
