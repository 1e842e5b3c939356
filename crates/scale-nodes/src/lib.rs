//! `scale-nodes`: starts and stops nodes as the load rises and falls.

use std::time::Instant;
use std::{fs, thread};

use anyhow::{Result, ensure};
use clap::Parser;
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

pub mod decision;
pub mod docker;
pub mod figures;

use decision::{Decider, Decision, Figures, Node, Policy, Reason};
use docker::{Container, Lab, SCALED};
use figures::Server;

/// The kernel's limit of neighbour entries.
const NEIGHBOURS: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

const EXAMPLES: &str = "  scale-nodes --min 2 --max 8
  scale-nodes --min 2 --max 8 --dry-run             # only say what would be done, and why
  scale-nodes --max 4 --up 20 --down 10 --cool-down 1m -- --stop-timeout 40 -e DRAIN_TIMEOUT=35";

/// Start and stop nodes as the load rises and falls.
///
/// Runs on the host. Reads HAProxy's statistics and, when more than --up requests are in progress per node, starts as many
/// nodes as the load needs. Stops a node when, with one node fewer, there would still be fewer than --down requests per
/// node. Stops only containers that it has started, in this run or an earlier one, and with `docker stop`, so that no
/// request is lost. Failures are logged and retried. Its nodes keep running when it ends (Ctrl-C).
#[derive(Debug, Parser)]
#[command(name = "scale-nodes", version, after_help = after_help(EXAMPLES))]
pub struct ScaleNodes {
    /// Minimum number of nodes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=50))]
    min: u16,
    /// Maximum number of nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    max: u16,
    /// Start nodes when there are more requests in progress per node than this
    #[arg(long, value_name = "REQUESTS", default_value_t = 10.0)]
    up: f64,
    /// Stop a node when, with one node fewer, there would be fewer requests in progress per node than this
    #[arg(long, value_name = "REQUESTS", default_value_t = 5.0)]
    down: f64,
    /// Interval between measurements
    #[arg(long, value_name = "TIME", default_value = "1s")]
    every: humantime::Duration,
    /// Number of measurements to average the load over
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    looks: u16,
    /// Minimum time after a start or a stop before the next one
    #[arg(long, value_name = "TIME", default_value = "15s")]
    cool_down: humantime::Duration,
    /// Stop a node started by this tool if it is not ready for this long
    #[arg(long, value_name = "TIME", default_value = "1m")]
    ready_within: humantime::Duration,
    /// Only log what would be started or stopped
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    lab: Lab,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for ScaleNodes {
    const NAME: &'static str = "scale-nodes";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }

    fn is_unlimited(&self) -> bool {
        true
    }
}

impl ScaleNodes {
    fn policy(&self) -> Result<Policy> {
        ensure!(self.min <= self.max, "--min {} is more than --max {}", self.min, self.max);
        ensure!(
            self.down > 0.0 && self.down < self.up && self.up.is_finite(),
            "--down {} must be more than 0 and less than --up {}",
            self.down,
            self.up
        );
        Ok(Policy {
            min: self.min.into(),
            max: self.max.into(),
            up: self.up,
            down: self.down,
            looks: self.looks.into(),
            cool_down: *self.cool_down,
            ready_within: *self.ready_within,
        })
    }

    fn look(&self) -> Result<Figures> {
        let backend = self.lab.figures()?;
        let node = |container: Container| {
            let ready = backend.servers_of(&container.hostname).any(Server::is_up);
            Node { id: container.id, name: container.name, ours: container.scaled, ready }
        };
        Ok(Figures { nodes: self.lab.nodes()?.into_iter().map(node).collect(), requests: backend.requests })
    }

    /// Carries out a decision as far as possible.
    fn act(&self, decision: &Decision, reporter: &Reporter) {
        match decision {
            Decision::Start(count, why) => {
                let would = if self.dry_run { "would start" } else { "starts" };
                reporter.log(format_args!("{would} {count} more: {why}"));
                if !self.dry_run {
                    self.start(*count, reporter);
                }
            }
            Decision::Stop(node, why) => {
                let would = if self.dry_run { "would stop" } else { "stops" };
                reporter.log(format_args!("{would} {}: {why}", node.name));
                let stopped = if self.dry_run { Ok(()) } else { self.lab.stop(&[&node.id]) };
                if let Err(error) = stopped {
                    reporter.log(format_args!("{} is not stopped: {error:#}", node.name));
                }
            }
            Decision::Nothing(..) => {}
        }
    }

    fn start(&self, count: usize, reporter: &Reporter) {
        let label = format!("--label={SCALED}={}", self.lab.network);
        let start = || {
            let name = self.lab.free_name(|_| false)?;
            self.lab.start(&name, &["--rm", &label])?;
            anyhow::Ok(name)
        };
        for _ in 0..count {
            match start() {
                Ok(name) => reporter.log(format_args!("{name} is started")),
                Err(error) => return reporter.log(format_args!("a node is not started: {error:#}")),
            }
        }
    }
}

/// What to say if the kernel's limit of neighbour (ARP) entries is too low for this many nodes: each container has an entry
/// for each other one, and those of all containers are counted together. Beyond the limit, packets are lost.
fn too_few_neighbours(limit: u32, nodes: u16) -> Option<String> {
    // As in start-containers.sh: as many again for whatever else is on this machine, and in the proportions of the defaults.
    let needed = 2 * (u32::from(nodes) + 2).pow(2);
    let name = "net.ipv4.neigh.default.gc_thresh";
    (limit < needed).then(|| {
        format!(
            "the kernel's limit of neighbour entries, {limit}, is too low for --max {nodes}: \
             sysctl -w {name}1={} {name}2={} {name}3={needed}",
            needed / 8,
            needed / 2
        )
    })
}

/// Why nothing was done last time, so that only a new reason is logged.
#[derive(Default)]
struct Idle(Option<Reason>);

impl Idle {
    fn note(&mut self, decision: &Decision, reporter: &Reporter) {
        match decision {
            // This resolves itself with time.
            Decision::Nothing(Reason::CoolDown | Reason::TooFewLooks, _) => {}
            Decision::Nothing(reason, why) => {
                if self.0.replace(*reason) != Some(*reason) {
                    reporter.log(format_args!("nothing to do: {why}"));
                }
            }
            _ => self.0 = None,
        }
    }
}

/// Runs the tool until it is stopped.
///
/// # Errors
/// None: failures are logged and retried.
pub fn run(tool: &ScaleNodes, reporter: &Reporter) -> Result<Exit> {
    let policy = match tool.policy() {
        Ok(policy) => policy,
        Err(error) => {
            reporter.log(error);
            return Ok(Exit::Usage);
        }
    };
    let limit = fs::read_to_string(NEIGHBOURS).ok().and_then(|text| text.trim().parse().ok());
    if let Some(line) = limit.and_then(|limit| too_few_neighbours(limit, tool.max)) {
        reporter.log(line);
    }
    let mut decider = Decider::new(policy);
    let mut idle = Idle::default();
    let began = Instant::now();
    loop {
        let looked = tool.look();
        let trouble = looked.as_ref().err().map(|error| format!("nothing can be decided: {error:#}"));
        reporter.log_new("look", trouble.into_iter().collect());
        if let Ok(figures) = looked {
            let decision = decider.decide(began.elapsed(), &figures);
            idle.note(&decision, reporter);
            tool.act(&decision, reporter);
        }
        thread::sleep(*tool.every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_twenty_nodes_are_too_many_for_the_kernel_s_default() {
        assert_eq!((too_few_neighbours(1024, 20), too_few_neighbours(5408, 50)), (None, None));
        let line = too_few_neighbours(1024, 21).unwrap();
        assert!(line.starts_with("the kernel's limit of neighbour entries, 1024, is too low for --max 21: sysctl -w "), "{line}");
        let name = "net.ipv4.neigh.default.gc_thresh";
        assert!(line.ends_with(&format!(" {name}1=132 {name}2=529 {name}3=1058")), "{line}");
    }
}
