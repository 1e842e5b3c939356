//! The tables, and the goals.

use std::time::Duration;

use bench::{milliseconds, percentile};

use crate::Options;
use crate::agents::Converged;
use crate::changes::{BURST, Change, Measured};
use crate::throughput::Side;

/// `sync-nodes`' time for one change.
const CHANGE: Duration = Duration::from_millis(50);
/// Memory of `sync-nodes`, in MB.
const MEMORY: f64 = 40.0;
/// Shares of a core at rest, by the number of nodes.
const REST: [(u16, f64); 2] = [(10, 0.003), (10_000, 0.01)];
/// Syncs for a burst of joins.
const HANDFUL: u64 = 8;
/// Time until all agents know each other.
const KNOWN: Duration = Duration::from_secs(5);
/// The number of nodes that the goals are about.
const MANY: u16 = 10_000;
/// The steps of a publish.
const STEPS: [&str; 5] = ["render", "ask", "plan", "apply", "write"];

/// Prints the tables of the simulated nodes, and returns the goals.
pub fn changes(measured: &[Measured]) -> Vec<String> {
    one_change(measured);
    steps(measured);
    burst(measured);
    rest(measured);
    started(measured);
    measured.iter().flat_map(goals).collect()
}

/// Median and 95th percentile.
fn both(times: &[Duration]) -> String {
    format!("{} / {}", milliseconds(percentile(times, 0.5)), milliseconds(percentile(times, 0.95)))
}

fn each(changes: &[Change], time: impl Fn(&Change) -> Duration) -> Vec<Duration> {
    changes.iter().map(time).collect()
}

fn one_change(measured: &[Measured]) {
    let turns = measured.first().map_or(0, |one| one.joins.len());
    println!("\nOne change, in ms: median and 95th percentile of {turns} turns.\n");
    println!(
        "| nodes | a join: from the hint until applied | its publish | processor time | a leave | its publish | processor time |"
    );
    println!("|---|---|---|---|---|---|---|");
    for one in measured {
        let columns = [&one.joins, &one.leaves].map(|changes| {
            let times =
                [each(changes, |one| one.applied), each(changes, |one| one.step("total")), each(changes, |one| one.processor)];
            times.map(|times| both(&times)).join(" | ")
        });
        println!("| {} | {} |", one.nodes, columns.join(" | "));
    }
}

fn steps(measured: &[Measured]) {
    println!("\nThe steps of the publish for a join, and what comes before it and after it, in ms: medians.\n");
    println!("| nodes | {} | list, lock and log |", STEPS.join(" | "));
    println!("|---|{}", "---|".repeat(STEPS.len() + 1));
    for one in measured {
        let median = |time: &dyn Fn(&Change) -> Duration| milliseconds(percentile(&each(&one.joins, time), 0.5));
        let columns: Vec<String> = STEPS.iter().map(|step| median(&|one| one.step(step))).collect();
        let rest = median(&|one| one.applied.saturating_sub(one.step("total")));
        println!("| {} | {} | {rest} |", one.nodes, columns.join(" | "));
    }
}

fn burst(measured: &[Measured]) {
    println!("\n{BURST} joins within a second.\n");
    println!(
        "| nodes | syncs | publishes at run time | reloads | failed | announced within, ms | from the last one until all are applied, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for Measured { nodes, burst, .. } in measured {
        let (announced, applied) = (milliseconds(burst.announced), milliseconds(burst.applied));
        let counts = format!("{} | {} | {} | {}", burst.syncs, burst.published, burst.reloads, burst.failed);
        println!("| {nodes} | {counts} | {announced} | {applied} |");
    }
}

fn rest(measured: &[Measured]) {
    println!("\nAt rest, but for the health checks, one for each node and second.\n");
    println!(
        "| nodes | sync-nodes, % of a core | its memory, MB | at most, MB | HAProxy, % of a core | its memory, MB | show-nodes, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for Measured { nodes, rest, shown, .. } in measured {
        println!(
            "| {nodes} | {:.2} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
            rest.sync * 100.0,
            megabytes(rest.resident),
            megabytes(rest.peak),
            rest.haproxy * 100.0,
            megabytes(rest.haproxy_resident),
            both(shown)
        );
    }
}

fn started(measured: &[Measured]) {
    println!("\nThe start of `ha` from nothing, in ms, once its agent knows all members.\n");
    println!("| nodes | sync-nodes | render-cfg | HAProxy, until a node's first answer | sum |");
    println!("|---|---|---|---|---|");
    for Measured { nodes, started, .. } in measured {
        let sum = started.sync + started.render + started.haproxy;
        let columns = [started.sync, started.render, started.haproxy, sum].map(milliseconds);
        println!("| {nodes} | {} |", columns.join(" | "));
    }
}

/// The goals that are about this number of nodes.
fn goals(one: &Measured) -> Vec<String> {
    let mut goals = Vec::new();
    for (_, share) in REST.iter().filter(|(nodes, _)| *nodes == one.nodes) {
        let text =
            format!("at most {} % of a core at rest with {} nodes: {:.2} %", share * 100.0, one.nodes, one.rest.sync * 100.0);
        goals.push(goal(&text, one.rest.sync <= *share));
    }
    if one.nodes == MANY {
        let changes = || one.joins.iter().chain(&one.leaves);
        let times: Vec<Duration> = changes().map(|change| change.step("total")).collect();
        let reloads = changes().filter(|change| change.is_reload).count();
        let text =
            format!("a change of {MANY} nodes within {CHANGE:?}, without a reload: {} ms, {reloads} reloads", both(&times));
        goals.push(goal(&text, percentile(&times, 0.5) <= CHANGE && reloads == 0));
        let peak = megabytes(one.rest.peak);
        goals.push(goal(&format!("at most {MEMORY} MB of sync-nodes with {MANY} nodes: {peak:.1} MB"), peak <= MEMORY));
    }
    let burst = &one.burst;
    let text = format!(
        "a handful of syncs and no reload for {BURST} joins beside {} nodes: {} syncs, {} reloads",
        one.nodes, burst.syncs, burst.reloads
    );
    goals.push(goal(&text, burst.syncs <= HANDFUL && burst.reloads + burst.failed == 0));
    goals
}

fn goal(text: &str, is_met: bool) -> String {
    format!("goal: {text}: {}", if is_met { "met" } else { "not met" })
}

/// Prints how soon the agents knew each other, and returns the goals.
pub fn agents(count: u16, converged: &[Converged]) -> Vec<String> {
    println!("\n{count} real Serf agents and the balancer's, with GOMAXPROCS=1, in seconds.\n");
    println!(
        "| profile | from the first start to the last | from the last start until HAProxy has all | until every agent knows all |"
    );
    println!("|---|---|---|---|");
    let mut goals = Vec::new();
    for Converged { profile, starting, applied, known } in converged {
        let known_after = known.as_secs_f64();
        println!("| `{profile}` | {:.2} | {:.2} | {known_after:.2} |", starting.as_secs_f64(), applied.as_secs_f64());
        if count >= 200 {
            let text =
                format!("{count} agents ({profile}) know each other within {KNOWN:?} of the last start: {known_after:.2} s");
            goals.push(goal(&text, *known <= KNOWN));
        }
    }
    goals
}

/// Prints the requests a second.
pub fn throughput(sides: &[Side], versions: &[String], options: &Options) {
    println!("\nRequests a second, over {} connections; {} turns of a second of each.", options.connections, options.rounds);
    println!("{}.\n", versions.join("; "));
    println!("| | requests/s, median | lowest | highest | of minimal HAProxy | processor µs a request |");
    println!("|---|---|---|---|---|---|");
    for side in sides {
        let rate = |share: f64| percentile(&side.rates, share);
        let ratio = sides.first().map_or(1.0, |base| side.ratio(base));
        println!("| {} | {:.0} | {:.0} | {:.0} | {ratio:.2} | {:.1} |", side.name, rate(0.5), rate(0.0), rate(1.0), side.cost());
    }
}

#[expect(clippy::cast_precision_loss, reason = "small")]
fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}
