//! `bench/scale`: what thousands of nodes cost.
//!
//! For each number of nodes, a HAProxy of the image and `sync-nodes --follow` follow an agent that the benchmark scripts, so that
//! there may be ten thousand members: the start from nothing, one node that joins or leaves, five hundred that join within a
//! second, memory, processor time at rest, and `show-nodes`. Then as many real Serf agents as the machine can bear find each
//! other, and at last this balancer, with few and with many servers, takes turns with others. At the end, the goals.
//!
//! All nodes are one listener of another HAProxy, at an address each, which answers at once; its processor time is not counted.

mod agents;
mod balancer;
mod changes;
mod processes;
mod report;
mod stage;
mod throughput;
mod wait;

use anyhow::Result;
use bench::machine;
use clap::Parser;

/// Measure what thousands of nodes cost.
#[derive(Debug, Parser)]
#[command(
    name = "bench/scale",
    after_help = "Examples:
  bench/scale                                                all of it, some ten minutes
  bench/scale --nodes 1000 --agents 0 --rounds 0             one number of simulated nodes
  bench/scale --nodes 10 --turns 1 --rest 10 --rounds 0      the real agents, above all"
)]
pub struct Options {
    /// Numbers of simulated nodes
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 10_000], value_parser = clap::value_parser!(u16).range(2..=10_000))]
    nodes: Vec<u16>,
    /// Number of nodes that join and leave, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    turns: u16,
    /// How long processor time at rest is measured, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=3600))]
    rest: u64,
    /// Number of real Serf agents; 0 for none
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(0..=1000))]
    agents: u16,
    /// Number of turns of each balancer at requests a second; 0 for none
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(0..=1000))]
    rounds: u16,
    /// Number of connections that send requests
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
}

/// Of `SERF_PROFILE`: the default, and that of several machines.
const PROFILES: [&str; 2] = ["local", "lan"];

fn main() -> Result<()> {
    let options = Options::parse();
    println!("scale: {}", machine());
    let mut goals = Vec::new();
    let mut measured = Vec::new();
    for nodes in &options.nodes {
        eprintln!("==> {nodes} nodes");
        measured.push(changes::measure(*nodes, &options)?);
    }
    goals.extend(report::changes(&measured));
    if options.agents > 1 {
        let mut converged = Vec::new();
        for profile in PROFILES {
            eprintln!("==> {} agents, profile {profile}", options.agents);
            converged.push(agents::measure(options.agents, profile)?);
        }
        goals.extend(report::agents(options.agents, &converged));
    }
    if options.rounds > 0 {
        let most = options.nodes.iter().max().copied().unwrap_or_default();
        eprintln!("==> requests");
        let (sides, versions) = throughput::measure(most, &options)?;
        report::throughput(&sides, &versions, &options);
    }
    println!();
    for goal in goals {
        println!("{goal}");
    }
    Ok(())
}
