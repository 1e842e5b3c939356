//! One node: where it is, and how it came there.

use std::fs;

use assert_cmd::assert::Assert;
use lb_core::members::containers::in_container;
use lb_core::tool::reporter::{Format, Reporter};
use lb_fixture::Agent;

use crate::balancer::{Balancer, line};

fn stdout(run: &Assert) -> String {
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_node_is_explained_by_its_states_and_the_log() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    let reporter = Reporter::new("sync-nodes", Format::Text, Some(balancer.world.log_file()), None);
    reporter.log("member 's1' rejected: weight 'x' is not 0 to 256");
    reporter.log("registered s10 127.0.0.1");
    // What was put aside counts as well.
    fs::rename(balancer.world.log_file(), balancer.world.path("serf.log.1")).unwrap();
    reporter.log(format_args!("registered s1 {} weight=7", s1.address()));
    s1.tag("weight=7");
    balancer.knows(&["s1", "weight=7"]);
    balancer.world.register(&(line("s1", s1.address()) + " weight=7"));
    balancer.publish("agent-log");

    for asked in ["s1", &s1.address().to_string()] {
        let text = stdout(&balancer.show().arg(asked).assert().success().stderr(""));
        let has = |begin: &str, part: &str| {
            assert!(text.lines().any(|line| line.starts_with(begin) && line.contains(part)), "{begin} {part}: {text}");
        };
        has("node      s1", "");
        has("address   ", " port 3000 weight 7");
        has("member    alive", "");
        has("HAProxy   nodes/s1 ", ", sessions: 0");
        has("last      changed 20", " by sync-nodes (cause: agent-log), at run time, generation 2");
        has("refused   20", "weight 'x' is not 0 to 256");
        assert_eq!(text.lines().filter(|line| line.contains("Z sync-nodes: ")).count(), 4, "{text}");
        assert!(!text.contains("s10"), "{text}");
    }
    let json = stdout(&balancer.show().args(["s1", "--json"]).assert().success());
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&shown["node"]["weight"], &shown["history"]["lines"][0]["tool"]), (&"7".into(), &"sync-nodes".into()));
}

#[test]
fn a_node_that_is_gone_is_explained_by_the_log() {
    let s1 = Agent::start("s1", &["role=backend"]);
    let balancer = Balancer::start(&[(&line("s1", s1.address()), &s1)]);
    s1.leave();
    balancer.knows(&["s1", "left"]);
    fs::remove_file(balancer.world.nodes_dir().join("s1")).unwrap();
    balancer.publish("agent-log-leave");
    // A last health check may keep it for a moment.
    lb_fixture::eventually("HAProxy has deleted it", || {
        balancer.publish("timer");
        !balancer.command("show servers state").contains(" s1 ")
    });
    // The log knows which container it was.
    let reporter = Reporter::new("sync-nodes", Format::Text, Some(balancer.world.log_file()), None);
    reporter.log(in_container(&"s1".parse().unwrap(), "web1"));
    let text = stdout(&balancer.show().arg("s1").assert().success());
    assert!(
        text.starts_with("node      s1\ncontainer web1\nnow       in none of the four states: the member has left\n"),
        "{text}"
    );
    assert_eq!(stdout(&balancer.show().arg("web1").assert().success()), text);
    assert!(
        text.contains("(cause: agent-log-leave), at run time, generation 2") || text.contains("had finished, and was deleted"),
        "{text}"
    );
}

#[test]
fn an_unknown_node_is_exit_1() {
    let balancer = Balancer::start(&[]);
    balancer.show().assert().success().stdout("no node\n");
    let told = "'no\\u{1b}such': no node has this name, container or address, and the log tells of none: ";
    let run = balancer.show().arg("no\u{1b}such").assert().code(1);
    assert!(stdout(&run).starts_with(told) && stdout(&run).contains("is it ready (docker logs)?"), "{}", stdout(&run));
}

#[test]
fn a_member_of_another_role_is_told_its_role() {
    let s1 = Agent::start("s1", &["role=bakend"]);
    let balancer = Balancer::start(&[]);
    s1.join(&balancer.agent);
    balancer.knows(&["s1", "alive"]);
    let told = "'s1': a member of the role 'bakend', and only 'backend' is load-balanced: start it with ROLE='backend'\n";
    for asked in ["s1", &s1.address().to_string()] {
        let text = stdout(&balancer.show().arg(asked).assert().code(1));
        assert_eq!(text.replace(&format!("'{}'", s1.address()), "'s1'"), told);
    }
}
