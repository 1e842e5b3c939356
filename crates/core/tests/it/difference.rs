//! What is done at run time leads from one file to the next: HAProxy ends where a fresh start would.

use std::fmt::Write;

use lb_core::haproxy::plan::Plan;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::any;
use super::model::Process;

/// Names of servers: few, so that they come back, and some that look like keywords.
const NAMES: [&str; 6] = ["s1", "s2", "check", "disabled", "weight", "cookie"];
/// What users write after `server NAME ADDRESS`, where `NAME` is the node's name and `N` its weight.
const ARGUMENTS: [&str; 9] = [
    "",
    "check",
    "weight N cookie NAME check inter 1s",
    "check cookie NAME weight N",
    "cookie NAME",
    "cookie NAME weight N backup",
    "disabled check",
    "weight 3 weight N",
    "check redir http://NAME",
];
/// What is before the servers, in the section and above it.
const HEADS: [&str; 6] = [
    "backend nodes\n  balance roundrobin\n",
    "backend nodes\n  balance leastconn\n",
    "backend nodes\n  default-server check inter 1s\n",
    "backend nodes\n  default-server weight 7\n",
    "defaults\n  default-server weight 7 check\nlisten nodes\n",
    "defaults\n  default-server check\ndefaults\n  mode http\nbackend nodes\n",
];
/// What somebody may do by hand to `KEY`.
const COMMANDS: [&str; 8] = [
    "set server KEY weight 9",
    "set server KEY state maint",
    "set server KEY state drain",
    "set server KEY state ready",
    "set server KEY addr 172.18.0.99 port 81",
    "disable health KEY",
    "del server KEY",
    "add server KEY 172.18.0.98:82 weight 4",
];

/// A file. The same head and arguments come often, so that most changes are of servers alone.
fn file() -> impl Strategy<Value = String> {
    let usual = |of: &'static [&str]| prop_oneof![3 => Just(of[0]), 1 => select(of)];
    let server = (
        select(&NAMES[..]),
        any::address(),
        select(&[80_u16, 3000][..]),
        0..=256_u16,
        prop_oneof![
            3 => Just(ARGUMENTS[2]),
            2 => select(&ARGUMENTS[..]),
        ],
    );
    (usual(&HEADS), vec(server, 0..6)).prop_map(|(head, mut servers)| {
        servers.sort_by_key(|server| server.0);
        servers.dedup_by_key(|server| server.0);
        let mut text = head.to_owned();
        for (name, address, port, weight, arguments) in servers {
            let arguments = arguments.replace("NAME", name).replace('N', &weight.to_string());
            writeln!(text, "  server {name} {address}:{port} {arguments}").unwrap();
        }
        text
    })
}

/// What happens to one server while a file runs.
#[derive(Debug, Clone)]
enum Event {
    /// It has connections, or none.
    Busy(bool),
    /// Somebody gives this command.
    Command(&'static str),
}

fn events() -> impl Strategy<Value = Vec<(&'static str, Event)>> {
    let event = prop_oneof![any::<bool>().prop_map(Event::Busy), select(&COMMANDS[..]).prop_map(Event::Command)];
    vec((select(&NAMES[..]), event), 0..4)
}

fn happen(process: &mut Process, events: &[(&str, Event)], by_hand: bool) {
    for (name, event) in events {
        let key = format!("nodes/{name}");
        match event {
            Event::Busy(busy) => process.haproxy.set_busy(&key, *busy),
            Event::Command(command) if by_hand => drop(process.haproxy.command(&command.replace("KEY", &key))),
            Event::Command(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn each_file_is_reached_from_the_one_before(files in vec((file(), events()), 1..6)) {
        let mut process = Process::start(&files[0].0).expect("the model knows these files");
        for (text, events) in &files {
            // `publish` compares with a fresh start.
            process.publish(text).expect("the model knows these files");
            let before = process.haproxy.clone();
            let again = process.publish(text).expect("the model knows these files");
            prop_assert_eq!(&before, &process.haproxy);
            prop_assert!(matches!(again, Plan::Commands(_)), "{:?}", again);
            // What a line takes from `default-server` is not seen among its servers, so not repaired either.
            happen(&mut process, events, !text.contains("default-server"));
        }
    }

    #[test]
    fn a_change_of_servers_alone_needs_no_reload(files in vec(vec((any::name(), any::address(), 0..=256_u16), 0..6), 2..5)) {
        let text = |servers: &[(_, _, u16)]| {
            let mut servers: Vec<_> = servers.iter().map(|(name, address, weight): &(lb_core::node::NodeName, lb_core::node::Address, _)| {
                format!("  server {name} {address}:3000 weight {weight} cookie {name} check inter 1s\n")
            }).collect();
            servers.sort_by_key(|line| line.split(' ').nth(3).map(str::to_owned));
            servers.dedup_by_key(|line| line.split(' ').nth(3).map(str::to_owned));
            format!("{}{}", HEADS[0], servers.concat())
        };
        let mut process = Process::start(HEADS[0]).expect("the model knows this file");
        for servers in &files {
            let text = text(servers);
            let plan = process.publish(&text).expect("the model knows this file");
            prop_assert!(matches!(plan, Plan::Commands(_)), "{:?} for\n{}", plan, text);
        }
    }
}
