//! What the two event handlers share: lines in, registry changed, published.

use std::fmt;
use std::io::{self, BufReader, IsTerminal};

use clap::Args;

use crate::cli::Exit;
use crate::event::{Line, LineError, parse_gone, parse_present, read_lines};
use crate::lock::Lock;
use crate::log::Reporter;
use crate::node::{Node, NodeName};
use crate::options::{PublishOptions, RoleOptions, RunOptions};
use crate::publish::{PublishError, publish};
use crate::quote::Quoted;
use crate::registry::{Registry, RegistryError};
use crate::wake::{pipe_path, wake};

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

/// Most bad lines of one event that are told one by one.
const TOLD: usize = 100;

/// One change to the registry.
enum Change {
    Put(Node),
    Remove(NodeName),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(node) => write!(f, "{node} is there"),
            Self::Remove(name) => write!(f, "{name} is gone"),
        }
    }
}

/// Reads the event's lines on standard input, applies them to the registry, and publishes.
///
/// Started by Serf while `sync-nodes` is alive, it only wakes that: Serf hands events over a second late and loses
/// some, so that this event may be older than the member list that `sync-nodes` sees.
///
/// # Errors
/// [`HandlerError`]. Refused lines and nodes are none; they are logged, and told by [`Exit::Refused`].
pub fn handle(event: Event, options: &HandlerOptions, reporter: &Reporter) -> Result<Exit, HandlerError> {
    let registry = Registry::new(&options.publish.render.nodes_dir);
    let mut door = Door { role: &options.role, registry: &registry, room: None, bad: 0, too_many: 0 };
    let changes = door.read(event, reporter)?;
    let exit = door.close(reporter);
    let from_serf = std::env::var_os("SERF_EVENT").is_some();
    if changes.is_empty() || (from_serf && wake(&pipe_path(&options.publish.process.master_socket))) {
        return Ok(exit);
    }
    let lock = Lock::take(&options.publish.process.config).map_err(PublishError::from)?;
    for change in &changes {
        match change {
            Change::Put(node) => registry.put(node)?,
            Change::Remove(name) => registry.remove(name)?,
        };
    }
    let published = publish(&options.publish, &lock)?;
    reporter.published(&published, &options.log.cause());
    Ok(if published.left_out.is_empty() { exit } else { Exit::Refused })
}

/// Where members come in, or do not.
struct Door<'a> {
    role: &'a RoleOptions,
    registry: &'a Registry,
    /// How many more nodes may come in; not known before the first.
    room: Option<usize>,
    /// Bad lines.
    bad: usize,
    /// Nodes for which there was no room.
    too_many: usize,
}

impl Door<'_> {
    /// Reads all lines, and logs each: the good ones as what happens, the bad ones with the reason.
    fn read(&mut self, event: Event, reporter: &Reporter) -> io::Result<Vec<Change>> {
        let input = io::stdin();
        if input.is_terminal() {
            reporter.hint("type event lines, NAME ADDRESS ROLE [TAGS], and end them with Ctrl-D");
        }
        let mut changes = Vec::new();
        read_lines(BufReader::new(input), |number, line| match line.and_then(|line| self.parse(event, line, reporter)) {
            Ok(Some(change)) if self.has_room(&change) => {
                reporter.say(&change);
                changes.push(change);
            }
            Ok(Some(_)) => self.too_many += 1,
            Ok(None) => {}
            Err(error) => {
                self.bad += 1;
                if self.bad <= TOLD {
                    reporter.say(format_args!("line {number} refused: {error}"));
                }
            }
        })?;
        Ok(changes)
    }

    fn parse(&self, event: Event, line: &str, reporter: &Reporter) -> Result<Option<Change>, LineError> {
        if event == Event::Gone {
            return Ok(Some(Change::Remove(parse_gone(line)?)));
        }
        match parse_present(line, &self.role.role)? {
            Line::Node(node) => Ok(Some(Change::Put(node))),
            Line::Other { name, role } => {
                reporter.say(format_args!("{} has the role {}, not load-balanced", Quoted(&name), Quoted(&role)));
                Ok(None)
            }
        }
    }

    /// Whether a node can come in: one that is there already can, and what goes takes no room.
    fn has_room(&mut self, change: &Change) -> bool {
        let Change::Put(node) = change else { return true };
        // A registry that cannot be read is told when it is to be changed.
        let room = self.room.get_or_insert_with(|| self.role.max_nodes.saturating_sub(self.registry.count().unwrap_or(0)));
        let is_new = !self.registry.has(&node.name);
        if is_new && *room == 0 {
            return false;
        }
        *room -= usize::from(is_new);
        true
    }

    /// Tells what was refused and not yet told.
    fn close(&self, reporter: &Reporter) -> Exit {
        if self.bad > TOLD {
            reporter.say(format_args!("{} further lines refused", self.bad - TOLD));
        }
        if self.too_many > 0 {
            reporter.say(too_many(self.too_many, self.role.max_nodes));
        }
        if self.bad + self.too_many == 0 { Exit::Done } else { Exit::Refused }
    }
}

/// The one line for all nodes that were refused because there are enough.
#[must_use]
pub fn too_many(refused: usize, most: usize) -> String {
    format!("{refused} nodes refused: there may be {most} at most (--max-nodes, MAX_NODES)")
}
