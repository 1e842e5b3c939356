//! The event handlers: read the lines of an event, change the registry, publish.

use std::io::{self, BufReader, IsTerminal};
use std::mem;

use clap::Args;

use crate::members::RoleOptions;
use crate::members::admission::{Admission, NetworksError};
use crate::members::event::{Line, LineError, parse_gone, parse_present, read_lines};
use crate::node::{Node, NodeName};
use crate::os::escape::Quoted;
use crate::publish::PublishOptions;
use crate::publish::lock::Lock;
use crate::publish::{PublishError, publish};
use crate::registry::{Registry, RegistryError};
use crate::tool::Exit;
use crate::tool::RunOptions;
use crate::tool::reporter::{REJECTED, Reporter};
use crate::tool::wakeup::{pipe_path, wake};

/// The options of an event handler.
#[derive(Debug, Clone, Args)]
pub struct HandlerOptions {
    /// Which members are nodes.
    #[command(flatten)]
    pub role: RoleOptions,
    /// Registry, template, configuration file and process.
    #[command(flatten)]
    pub publish: PublishOptions,
    /// Logging and time limit.
    #[command(flatten)]
    pub log: RunOptions,
}

/// Why an event could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Standard input cannot be read.
    #[error("read standard input")]
    Input(#[from] io::Error),
    /// The networks of the nodes cannot be determined.
    #[error(transparent)]
    Networks(#[from] NetworksError),
    /// The registry cannot be changed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The configuration cannot be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What happened to the members of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// They joined or were updated.
    Present,
    /// They left, failed or were reaped.
    Gone,
}

/// Maximum number of rejected lines, or of members of a Serf event, logged one by one.
const MAX_LOGGED: usize = 100;

/// Buffer at least this many nodes of an event, whatever the limit is: they may all be registered already.
const MIN_BUFFERED: usize = 10_000;

/// One change to the registry.
enum Change {
    Put(Node),
    Remove(NodeName),
}

impl Change {
    fn apply(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        match self {
            Self::Put(node) => registry.put(node).map(drop),
            Self::Remove(name) => registry.remove(name).map(drop),
        }
    }
}

/// Name of the event for which Serf started the tool (Serf's documentation, "Event Handlers").
struct SerfEvent(String);

impl SerfEvent {
    fn from_env() -> Option<Self> {
        Some(Self(std::env::var_os("SERF_EVENT")?.to_string_lossy().into_owned()))
    }

    /// What the members did, as a verb.
    fn verb(&self) -> &'static str {
        match self.0.as_str() {
            "member-join" => "joined",
            "member-update" => "changed its tags",
            "member-leave" => "left",
            "member-failed" => "failed",
            "member-reap" => "was reaped",
            _ => "was named",
        }
    }
}

/// Reads the lines of an event from standard input, applies them to the registry, and publishes.
///
/// If Serf starts it while `sync-nodes` is running, it only wakes `sync-nodes`. Serf delivers events a second late and loses
/// some, so the event may be older than the member list that `sync-nodes` sees.
///
/// # Errors
/// [`HandlerError`]. Rejected lines and nodes are not errors; they are logged, and the result is [`Exit::Rejected`].
pub fn handle(event: Event, options: &HandlerOptions, reporter: &Reporter) -> Result<Exit, HandlerError> {
    let serf = SerfEvent::from_env();
    let mut handler = Handler { role: &options.role, reporter, serf: serf.as_ref(), rejected: 0, over_limit: 0 };
    // A member that is gone may have had any address.
    let admission = if event == Event::Present { Some(options.role.admission()?) } else { None };
    let mut changes = handler.read(admission.as_ref())?;
    let (nodes, process) = (&options.publish.render.nodes_dir, &options.publish.process);
    if changes.is_empty() {
        return Ok(handler.exit());
    }
    if serf.is_some() && wake(&pipe_path(&process.master_socket)) {
        // Problems with the registry are reported by `sync-nodes`.
        let admitted = handler.admit(changes, &Registry::read(nodes).unwrap_or_else(|_| Registry::empty(nodes)));
        handler.log(&admitted, true);
        return Ok(handler.exit());
    }
    let published = Lock::take(&process.config).map_err(PublishError::from).and_then(|lock| {
        publish(&options.publish, &lock, |registry, _| {
            changes = handler.admit(mem::take(&mut changes), registry);
            let mut applied = 0;
            let result = changes.iter().try_for_each(|change| change.apply(registry).map(|()| applied += 1));
            handler.log(changes.drain(..applied).as_slice(), true);
            Ok(result?)
        })
    });
    // If the registry could not be changed, the log still has what else the event was about.
    let published = published.inspect_err(|_| handler.log(changes.get(..MAX_LOGGED).unwrap_or(&changes), false))?;
    reporter.published(&published, &options.log.cause());
    Ok(if published.excluded.is_empty() { handler.exit() } else { Exit::Rejected })
}

/// The handling of one event.
struct Handler<'a> {
    role: &'a RoleOptions,
    reporter: &'a Reporter,
    /// The Serf event; `None` if a person started the tool.
    serf: Option<&'a SerfEvent>,
    /// Number of rejected lines.
    rejected: usize,
    /// Number of nodes above the limit.
    over_limit: usize,
}

impl Handler<'_> {
    /// Reads all lines, and logs why any are rejected. Without `admission` they are about members that are gone.
    fn read(&mut self, admission: Option<&Admission>) -> io::Result<Vec<Change>> {
        let input = io::stdin();
        if input.is_terminal() {
            self.reporter.hint("type event lines, NAME ADDRESS ROLE [TAGS], and end them with Ctrl-D");
        }
        let mut changes = Vec::new();
        read_lines(BufReader::new(input), |number, line| match line.and_then(|line| self.parse(admission, line)) {
            // The limit is enforced later; this only bounds the memory used until then.
            Ok(Some(Change::Put(_))) if changes.len() >= self.role.max_nodes.max(MIN_BUFFERED) => self.over_limit += 1,
            Ok(Some(change)) => changes.push(change),
            Ok(None) => {}
            Err(error) => {
                self.rejected += 1;
                if self.rejected <= MAX_LOGGED {
                    self.reporter.log(format_args!("line {number}{REJECTED}{error}"));
                }
            }
        })?;
        if self.rejected > MAX_LOGGED {
            self.reporter.log(format_args!("{} more lines rejected", self.rejected - MAX_LOGGED));
        }
        Ok(changes)
    }

    fn parse(&self, admission: Option<&Admission>, line: &str) -> Result<Option<Change>, LineError> {
        let Some(admission) = admission else { return Ok(Some(Change::Remove(parse_gone(line)?))) };
        match parse_present(line, admission)? {
            Line::Node(node) => Ok(Some(Change::Put(node))),
            Line::Other { name, role } => {
                let event = self.serf.map_or_else(String::new, |event| format!(": event {}", event.0));
                self.reporter.log(format_args!("{} has the role {}, not load-balanced{event}", Quoted(&name), Quoted(&role)));
                Ok(None)
            }
        }
    }

    /// The changes for which the registry has room: only new nodes need any.
    fn admit(&mut self, changes: Vec<Change>, registry: &Registry) -> Vec<Change> {
        let mut room = self.role.max_nodes.saturating_sub(registry.count());
        let (admitted, excess): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| {
            let is_new = matches!(change, Change::Put(node) if !registry.has(&node.name));
            let is_admitted = !is_new || room > 0;
            room = room.saturating_sub(usize::from(is_new));
            is_admitted
        });
        self.over_limit += excess.len();
        if self.over_limit > 0 {
            self.reporter.log(over_limit(self.over_limit, self.role.max_nodes));
        }
        admitted
    }

    /// Logs the changes: run by hand, whether each was `applied` to the registry; run by Serf, what the members did.
    fn log(&self, changes: &[Change], applied: bool) {
        let Some(event) = self.serf else {
            return changes.iter().for_each(|change| match change {
                Change::Put(node) if applied => self.reporter.registered(node),
                Change::Put(node) => self.reporter.log(format_args!("not registered: {node}")),
                Change::Remove(name) if applied => self.reporter.unregistered(name),
                Change::Remove(name) => self.reporter.log(format_args!("not unregistered: {name}")),
            });
        };
        for change in changes.iter().take(MAX_LOGGED) {
            let (verb, event) = (event.verb(), &event.0);
            match change {
                Change::Put(node) => self.reporter.log(format_args!("{node} {verb}: event {event}")),
                Change::Remove(name) => self.reporter.log(format_args!("{name} {verb}: event {event}")),
            }
        }
        if changes.len() > MAX_LOGGED {
            self.reporter.log(format_args!("{} more members: event {}", changes.len() - MAX_LOGGED, event.0));
        }
    }

    fn exit(&self) -> Exit {
        if self.rejected + self.over_limit == 0 { Exit::Done } else { Exit::Rejected }
    }
}

/// The message about all nodes that were rejected because there are `limit` already.
#[must_use]
pub fn over_limit(rejected: usize, limit: usize) -> String {
    format!("{rejected} nodes rejected: the limit is {limit} (--max-nodes, MAX_NODES)")
}
