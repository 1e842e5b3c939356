//! The outcome of a publish.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::candidate::Candidate;
use crate::config::Config;
use crate::haproxy::command::{Action, Command};
use crate::node::NodeName;
use crate::service::Conflict;

/// How the process was updated.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Applied {
    /// HAProxy is not running; it will read the file when it starts.
    NotRunning,
    /// Not at all: it was up to date.
    #[default]
    Nothing,
    /// By these commands at run time.
    Commands(Vec<Command>),
    /// By a reload, for this reason.
    Reload(String),
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("HAProxy is not running"),
            Self::Nothing => f.write_str("nothing to do"),
            Self::Commands(commands) => write!(f, "{} commands at run time", commands.len()),
            Self::Reload(reason) => write!(f, "reload: {reason}"),
        }
    }
}

impl Applied {
    fn commands(&self) -> &[Command] {
        if let Self::Commands(commands) = self { commands } else { &[] }
    }
}

/// The outcome of a publish.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether the file was replaced.
    pub written: bool,
    /// How the process was updated.
    pub applied: Applied,
    /// Registry files that were skipped, with the reasons.
    pub skipped_files: Vec<(PathBuf, String)>,
    /// Nodes that were excluded because HAProxy would reject the configuration, with its message.
    pub excluded: BTreeMap<NodeName, String>,
    /// Claims of services that are void, because another service has the place.
    pub conflicts: Vec<Conflict>,
    /// The servers that were changed.
    pub servers: Servers,
    /// Certificates that were added, replaced or removed, by the names of their files.
    pub certificates: BTreeSet<String>,
    /// Certificates that are not used, with the reasons, or that have ended.
    pub certificate_problems: BTreeSet<String>,
    /// Number of this publish among those that changed something; 0 if it changed nothing.
    pub generation: u64,
    /// Duration of each step, and of the whole as `total`.
    pub times: Vec<(&'static str, Duration)>,
}

impl Outcome {
    /// The outcome after the text of the file has changed from `old` to `new`, and the process was updated.
    pub(super) fn new(old: Option<&str>, new: &str, applied: Applied) -> Self {
        let servers = Servers::of(old.unwrap_or_default(), new, &applied);
        Self { written: old != Some(new), applied, servers, ..Self::default() }
    }

    /// Adds the skipped files, excluded nodes and conflicts.
    pub(super) fn with_omitted(mut self, candidate: Candidate) -> Self {
        self.conflicts = candidate.conflicts();
        (self.skipped_files, self.excluded) = candidate.into_omitted();
        self
    }

    /// Whether file or process has changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.written || !self.certificates.is_empty() || matches!(self.applied, Applied::Commands(_) | Applied::Reload(_))
    }
}

/// The servers changed by a publish, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Servers {
    /// New in the file.
    pub added: BTreeSet<String>,
    /// No longer in the file.
    pub removed: BTreeSet<String>,
    /// Their line has changed, or the process differed from the file.
    pub changed: BTreeSet<String>,
    /// Of the removed ones, those still in maintenance because they have connections.
    pub waiting: BTreeSet<String>,
    /// Removed earlier, and now deleted from the process because their connections have ended.
    pub finished: BTreeSet<String>,
}

impl Servers {
    /// Compares the old file with the new one, and adds what was done to the process.
    pub(crate) fn of(old: &str, new: &str, applied: &Applied) -> Self {
        let (before, after) = if old == new { Default::default() } else { (server_lines(old), server_lines(new)) };
        let mut servers = Self::default();
        for (name, lines) in &after {
            match before.get(name) {
                None => drop(servers.added.insert((*name).to_owned())),
                Some(old) if old != lines => drop(servers.changed.insert((*name).to_owned())),
                Some(_) => {}
            }
        }
        servers.removed = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (*name).to_owned()).collect();
        let commands = applied.commands();
        if !commands.is_empty() {
            servers.waiting.clone_from(&servers.removed);
        }
        for command in commands {
            servers.add(&command.server.server, &command.action);
        }
        servers
    }

    fn add(&mut self, name: &str, action: &Action) {
        if *action == Action::DeleteWhenIdle {
            self.waiting.remove(name);
            if !self.removed.contains(name) {
                self.finished.insert(name.to_owned());
            }
        } else if !self.added.contains(name) && !self.removed.contains(name) {
            self.changed.insert(name.to_owned());
        }
    }

    /// The lists, by their keys in the log.
    pub(super) fn lists(&self) -> [(&'static str, &BTreeSet<String>); 5] {
        [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &self.changed),
            ("waiting", &self.waiting),
            ("finished", &self.finished),
        ]
    }
}

/// The server lines of a configuration, by the name of the server, which may be in several backends.
fn server_lines(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut servers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, line) in Config::parse(text).servers {
        servers.entry(key.server).or_default().push(line.to_string());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerKey;
    use crate::publish::summary::Summary;

    const OLD: &str = "global\nbackend nodes\n    server a 1.1.1.1:1\n    server b 1.1.1.2:1\n    server c 1.1.1.3:1\nlisten x\n";
    const NEW: &str = "global\nbackend nodes\n    server b 1.1.1.2:9\n    server c 1.1.1.3:1\n    server d 1.1.1.4:1\nlisten x\n";

    fn command(server: &str, action: Action) -> Command {
        Command { server: ServerKey::new("nodes", server), action }
    }

    fn published(applied: Applied) -> Outcome {
        let servers = Servers::of(OLD, NEW, &applied);
        let times = vec![("render", Duration::from_micros(1234)), ("total", Duration::from_millis(2))];
        Outcome { written: true, applied, servers, generation: 7, times, ..Outcome::default() }
    }

    #[test]
    fn the_line_has_what_was_added_removed_and_changed() {
        let commands = vec![command("d", Action::Check), command("a", Action::Maintain), command("old", Action::DeleteWhenIdle)];
        let line = Summary::new(&published(Applied::Commands(commands)), "member-join").to_string();
        assert_eq!(
            line,
            "published generation=7 cause=member-join applied=run-time added=d removed=a changed=b waiting=a finished=old \
             commands=3 render_ms=1.234 total_ms=2.000"
        );
    }

    #[test]
    fn a_server_that_is_deleted_at_once_does_not_wait() {
        let commands = vec![command("a", Action::Maintain), command("a", Action::DeleteWhenIdle)];
        assert!(published(Applied::Commands(commands)).servers.waiting.is_empty());
        assert!(published(Applied::NotRunning).servers.waiting.is_empty());
    }

    #[test]
    fn what_was_only_done_to_the_process_is_a_change() {
        let applied = Applied::Commands(vec![command("b", Action::Ready)]);
        let servers = Servers::of(OLD, OLD, &applied);
        assert_eq!(servers.changed.into_iter().collect::<Vec<_>>(), ["b"]);
    }
}
