//! `show-nodes`: every node in the four states, and the differences between them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use lb_core::members::MemberList;
use lb_core::members::RoleOptions;
use lb_core::members::containers::Containers;
use lb_core::node::NodeName;
use lb_core::os::atomic_file::replace;
use lb_core::publish::PublishOptions;
use lb_core::publish::stats::{Stats, last_sync, stats_path};
use lb_core::registry::reconcile::{Judge, Kept};
use lb_core::service::Conflict;
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool};

mod drift;
mod history;
mod live;
mod metrics;
mod nodes;
mod routes;
mod states;
mod table;
mod text;

use drift::{Drift, drift, explain_refusal};
use nodes::Nodes;
use states::{States, told};
use table::Style;

/// How long a difference must last to count: by then, a sync in progress is done.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Pause between two checks of a difference.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

const AFTER_HELP: &str = "Examples:
  docker exec ha show-nodes
  docker exec ha show-nodes --wide                  # with ports, weights and health checks
  docker exec ha show-nodes s1                      # name, container name or address
  docker exec -it ha show-nodes --watch
  docker exec ha show-nodes --routes                # who answers where
  show-nodes --serve 127.0.0.1:1937                 # the live page, at http://127.0.0.1:1937/live
  show-nodes --metrics --watch 15 --output /var/lib/node_exporter/lb.prom

Exit codes:
  0   the four states agree
  1   they differ, or one of them cannot be read
  2   invalid options";

/// Show every node in the four states, and the differences between them.
///
/// The states are the member list, the registry, haproxy.cfg and the running HAProxy; each is derived from the one before
/// it. A difference is reported once it has lasted two seconds, with how to fix it. A node that has left and is finishing
/// its requests is not a difference, nor is one that gossip has lost and HAProxy reaches. Changes nothing.
#[derive(Debug, Parser)]
#[command(name = "show-nodes", version, after_help = AFTER_HELP)]
pub struct ShowNodes {
    /// Show only this node, given by name, container name or address: where it is, and how it got there
    #[arg(value_name = "NAME", conflicts_with = "metrics")]
    name: Option<String>,
    /// Show which service answers where, and which claims are void
    #[arg(long, conflicts_with_all = ["metrics", "name"])]
    routes: bool,
    /// Give each failed member a row, instead of one line for all
    #[arg(long, conflicts_with_all = ["metrics", "name", "routes"])]
    all: bool,
    /// Show all columns, instead of those that fit the terminal, or 80 characters
    #[arg(long, conflicts_with = "metrics")]
    wide: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "metrics")]
    json: bool,
    /// Print metrics for Prometheus
    #[arg(long)]
    metrics: bool,
    /// Write the metrics to this file, for the textfile collector of the node exporter
    #[arg(long, value_name = "FILE", requires = "metrics")]
    output: Option<PathBuf>,
    /// Keep running until interrupted, refreshing every SECONDS
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    /// Serve the live page at http://ADDRESS/live until interrupted; whoever reaches the address can read it
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["name", "all", "wide", "json", "metrics", "watch"])]
    serve: Option<SocketAddr>,
    #[command(flatten)]
    role: RoleOptions,
    #[command(flatten)]
    options: PublishOptions,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for ShowNodes {
    const NAME: &'static str = "show-nodes";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }

    fn is_unlimited(&self) -> bool {
        self.watch.is_some() || self.serve.is_some()
    }
}

/// The states at one moment.
pub struct View {
    states: States,
    nodes: Nodes,
    drift: Vec<Drift>,
}

impl View {
    /// Claims of services that are void.
    fn conflicts(&self) -> Vec<Conflict> {
        self.states.services().map(|services| services.conflicts).unwrap_or_default()
    }
}

/// Runs the tool.
///
/// # Errors
/// If the output cannot be written, or the live page cannot be served.
pub fn run(tool: &ShowNodes, reporter: &Reporter) -> Result<Exit> {
    if let Some(address) = tool.serve {
        return live::serve(tool, address, reporter);
    }
    let mut containers = Containers::for_person();
    loop {
        let view = tool.settled(&mut containers);
        let (text, exit) = tool.text(&view, &mut containers);
        let written = match &tool.output {
            Some(path) => replace(path, text.as_bytes(), 0o644).with_context(|| format!("write {}", path.display())),
            None => match tool.print(&text) {
                // `show-nodes | head`
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(exit),
                result => result.context("write standard output"),
            },
        };
        let Some(seconds) = tool.watch else { return written.map(|()| exit) };
        if let Err(error) = written {
            reporter.hint(format_args!("{error:#}"));
        }
        thread::sleep(Duration::from_secs(seconds));
    }
}

impl ShowNodes {
    fn look(&self, containers: &mut Containers) -> View {
        let mut states = States::read(&self.options);
        let list = states.members.as_ref().map_err(Clone::clone);
        let list = list.and_then(|members| Ok(MemberList::of(members, &self.role.admission().map_err(told)?)));
        // Without it, there is no telling which members are nodes.
        let list = list.map_err(|reason| states.members = Err(reason)).ok();
        let kept = self.kept(&states, list.as_ref());
        let nodes = Nodes::of(&states, list.as_ref(), &kept, &self.role.role, self.options.render.port, containers);
        let drift = drift(&states, list.as_ref(), &nodes, self.role.max_nodes);
        View { states, nodes, drift }
    }

    /// The nodes that sync-nodes may keep although the member list says otherwise. It knows who was said to leave but did not;
    /// here, any node may be one.
    fn kept(&self, states: &States, list: Option<&MemberList>) -> BTreeMap<NodeName, Kept> {
        let (Some(list), Ok(registry), Ok(witness)) = (list, &states.registry, &states.witness) else { return BTreeMap::new() };
        let judge = Judge { list, doubted: &registry.nodes().keys().cloned().collect(), port: self.options.render.port };
        judge.kept(registry, || Ok::<_, Infallible>(witness.clone())).unwrap_or_else(|never| match never {})
    }

    /// Looks again until the differences seen first are gone, or have lasted.
    fn settled(&self, containers: &mut Containers) -> View {
        let begin = Instant::now();
        let mut view = self.look(containers);
        while !view.drift.is_empty() && begin.elapsed() < SETTLE_TIME {
            thread::sleep(POLL_INTERVAL);
            let mut next = self.look(containers);
            let before: BTreeSet<_> = view.drift.iter().map(Drift::key).collect();
            next.drift.retain(|drift| before.contains(&drift.key()));
            view = next;
        }
        if view.drift.iter().any(|drift| drift.state == "file") {
            if let Some(words) = view.states.refusal(&self.options.process) {
                explain_refusal(&mut view.drift, &words, &self.options.render.template);
            }
        }
        view
    }

    fn text(&self, view: &View, containers: &mut Containers) -> (String, Exit) {
        let differs = !view.drift.is_empty() || !view.states.unreadable().is_empty();
        let exit = if differs { Exit::Failed } else { Exit::Done };
        let master = &self.options.process.master_socket;
        let stats = || Stats::load(&stats_path(master));
        let style = Style::of_stdout(self.wide);
        match &self.name {
            _ if self.metrics => (metrics::metrics(view, &stats(), last_sync(master)), Exit::Done),
            Some(name) => text::one(view, name, &self.run_options.log_file, self.json, style)
                .unwrap_or_else(|| (text::no_node(name, view.states.role_of(name, containers), &self.role.role), Exit::Failed)),
            None if self.routes => {
                let text = if self.json { routes::json(view) } else { routes::table(view, style) };
                // Without it, the table of the nodes says why.
                text.map_or_else(|| (text::all(view, self.all, style), Exit::Failed), |text| (text, Exit::Done))
            }
            None if self.json => (text::json(view, stats().generation()), exit),
            None => (text::all(view, self.all, style), exit),
        }
    }

    /// With --watch, a terminal is cleared each time.
    fn print(&self, text: &str) -> io::Result<()> {
        let again = self.watch.is_some() && io::stdout().is_terminal();
        let mut output = io::stdout().lock();
        if again {
            output.write_all(b"\x1b[H\x1b[2J")?;
        }
        output.write_all(text.as_bytes())?;
        if self.watch.is_some() && !again {
            output.write_all(b"\n")?;
        }
        output.flush()
    }
}
