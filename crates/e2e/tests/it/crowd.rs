//! Fifty handlers at once, joins and leaves mixed, on a live HAProxy: every one of them ends well, none undoes what
//! another did, and one sync makes registry, file and process just what the member list says.
//!
//! Twenty rounds, a thousand runs of the tools. `CROWD_ROUNDS` asks for fewer or more.

use std::collections::BTreeSet;
use std::env;
use std::thread;

use e2e::live::member_list;
use e2e::{Live, State};

/// Handlers that run at the same time.
const HANDLERS: usize = 50;
/// Nodes that somebody joins, and somebody else leaves, in the same round: where they end is open.
const DISPUTED: usize = 10;
const EMPTY: State = State { nodes: &[], revision: "a" };

/// One handler of a round.
#[derive(Debug, Clone)]
struct Handler {
    tool: &'static str,
    node: String,
}

/// The node with this number, as the registry has it.
fn node(number: usize, weight: usize) -> String {
    format!("s{number} 127.0.0.{} port=9 weight={}", 2 + number, 1 + weight)
}

fn name(node: &str) -> &str {
    node.split(' ').next().unwrap()
}

/// The handlers of a round in any order: each third node joins only, each third leaves only, the others do nothing, or
/// both. Weights change from round to round, so that a join is always a change.
fn handlers(round: usize) -> Vec<Handler> {
    let handler = |tool, number| Handler { tool, node: node(number, round) };
    let kind = |number: usize| (number + round) % 3;
    let numbers = || (0..HANDLERS - DISPUTED).map(|number| number + DISPUTED);
    let joins = numbers().filter(|&number| kind(number) != 0).map(|number| handler("member-join", number));
    let leaves = numbers().filter(|&number| kind(number) == 0).map(|number| handler("member-leave", number));
    let disputes =
        (0..DISPUTED).map(|number| handler(if number % 2 == round % 2 { "member-join" } else { "member-leave" }, number / 2));
    let mut all: Vec<Handler> = joins.chain(leaves).chain(disputes).collect();
    fastrand::Rng::with_seed(round as u64).shuffle(&mut all);
    all
}

/// Runs them all at once; each has to end well.
fn run_at_once(live: &Live, handlers: &[Handler]) {
    thread::scope(|scope| {
        for Handler { tool, node } in handlers {
            scope.spawn(move || {
                let (name, rest) = node.split_once(' ').unwrap();
                let (address, tags) = rest.split_once(' ').unwrap();
                let line = format!("{name}\t{address}\tbackend\t{}\n", tags.replace(' ', ","));
                live.command(tool).write_stdin(line).assert().success();
            });
        }
    });
}

#[test]
fn no_update_is_lost_and_a_sync_settles_the_rest() {
    let rounds = env::var("CROWD_ROUNDS").map_or(20, |rounds| rounds.parse().expect("CROWD_ROUNDS is a number"));
    let live = Live::start(&EMPTY);
    for round in 0..rounds {
        let handlers = handlers(round);
        run_at_once(&live, &handlers);

        // Who did one thing only has had it done, and file and process follow the registry, whoever came last.
        let found: BTreeSet<String> = live.world.nodes().into_iter().collect();
        for Handler { tool, node } in handlers.iter().filter(|handler| is_alone(handler, &handlers)) {
            assert_eq!(found.contains(node), *tool == "member-join", "round {round}, {tool} {node}: {found:?}");
            assert!(
                *tool == "member-join" || !found.iter().any(|line| name(line) == name(node)),
                "round {round}: {node} is still there"
            );
        }
        let nodes: Vec<&str> = found.iter().map(String::as_str).collect();
        live.is(&State { nodes: &sorted(&nodes), revision: "a" }).unwrap_or_else(|text| panic!("round {round}: {text}"));

        // The member list knows better about all of them.
        let members: Vec<String> =
            (0..HANDLERS).filter(|number| (number + round) % 4 != 0).map(|number| node(number, round)).collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        live.command("sync-nodes").args(["--from", "-"]).write_stdin(member_list(&members)).assert().success();
        live.is(&State { nodes: &sorted(&members), revision: "a" })
            .unwrap_or_else(|text| panic!("round {round}, synced: {text}"));
    }
}

/// Whether nobody else has to do with the node of this handler.
fn is_alone(handler: &Handler, all: &[Handler]) -> bool {
    all.iter().filter(|other| name(&other.node) == name(&handler.node)).count() == 1
}

/// In the order of the registry, that of the names.
fn sorted<'a>(nodes: &[&'a str]) -> Vec<&'a str> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|node| name(node));
    nodes
}
