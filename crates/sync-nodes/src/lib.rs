//! `sync-nodes`: makes the registry match the member list, then publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lb_core::members::MemberList;
use lb_core::members::RoleOptions;
use lb_core::members::agent;
use lb_core::members::containers::{Containers, in_container};
use lb_core::node::NodeName;
use lb_core::os::escape::Quoted;
use lb_core::publish::PublishOptions;
use lb_core::publish::lock::Lock;
use lb_core::publish::publish;
use lb_core::publish::stats::record_sync;
use lb_core::registry::reconcile::{Change, Judge, Kept, reconcile};
use lb_core::tool::RunOptions;
use lb_core::tool::handler::over_limit;
use lb_core::tool::reporter::{REJECTED, Reporter};
use lb_core::tool::{Exit, Tool, after_help};

mod follow;
mod hints;
mod leaves;

/// Maximum number of rejected members, or of kept nodes, logged one by one.
const MAX_LOGGED: usize = 100;

const EXAMPLES: &str = "  docker exec ha sync-nodes
  sync-nodes --follow --every 10s                   # in a run script
  serf members -format=json | sync-nodes --from -";

/// Make the registry match the member list and publish.
///
/// Registers every alive member with the role and unregisters everything else, then renders haproxy.cfg and updates the
/// running HAProxy. Writes only what differs. Without a member list, the registry is left as it is. A node that has failed
/// in gossip, or is missing from it, is kept while HAProxy's health check reaches it.
#[derive(Debug, Parser)]
#[command(name = "sync-nodes", version, after_help = after_help(EXAMPLES))]
pub struct SyncNodes {
    /// Read the member list from a file, or - for standard input, instead of asking Serf
    #[arg(long, value_name = "FILE", conflicts_with_all = ["follow", "wait"])]
    from: Option<PathBuf>,
    /// Keep running: sync as soon as Serf reports a change, and at least once per --every
    #[arg(long)]
    follow: bool,
    /// Maximum interval between two syncs of --follow
    #[arg(long, env = "SYNC_EVERY", value_name = "TIME", default_value = "10s")]
    every: humantime::Duration,
    /// Retry for this long while there is not a member list
    #[arg(long, value_name = "TIME", default_value = "0s", conflicts_with = "follow")]
    wait: humantime::Duration,
    #[command(flatten)]
    role: RoleOptions,
    #[command(flatten)]
    options: PublishOptions,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for SyncNodes {
    const NAME: &'static str = "sync-nodes";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }

    fn is_unlimited(&self) -> bool {
        self.follow || !self.wait.is_zero()
    }
}

/// Runs the tool.
///
/// # Errors
/// If there is not a member list, or the registry, the file or the process cannot be changed. With `--follow`, these are only
/// logged.
pub fn run(tool: &SyncNodes, reporter: &Reporter) -> Result<Exit> {
    if tool.follow {
        return follow::follow(tool, reporter);
    }
    let list = tool.list_within(*tool.wait)?;
    Ok(tool.apply(&list, &BTreeSet::new(), &tool.run_options.cause(), reporter)?.exit)
}

/// What a sync has done.
struct Synced {
    exit: Exit,
    /// Nodes that were kept although the member list says otherwise.
    kept: BTreeMap<NodeName, Kept>,
    change: Change,
}

impl SyncNodes {
    /// The member list; retries for the duration `wait`.
    fn list_within(&self, wait: Duration) -> Result<MemberList> {
        let deadline = Instant::now() + wait;
        loop {
            match self.list() {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                result => return result,
            }
        }
    }

    fn list(&self) -> Result<MemberList> {
        let admission = self.role.admission()?;
        let list = match self.from.as_deref() {
            None => MemberList::of(&agent::members()?, &admission),
            Some(path) if path.as_os_str() == "-" => {
                let mut json = String::new();
                io::stdin().read_to_string(&mut json).context("read standard input")?;
                MemberList::parse(&json, &admission).context("standard input is not a member list")?
            }
            Some(path) => {
                let json = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                MemberList::parse(&json, &admission).with_context(|| format!("{} is not a member list", path.display()))?
            }
        };
        ensure!(list.members > 0, "the member list has no member at all, not even its own agent");
        Ok(list)
    }

    /// Makes registry, file and process follow the list. A list that was given by hand is taken at its word; otherwise
    /// `doubted` are the nodes that are not taken at theirs.
    fn apply(&self, list: &MemberList, doubted: &BTreeSet<NodeName>, cause: &str, reporter: &Reporter) -> Result<Synced> {
        let lock = Lock::take(&self.options.process.config)?;
        let mut rejected = false;
        let (mut kept, mut change) = (BTreeMap::new(), Change::default());
        let published = publish(&self.options, &lock, |registry, haproxy| {
            if self.from.is_none() {
                let judge = Judge { list, doubted, port: self.options.render.port };
                kept = judge.kept(registry, || haproxy.witness())?;
            }
            change = reconcile(registry, list, &kept, self.role.max_nodes)?;
            registry.forget_idle(|service| self.role.role.has_service(service))?;
            rejected = self.log(&change, &kept, list, reporter);
            Ok(())
        })?;
        reporter.published(&published, cause);
        record_sync(&self.options.process.master_socket);
        drop(lock);
        name_containers(&change.arrived, list, reporter);
        let rejected = rejected || !published.excluded.is_empty() || !published.certificate_problems.is_empty();
        let exit = if rejected { Exit::Rejected } else { Exit::Done };
        Ok(Synced { exit, kept, change })
    }

    /// Logs what changed, and what was kept or rejected; returns whether anything was rejected.
    fn log(&self, change: &Change, kept: &BTreeMap<NodeName, Kept>, list: &MemberList, reporter: &Reporter) -> bool {
        let reason = |(name, reason): &(String, _)| format!("member {}{REJECTED}{reason}", Quoted(name));
        let mut rejected = first(&list.rejected, reason, "members rejected");
        if change.over_limit > 0 {
            rejected.insert(over_limit(change.over_limit, self.role.max_nodes));
        }
        let is_rejected = !rejected.is_empty();
        reporter.log_new("members", rejected);
        reporter.log_new("kept", first(kept, |(name, why)| format!("{name} {why}"), "nodes kept"));
        for node in change.registered.iter().filter_map(|name| list.nodes.get(name)) {
            reporter.registered(node);
        }
        for name in &change.unregistered {
            reporter.unregistered(name);
        }
        is_rejected
    }
}

/// A line for each of the first [`MAX_LOGGED`], and one that counts the others.
fn first<T>(
    all: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    line: impl Fn(T) -> String,
    what: &str,
) -> BTreeSet<String> {
    let all = all.into_iter();
    let more = all.len().saturating_sub(MAX_LOGGED);
    all.take(MAX_LOGGED).map(line).chain((more > 0).then(|| format!("{more} more {what}"))).collect()
}

/// Logs the containers of new nodes, because Docker forgets the name of a container once it is gone.
fn name_containers(arrived: &BTreeSet<NodeName>, list: &MemberList, reporter: &Reporter) {
    let nodes = || arrived.iter().filter_map(|name| list.nodes.get(name));
    let mut containers = Containers::for_service();
    containers.find(nodes().map(|node| node.address.ip()));
    for node in nodes() {
        let container = containers.name(node.address.ip()).filter(|name| *name != node.name.as_str());
        if let Some(container) = container {
            reporter.log(in_container(&node.name, container));
        }
    }
}
