//! Whatever changes and fails in between, a publish ends with the process that its file describes, or with the old file.

use std::fs;

use lb_core::publish::Applied;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::Haproxy;
use crate::scripted::{Reply, Scripted};
use crate::world::{TEMPLATE, World};

/// Nodes that the registry may have, of few names, so that they come back.
const NODES: [&str; 8] = [
    "s1 172.18.0.2",
    "s1 172.18.0.2 weight=7",
    "s1 172.18.0.9 port=80",
    "s2 172.18.0.3",
    "s2 172.18.0.3 drain=yes",
    "s3 172.18.0.4",
    "s4 fd00::5",
    "s5 172.18.0.6",
];
/// What a server line may end with.
const ARGUMENTS: [&str; 3] = ["check weight {{weight}}", "check inter 1s weight {{weight}}", "weight {{weight}}"];
/// Servers that may have connections.
const BUSY: [&str; 3] = ["nodes/s1", "nodes/s2", "nodes/s3"];
/// What may be answered otherwise, or not at all.
const COMMANDS: [&str; 10] = [
    "add server",
    "enable health",
    "set server nodes/s1 state",
    "set server",
    "del server",
    "reload",
    "prompt",
    "show servers state",
    "show info",
    "@!",
];

#[derive(Debug, Clone)]
enum Step {
    Nodes(Vec<&'static str>),
    Arguments(&'static str),
    Balance(&'static str),
    Busy(&'static str, bool),
    ByHand(&'static str),
    ReloadByHand,
    Fault(&'static str, Reply),
}

fn step() -> impl Strategy<Value = Step> {
    let by_hand = &[
        "set server nodes/s1 weight 9",
        "set server nodes/s2 state maint",
        "set server nodes/s3 addr 172.18.0.99 port 81",
        "disable health nodes/s1",
        "add server nodes/s5 172.18.0.98:82 weight 4",
    ][..];
    // Silence takes two seconds, and is like the end of the conversation.
    let reply = prop_oneof![Just(Reply::Text("Not today.".to_owned())), Just(Reply::BreakOff), Just(Reply::HangUp)];
    prop_oneof![
        8 => vec(select(&NODES[..]), 0..5).prop_map(Step::Nodes),
        1 => select(&ARGUMENTS[..]).prop_map(Step::Arguments),
        1 => select(&["roundrobin", "leastconn"][..]).prop_map(Step::Balance),
        4 => (select(&BUSY[..]), any::<bool>()).prop_map(|(name, busy)| Step::Busy(name, busy)),
        2 => select(by_hand).prop_map(Step::ByHand),
        1 => Just(Step::ReloadByHand),
        4 => (select(&COMMANDS[..]), reply).prop_map(|(command, reply)| Step::Fault(command, reply)),
    ]
}

fn take(step: Step, world: &World, haproxy: &Scripted, arguments: &mut &'static str, balance: &mut &'static str) {
    match step {
        Step::Nodes(lines) => world.set_nodes(&lines),
        Step::Arguments(others) => *arguments = others,
        Step::Balance(other) => *balance = other,
        Step::Busy(server, busy) => haproxy.by_hand(|servers| servers.set_busy(server, busy)),
        // There may be no such server, or one already.
        Step::ByHand(command) => drop(haproxy.by_hand(|servers| servers.command(command).map(str::to_owned))),
        Step::ReloadByHand => haproxy.reload_by_hand(),
        Step::Fault(command, reply) => haproxy.reply(command, reply),
    }
    world.set_template(&TEMPLATE.replace(ARGUMENTS[0], arguments).replace("roundrobin", balance));
}

/// The servers of HAProxy that do not wait for their last connections.
fn servers(world: &World, haproxy: &Scripted) -> Vec<String> {
    let leaving = world.leaving();
    let servers = haproxy.servers();
    let waits = |line: &str| leaving.iter().any(|key| line.starts_with(&key.split(' ').next().unwrap().replacen('/', " ", 1)));
    servers.lines().filter(|line| !waits(line)).map(str::to_owned).collect()
}

/// The servers that a HAProxy has which is started with the file.
fn fresh(world: &World) -> Vec<String> {
    Haproxy::start(&world.text()).expect("the model knows this file").show().lines().map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_the_last_good_state_stays_or_the_new_one_is_there(steps in vec(vec(step(), 1..3), 1..12)) {
        let (world, haproxy) = World::running(&[NODES[0], NODES[3]]);
        let (mut arguments, mut balance) = (ARGUMENTS[0], "roundrobin");
        for steps in steps {
            steps.into_iter().for_each(|step| take(step, &world, &haproxy, &mut arguments, &mut balance));
            let before = world.text();
            match world.publish() {
                Ok(_) => prop_assert_eq!(servers(&world, &haproxy), fresh(&world)),
                Err(_) => prop_assert_eq!(world.text(), before),
            }
            prop_assert_eq!(fs::read_dir(world.config().parent().unwrap()).unwrap().count(), 1);
        }
        haproxy.forget_replies();
        haproxy.by_hand(|servers| BUSY.iter().for_each(|server| servers.set_busy(server, false)));
        world.publish().unwrap();
        haproxy.assert_runs_its_file();
        prop_assert_eq!(world.publish().unwrap().applied, Applied::Nothing);
    }
}
