//! What a publish does, and does not do, to a HAProxy that runs.

use std::fs;

use e2e::{Live, State};
use lb_fixture::said;

const ONE: State = State { nodes: &["s1 127.0.0.2 port=9"], revision: "a" };
const TWO: State = State { nodes: &["s1 127.0.0.2 port=9", "s2 127.0.0.3 port=9"], revision: "a" };

/// The worker that the tools know, by process id and start time.
fn worker(live: &Live) -> String {
    let record = fs::read_to_string(live.world.master_socket().with_file_name("running.cfg")).unwrap();
    record.lines().next().unwrap().to_owned()
}

#[test]
fn a_join_and_a_leave_start_no_process_and_ask_no_second_haproxy() {
    let live = Live::start(&ONE);
    let before = worker(&live);
    for (tool, line, after) in
        [("member-join", "s2\t127.0.0.3\tbackend\tport=9\n", &TWO), ("member-leave", "s2\t127.0.0.3\tbackend\t\n", &ONE)]
    {
        live.traced(tool, None).write_stdin(line).assert().success();
        live.is(after).unwrap();
        assert_eq!(live.world.trace().programs(), 1, "{tool}");
    }
    assert_eq!(worker(&live), before);

    // A changed template shows that a program would be seen: `haproxy -c`.
    live.set_template("b");
    live.traced("member-join", None).write_stdin("s1\t127.0.0.2\tbackend\tport=9\n").assert().success();
    assert!(live.world.trace().programs() > 1);
}

/// Then the tools go through the master's.
#[test]
fn an_admin_socket_that_may_change_nothing_needs_no_reload() {
    let live = Live::start(&ONE);
    let admin = live.world.admin_socket().display().to_string();
    for level in ["level user", ""] {
        live.set_template("a");
        let template = fs::read_to_string(live.world.template()).unwrap();
        let changed = template.replace(&format!("{admin} mode 600 level admin"), &format!("{admin} mode 600 {level}"));
        assert_ne!(changed, template);
        live.world.set_template(&changed);
        live.command("sync-nodes").args(["--from", "-"]).write_stdin(e2e::live::member_list(ONE.nodes)).assert().success();
        let before = worker(&live);
        live.command("member-join").write_stdin("s2\t127.0.0.3\tbackend\tport=9\n").assert().success();
        live.is(&TWO).unwrap();
        assert_eq!(worker(&live), before, "{level:?}: it was reloaded");
    }
}

#[test]
fn a_node_that_haproxy_refuses_is_left_out_without_a_reload() {
    let live = Live::start(&ONE);
    // A server of the template's own, named as a node is.
    let template = fs::read_to_string(live.world.template()).unwrap();
    live.world.set_template(&template.replace("{{#each nodes}}", "    server s2 127.0.0.9:9\n{{#each nodes}}"));
    live.command("sync-nodes").args(["--from", "-"]).write_stdin(e2e::live::member_list(ONE.nodes)).assert().success();
    let before = worker(&live);

    let nodes = ["s1 127.0.0.2 port=9", "s2 127.0.0.3 port=9", "s3 127.0.0.4 port=9"];
    for round in 0..3 {
        let run = live.command("sync-nodes").args(["--from", "-"]).write_stdin(e2e::live::member_list(&nodes)).assert().code(65);
        let said = said(&run);
        assert!(said.iter().any(|line| line.starts_with("sync-nodes: s2 excluded: HAProxy rejects it: ")), "{round}: {said:?}");
        let servers = live.servers().unwrap();
        assert!(servers.contains("s1 127.0.0.2:9 100") && servers.contains("s3 127.0.0.4:9 100"), "{round}: {servers:?}");
        assert!(servers.contains("s2 127.0.0.9:9 1"), "{round}: {servers:?}");
        assert_eq!(worker(&live), before, "{round}: it was reloaded");
    }

    live.world.set_template(&template);
    live.command("sync-nodes").args(["--from", "-"]).write_stdin(e2e::live::member_list(&nodes)).assert().success();
    live.is(&State { nodes: &nodes, revision: "a" }).unwrap();
}
