//! `deploy-nodes`: replaces nodes by ones of another image, a few at a time.

use anyhow::Result;
use clap::Parser;
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};
use scale_nodes::docker::Lab;

pub mod decision;
mod rollout;

use decision::Policy;
use rollout::Rollout;

const EXAMPLES: &str = "  deploy-nodes --image shop:2 --dry-run             # only say what would be replaced
  deploy-nodes --image shop:2
  deploy-nodes --image shop:2 --at-once 50          # blue/green: all new ones first, then none of the old
  deploy-nodes --image shop:1                       # back again
  deploy-nodes --image shop:2 --drain 10m --idle 1m -- --stop-timeout 40 -e DRAIN_TIMEOUT=35";

/// Replace nodes by ones of another image, a few at a time.
///
/// Runs on the host. For --at-once nodes at a time: starts new ones, waits until all of them pass HAProxy's health check,
/// drains the old ones until they have had no request for --idle, at most for --drain, and stops and removes them with
/// `docker stop`, so that no request is lost. If a new node does not get ready, the new ones whose old ones are still running
/// are removed, and the old ones get new sessions again. Ctrl-C leaves all nodes running; the next run continues. A node that
/// already runs the image is left alone.
#[derive(Debug, Parser)]
#[command(name = "deploy-nodes", version, after_help = after_help(EXAMPLES))]
pub struct DeployNodes {
    /// Number of nodes to replace at a time; with as many as there are, all new ones must be ready before an old one drains
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=50))]
    at_once: u16,
    /// Give up if a new node is not ready after this time
    #[arg(long, value_name = "TIME", default_value = "1m")]
    ready_within: humantime::Duration,
    /// Stop an old node once it has had no request for this long: its sessions count as over
    #[arg(long, value_name = "TIME", default_value = "10s")]
    idle: humantime::Duration,
    /// Stop an old node after this time, even if its sessions go on
    #[arg(long, value_name = "TIME", default_value = "1m")]
    drain: humantime::Duration,
    /// Only log what would be replaced
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    lab: Lab,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for DeployNodes {
    const NAME: &'static str = "deploy-nodes";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }

    fn is_unlimited(&self) -> bool {
        true
    }
}

impl DeployNodes {
    fn policy(&self) -> Policy {
        Policy { at_once: self.at_once.into(), ready_within: *self.ready_within, idle: *self.idle, drain: *self.drain }
    }
}

/// Runs the tool.
///
/// # Errors
/// If the nodes cannot be replaced, or it is interrupted; the message says which nodes are running.
pub fn run(tool: &DeployNodes, reporter: &Reporter) -> Result<Exit> {
    let mut rollout = Rollout::begin(tool, reporter)?;
    if !tool.dry_run && !rollout.is_done() {
        rollout.run()?;
    }
    Ok(Exit::Done)
}
