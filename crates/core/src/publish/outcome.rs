//! What a publish did: the one line that says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::haproxy::plan::{Action, Command};
use crate::node::NodeName;

/// How the process was made equal to the file.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Applied {
    /// HAProxy does not run; it will read the file when it starts.
    NotRunning,
    /// It ran what the file says already.
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
            Self::NotRunning => f.write_str("HAProxy does not run"),
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

    /// The same in one word of the log.
    fn word(&self) -> &'static str {
        match self {
            Self::NotRunning | Self::Nothing => "file",
            Self::Commands(_) => "run-time",
            Self::Reload(_) => "reload",
        }
    }
}

/// What a publish did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The file was replaced.
    pub written: bool,
    /// What was done to the process.
    pub applied: Applied,
    /// Registry files that are no node, with the reasons.
    pub skipped: Vec<(PathBuf, String)>,
    /// Nodes that are left out because HAProxy would refuse the whole with them, in its words.
    pub left_out: BTreeMap<NodeName, String>,
    /// The servers that it was about.
    pub servers: Servers,
    /// Its number among the publishes that changed something; 0 when it changed nothing.
    pub generation: u64,
    /// How long each step took, and all of them.
    pub times: Vec<(&'static str, Duration)>,
}

impl Outcome {
    /// Whether file or process was changed.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.written || matches!(self.applied, Applied::Commands(_) | Applied::Reload(_))
    }

    /// The line of the log, as `key=value` pairs; lists that are empty are left out.
    #[must_use]
    pub fn line(&self, cause: &str) -> String {
        let mut line = format!("published generation={} cause={} applied={}", self.generation, word(cause), self.applied.word());
        for (key, names) in self.servers.lists() {
            if !names.is_empty() {
                let names: Vec<String> = names.iter().map(|name| word(name)).collect();
                line += &format!(" {key}={}", names.join(","));
            }
        }
        match &self.applied {
            Applied::Commands(commands) => line += &format!(" commands={}", commands.len()),
            Applied::Reload(reason) => line += &format!(" reason=\"{}\"", reason.replace('"', "'")),
            Applied::NotRunning | Applied::Nothing => {}
        }
        self.times.iter().fold(line, |line, (step, time)| line + &format!(" {step}_ms={}", milliseconds(*time)))
    }

    /// The same as the fields of a JSON object.
    #[must_use]
    pub fn fields(&self, cause: &str) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        put("message", json!("published"));
        put("generation", json!(self.generation));
        put("cause", json!(cause));
        put("applied", json!(self.applied.word()));
        for (key, names) in self.servers.lists() {
            put(key, json!(names));
        }
        match &self.applied {
            Applied::Commands(commands) => put("commands", json!(commands.len())),
            Applied::Reload(reason) => put("reason", json!(reason)),
            Applied::NotRunning | Applied::Nothing => {}
        }
        for (step, time) in &self.times {
            put(&format!("{step}_ms"), json!(time.as_micros() as f64 / 1000.0));
        }
        fields
    }
}

/// With three decimals; without floating-point numbers, which would cost each tool 10 kB.
fn milliseconds(time: Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

/// A text as one word of a line, whatever is in it.
fn word(text: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || "._-:/".contains(c) { c } else { '?' };
    text.chars().take(128).map(good).collect()
}

/// The servers that a publish was about, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Servers {
    /// The file has them now.
    pub added: BTreeSet<String>,
    /// The file has them no more.
    pub removed: BTreeSet<String>,
    /// Their line is another one, or the process had them otherwise than the file.
    pub changed: BTreeSet<String>,
    /// Of the removed ones, those that finish what they have, in maintenance.
    pub waiting: BTreeSet<String>,
    /// They left before, had finished, and the process has them no more.
    pub finished: BTreeSet<String>,
}

impl Servers {
    /// Compares the file before with the file now, and adds what was done to the process.
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
            let name = command.server.rsplit_once('/').map_or(command.server.as_str(), |(_, name)| name);
            servers.note(name, &command.action);
        }
        servers
    }

    fn note(&mut self, name: &str, action: &Action) {
        if *action == Action::DeleteWhenIdle {
            self.waiting.remove(name);
            if !self.removed.contains(name) {
                self.finished.insert(name.to_owned());
            }
        } else if !self.added.contains(name) && !self.removed.contains(name) {
            self.changed.insert(name.to_owned());
        }
    }

    /// The lists with their names in the log.
    fn lists(&self) -> [(&'static str, &BTreeSet<String>); 5] {
        [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &self.changed),
            ("waiting", &self.waiting),
            ("finished", &self.finished),
        ]
    }
}

/// The server lines of a configuration by the server's name, which several backends may have.
fn server_lines(text: &str) -> BTreeMap<&str, Vec<String>> {
    let mut servers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, line) in Config::parse(text).servers {
        servers.entry(key.server).or_default().push(line.to_string());
    }
    servers
}

/// Takes the time of each step.
#[derive(Debug)]
pub(crate) struct Timings {
    begin: Instant,
    times: RefCell<Vec<(&'static str, Duration)>>,
}

impl Timings {
    pub(crate) fn begin() -> Self {
        Self { begin: Instant::now(), times: RefCell::default() }
    }

    /// Does a step; one that is done twice counts as one.
    pub(crate) fn time<T>(&self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = work();
        let mut times = self.times.borrow_mut();
        match times.iter_mut().find(|(name, _)| *name == step) {
            Some((_, time)) => *time += begin.elapsed(),
            None => times.push((step, begin.elapsed())),
        }
        result
    }

    /// The times of all steps, and at last the whole.
    pub(crate) fn end(self) -> Vec<(&'static str, Duration)> {
        let mut times = self.times.into_inner();
        times.push(("total", self.begin.elapsed()));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "global\nbackend nodes\n    server a 1.1.1.1:1\n    server b 1.1.1.2:1\n    server c 1.1.1.3:1\nlisten x\n";
    const NEW: &str = "global\nbackend nodes\n    server b 1.1.1.2:9\n    server c 1.1.1.3:1\n    server d 1.1.1.4:1\nlisten x\n";

    fn command(server: &str, action: Action) -> Command {
        Command { server: format!("nodes/{server}"), action }
    }

    fn published(applied: Applied) -> Outcome {
        let servers = Servers::of(OLD, NEW, &applied);
        let times = vec![("render", Duration::from_micros(1234)), ("total", Duration::from_millis(2))];
        Outcome { written: true, applied, servers, generation: 7, times, ..Outcome::default() }
    }

    #[test]
    fn the_line_has_what_was_added_removed_and_changed() {
        let commands = vec![command("d", Action::Check), command("a", Action::Maintain), command("old", Action::DeleteWhenIdle)];
        let line = published(Applied::Commands(commands)).line("member-join");
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
    fn no_word_of_a_file_breaks_the_line() {
        let servers = Servers::of("backend nodes\n server a\u{1b}\"x 1.1.1.1:1\n", "", &Applied::NotRunning);
        let line = Outcome { servers, ..published(Applied::Reload("line 'x \"y\"' is new".to_owned())) }.line("a cause");
        assert!(line.contains(" cause=a?cause ") && line.contains(" removed=a??x "), "{line}");
        assert!(line.contains(" reason=\"line 'x 'y'' is new\""), "{line}");
    }

    #[test]
    fn what_was_only_done_to_the_process_is_a_change() {
        let applied = Applied::Commands(vec![command("b", Action::Ready)]);
        let servers = Servers::of(OLD, OLD, &applied);
        assert_eq!(servers.changed.into_iter().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn json_has_every_list() {
        let fields = published(Applied::Reload("why".to_owned())).fields("hint");
        assert_eq!((&fields["added"], &fields["waiting"]), (&json!(["d"]), &json!([])));
        assert_eq!((&fields["generation"], &fields["reason"], &fields["render_ms"]), (&json!(7), &json!("why"), &json!(1.234)));
    }
}
