//! What the two event handlers share: lines in, registry changed, published.

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
    /// Registry, template, file and process.
    #[command(flatten)]
    pub publish: PublishOptions,
    /// Where to log.
    #[command(flatten)]
    pub log: RunOptions,
}

/// Why an event could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Standard input cannot be read.
    #[error("read standard input")]
    Input(#[from] io::Error),
    /// It is not known where nodes may be.
    #[error(transparent)]
    Networks(#[from] NetworksError),
    /// The registry cannot be changed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// File or process cannot be brought up to date.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// What happened to the members of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// They are there: joined or updated.
    Present,
    /// They are gone: left, failed or reaped.
    Gone,
}

/// Most lines of one event of Serf, or of those that come to nothing, that are told one by one.
const TOLD: usize = 100;

/// So many nodes of one event are looked at in any case: they may all be there already, whatever the limit is now.
const MANY: usize = 10_000;

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

/// What Serf says by an event, when it has started the tool (Serf's documentation, "Event Handlers").
struct SerfEvent(String);

impl SerfEvent {
    fn of_environment() -> Option<Self> {
        Some(Self(std::env::var_os("SERF_EVENT")?.to_string_lossy().into_owned()))
    }

    /// What the member did.
    fn deed(&self) -> &'static str {
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

/// Reads the event's lines on standard input, applies them to the registry, and publishes.
///
/// Started by Serf while `sync-nodes` is alive, it only wakes that: Serf hands events over a second late and loses
/// some, so that this event may be older than the member list that `sync-nodes` sees.
///
/// # Errors
/// [`HandlerError`]. Refused lines and nodes are none; they are logged, and told by [`Exit::Rejected`].
pub fn handle(event: Event, options: &HandlerOptions, reporter: &Reporter) -> Result<Exit, HandlerError> {
    let serf = SerfEvent::of_environment();
    let mut door = Intake { role: &options.role, reporter, serf: serf.as_ref(), bad: 0, too_many: 0 };
    // Who is gone may have been anywhere.
    let gate = if event == Event::Present { Some(options.role.gate()?) } else { None };
    let mut changes = door.read(gate.as_ref())?;
    let (nodes, process) = (&options.publish.render.nodes_dir, &options.publish.process);
    if changes.is_empty() {
        return Ok(door.exit());
    }
    if serf.is_some() && wake(&pipe_path(&process.master_socket)) {
        // What is wrong with the registry, the other one tells.
        let admitted = door.admit(changes, &Registry::read(nodes).unwrap_or_else(|_| Registry::empty(nodes)));
        door.log(&admitted, true);
        return Ok(door.exit());
    }
    let published = Lock::take(&process.config).map_err(PublishError::from).and_then(|lock| {
        publish(&options.publish, &lock, |registry| {
            changes = door.admit(mem::take(&mut changes), registry);
            changes.iter().try_for_each(|change| change.apply(registry))?;
            door.log(&mem::take(&mut changes), true);
            Ok(())
        })
    });
    // If the registry could not be changed, the log still has what the event was about.
    let published = published.inspect_err(|_| door.log(changes.get(..TOLD).unwrap_or(&changes), false))?;
    reporter.published(&published, &options.log.cause());
    Ok(if published.excluded.is_empty() { door.exit() } else { Exit::Rejected })
}

/// Where members come in, or do not.
struct Intake<'a> {
    role: &'a RoleOptions,
    reporter: &'a Reporter,
    /// None when a person has started the tool.
    serf: Option<&'a SerfEvent>,
    /// Bad lines.
    bad: usize,
    /// Nodes for which there was no room.
    too_many: usize,
}

impl Intake<'_> {
    /// Reads all lines, and tells the bad ones with the reason. Without a gate they are of members that are gone.
    fn read(&mut self, gate: Option<&Admission>) -> io::Result<Vec<Change>> {
        let input = io::stdin();
        if input.is_terminal() {
            self.reporter.hint("type event lines, NAME ADDRESS ROLE [TAGS], and end them with Ctrl-D");
        }
        let mut changes = Vec::new();
        read_lines(BufReader::new(input), |number, line| match line.and_then(|line| self.parse(gate, line)) {
            // For which there is room is seen later; what no cluster has takes no memory until then.
            Ok(Some(Change::Put(_))) if changes.len() >= self.role.max_nodes.max(MANY) => self.too_many += 1,
            Ok(Some(change)) => changes.push(change),
            Ok(None) => {}
            Err(error) => {
                self.bad += 1;
                if self.bad <= TOLD {
                    self.reporter.say(format_args!("line {number}{REJECTED}{error}"));
                }
            }
        })?;
        if self.bad > TOLD {
            self.reporter.say(format_args!("{} more lines rejected", self.bad - TOLD));
        }
        Ok(changes)
    }

    fn parse(&self, gate: Option<&Admission>, line: &str) -> Result<Option<Change>, LineError> {
        let Some(gate) = gate else { return Ok(Some(Change::Remove(parse_gone(line)?))) };
        match parse_present(line, gate)? {
            Line::Node(node) => Ok(Some(Change::Put(node))),
            Line::Other { name, role } => {
                let event = self.serf.map_or_else(String::new, |event| format!(": event {}", event.0));
                self.reporter.say(format_args!("{} has the role {}, not load-balanced{event}", Quoted(&name), Quoted(&role)));
                Ok(None)
            }
        }
    }

    /// The changes for which the registry has room: only new nodes need any.
    fn admit(&mut self, changes: Vec<Change>, registry: &Registry) -> Vec<Change> {
        let mut room = self.role.max_nodes.saturating_sub(registry.count());
        let (admitted, refused): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| {
            let is_new = matches!(change, Change::Put(node) if !registry.has(&node.name));
            let is_admitted = !is_new || room > 0;
            room = room.saturating_sub(usize::from(is_new));
            is_admitted
        });
        self.too_many += refused.len();
        if self.too_many > 0 {
            self.reporter.say(too_many(self.too_many, self.role.max_nodes));
        }
        admitted
    }

    /// Logs the changes: run by hand, whether each was `applied` to the registry; run by Serf, what the members did.
    fn log(&self, changes: &[Change], applied: bool) {
        let Some(event) = self.serf else {
            return changes.iter().for_each(|change| match change {
                Change::Put(node) if applied => self.reporter.registered(node),
                Change::Put(node) => self.reporter.say(format_args!("not registered: {node}")),
                Change::Remove(name) if applied => self.reporter.unregistered(name),
                Change::Remove(name) => self.reporter.say(format_args!("not unregistered: {name}")),
            });
        };
        for change in changes.iter().take(TOLD) {
            let (deed, event) = (event.deed(), &event.0);
            match change {
                Change::Put(node) => self.reporter.say(format_args!("{node} {deed}: event {event}")),
                Change::Remove(name) => self.reporter.say(format_args!("{name} {deed}: event {event}")),
            }
        }
        if changes.len() > TOLD {
            self.reporter.say(format_args!("{} more members: event {}", changes.len() - TOLD, event.0));
        }
    }

    fn exit(&self) -> Exit {
        if self.bad + self.too_many == 0 { Exit::Done } else { Exit::Rejected }
    }
}

/// The message about all nodes that were rejected because there are `limit` already.
#[must_use]
pub fn too_many(rejected: usize, limit: usize) -> String {
    format!("{rejected} nodes rejected: the limit is {limit} (--max-nodes, MAX_NODES)")
}
