//! What the two event handlers share: lines in, registry changed, published.

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

/// One change to the registry.
enum Change {
    Put(Node),
    Remove(NodeName),
}

/// Reads the event's lines on standard input, applies them to the registry, and publishes.
///
/// Started by Serf while `sync-nodes` is alive, it only wakes that: Serf hands events over a second late and loses
/// some, so that this event may be older than the member list that `sync-nodes` sees.
///
/// # Errors
/// [`HandlerError`]. Refused lines are none; they are logged, and told by [`Exit::Refused`].
pub fn handle(event: Event, options: &HandlerOptions, reporter: &Reporter) -> Result<Exit, HandlerError> {
    let (changes, exit) = read(event, &options.role.role, reporter)?;
    let from_serf = std::env::var_os("SERF_EVENT").is_some();
    if changes.is_empty() || (from_serf && wake(&pipe_path(&options.publish.process.master_socket))) {
        return Ok(exit);
    }
    let lock = Lock::take(&options.publish.process.config).map_err(PublishError::from)?;
    let registry = Registry::new(&options.publish.render.nodes_dir);
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

/// Reads all lines, and logs each: the good ones as what happened, the bad ones with the reason.
fn read(event: Event, role: &str, reporter: &Reporter) -> io::Result<(Vec<Change>, Exit)> {
    let input = io::stdin();
    if input.is_terminal() {
        reporter.hint("type event lines, NAME ADDRESS ROLE [TAGS], and end them with Ctrl-D");
    }
    let (mut changes, mut exit) = (Vec::new(), Exit::Done);
    read_lines(BufReader::new(input), |number, line| match line.and_then(|line| parse(event, line, role, reporter)) {
        Ok(change) => changes.extend(change),
        Err(error) => {
            exit = Exit::Refused;
            reporter.say(format_args!("line {number} refused: {error}"));
        }
    })?;
    Ok((changes, exit))
}

fn parse(event: Event, line: &str, role: &str, reporter: &Reporter) -> Result<Option<Change>, LineError> {
    if event == Event::Gone {
        let name = parse_gone(line)?;
        reporter.say(format_args!("{name} is gone"));
        return Ok(Some(Change::Remove(name)));
    }
    match parse_present(line, role)? {
        Line::Node(node) => {
            reporter.say(format_args!("{node} is there"));
            Ok(Some(Change::Put(node)))
        }
        Line::Other { name, role } => {
            reporter.say(format_args!("{} has the role {}, not load-balanced", Quoted(&name), Quoted(&role)));
            Ok(None)
        }
    }
}
