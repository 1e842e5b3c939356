//! Logging to standard error and to a log file of bounded size.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::OFlag;
use serde_json::{Map, Value, json};

use crate::node::{Node, NodeName};
use crate::os::escape::Quoted;
use crate::publish::outcome::Outcome;
use crate::publish::summary::Summary;

/// Maximum number of conflicts between services logged one by one.
const MAX_CONFLICTS: usize = 100;
/// Size in bytes at which the log file is renamed to `<file>.1`; both together are at most twice as large.
const MAX_SIZE: u64 = 1 << 20;

/// Separates a rejected line or member from the reason.
pub const REJECTED: &str = " rejected: ";
/// Separates a node that is not in the configuration from the reason.
pub const EXCLUDED: &str = " excluded: ";

/// Whether a message of the log says why a member or node was rejected or excluded.
#[must_use]
pub fn is_rejection(message: &str) -> bool {
    message.contains(REJECTED) || message.contains(EXCLUDED)
}

/// Format of the lines on standard error and on the console; the log file is always text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `tool: what: why`
    #[default]
    Text,
    /// A JSON object with `time`, `tool`, `message`, and further fields
    Json,
}

/// Logs what a tool does, in lines of the form `tool: what: why`.
///
/// A line goes to standard error and, with a timestamp, to the log file. The lines of an event handler also go to the
/// console, because Serf swallows its output. A tool never fails because its log cannot be written.
#[derive(Debug)]
pub struct Reporter {
    tool: &'static str,
    format: Format,
    /// `None` once it could not be written.
    log_file: RefCell<Option<PathBuf>>,
    /// The problems of the last round, by topic.
    problems: RefCell<BTreeMap<&'static str, BTreeSet<String>>>,
    console: Option<PathBuf>,
}

impl Reporter {
    /// A reporter for `tool` that writes to these files.
    #[must_use]
    pub fn new(tool: &'static str, format: Format, log: Option<PathBuf>, console: Option<PathBuf>) -> Self {
        Self { tool, format, log_file: RefCell::new(log), problems: RefCell::default(), console }
    }

    /// Logs one line. Control characters in it, such as line breaks, become spaces.
    pub fn log(&self, what: impl fmt::Display) {
        let what = what.to_string().replace(char::is_control, " ");
        self.emit(&what, || Map::from_iter([("message".to_owned(), json!(what))]));
    }

    /// Logs a line, which has `fields` in the JSON format.
    fn emit(&self, what: &str, fields: impl FnOnce() -> Map<String, Value>) {
        let now = SystemTime::now();
        let line = format!("{}: {what}\n", self.tool);
        let shown = match self.format {
            Format::Text => line.clone(),
            Format::Json => self.as_json(now, fields()),
        };
        write_stderr(&shown);
        if let Some(console) = &self.console {
            // Only a copy for `docker logs`, and the console may not exist.
            let _ = append(console, OFlag::O_NONBLOCK, &shown);
        }
        self.write_log(now, &line);
    }

    fn as_json(&self, now: SystemTime, mut fields: Map<String, Value>) -> String {
        fields.insert("time".to_owned(), json!(humantime::format_rfc3339_millis(now).to_string()));
        fields.insert("tool".to_owned(), json!(self.tool));
        format!("{}\n", Value::Object(fields))
    }

    /// Writes a hint for a person at a terminal to standard error; it is not logged.
    pub fn hint(&self, what: impl fmt::Display) {
        write_stderr(&format!("{}: {what}\n", self.tool));
    }

    /// Logs the outcome of a publish: in one line what it changed, if anything, then skipped files and excluded nodes that
    /// were not logged in the round before.
    pub fn published(&self, published: &Outcome, cause: &str) {
        self.skipped_files(&published.skipped_files);
        let excluded = published.excluded.iter().map(|(name, reason)| format!("{name}{EXCLUDED}HAProxy rejects it: {reason}"));
        self.log_new("nodes", excluded.collect());
        self.log_new("certificates", published.certificate_problems.clone());
        let (shown, more) = published.conflicts.split_at(published.conflicts.len().min(MAX_CONFLICTS));
        let more = (!more.is_empty()).then(|| format!("{} more claims of services are void", more.len()));
        self.log_changes("routes", shown.iter().map(ToString::to_string).chain(more).collect());
        if published.changed() {
            let summary = Summary::new(published, cause);
            self.emit(&summary.to_string(), || summary.fields());
        }
    }

    /// Logs the registry files that were skipped, and why.
    pub fn skipped_files(&self, skipped: &[(PathBuf, String)]) {
        let line = |(path, reason): &(PathBuf, String)| format!("skipped {}: {reason}", Quoted(&path.to_string_lossy()));
        self.log_new("registry", skipped.iter().map(line).collect());
    }

    /// Logs the problems of this round with a topic, except those that were there in the round before.
    pub fn log_new(&self, topic: &'static str, problems: BTreeSet<String>) {
        let before = self.problems.borrow_mut().remove(topic).unwrap_or_default();
        for problem in problems.difference(&before) {
            self.log(problem);
        }
        self.problems.borrow_mut().insert(topic, problems);
    }

    /// The same, and logs which problems of the round before are over.
    fn log_changes(&self, topic: &'static str, problems: BTreeSet<String>) {
        let before = self.problems.borrow().get(topic).cloned().unwrap_or_default();
        for problem in before.difference(&problems) {
            self.log(format_args!("over: {problem}"));
        }
        self.log_new(topic, problems);
    }

    /// Logs that a node is registered.
    pub fn registered(&self, node: &Node) {
        self.log(format_args!("registered {node}"));
    }

    /// Logs that a node is no longer registered.
    pub fn unregistered(&self, name: &NodeName) {
        self.log(format_args!("unregistered {name}"));
    }

    fn write_log(&self, now: SystemTime, line: &str) {
        let Some(path) = self.log_file.borrow().clone() else { return };
        let time = humantime::format_rfc3339_seconds(now);
        if let Err(error) = append_bounded(&path, &format!("{time} {line}")) {
            // Report this once, and continue without the log file.
            self.log_file.replace(None);
            write_stderr(&format!("{}: log file {}: {error}\n", self.tool, path.display()));
        }
    }
}

/// Writes to standard error; if it is closed, there is nowhere to report that.
fn write_stderr(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Appends a line to the log file, which is rotated first if it is too large.
fn append_bounded(path: &Path, line: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() >= MAX_SIZE) {
        rotate(path)?;
    }
    match append(path, OFlag::O_NONBLOCK, line) {
        // The file of another user, such as root's after `docker exec -u 0`. In a directory of ours it can be replaced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rotate(path)?;
            append(path, OFlag::empty(), line)
        }
        result => result,
    }
}

fn rotate(path: &Path) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    fs::rename(path, aside)
}

/// Appends by a single `write`, so that the lines of concurrent tools do not mix.
fn append(path: &Path, flags: OFlag, line: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(flags.bits()).open(path)?;
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(path: &Path) -> Reporter {
        Reporter::new("test", Format::Text, Some(path.to_owned()), None)
    }

    #[test]
    fn a_line_stays_one_line_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serf.log");
        reporter(&path).log("one\ntwo\x1b[2J");
        let text = fs::read_to_string(&path).unwrap();
        let (time, line) = text.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{text}");
        assert_eq!(line, "test: one two [2J\n");
    }

    #[test]
    fn the_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serf.log");
        let line = "x".repeat(300_000);
        for _ in 0..20 {
            reporter(&path).write_log(SystemTime::now(), &line);
        }
        let total: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(total < 3 * MAX_SIZE, "{total}");
        assert!(path.exists());
    }

    #[test]
    fn a_log_that_cannot_be_written_is_given_up_and_the_console_has_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console");
        for log in ["/nonexistent/serf.log", "/"] {
            fs::write(&console, "").unwrap();
            let reporter = Reporter::new("test", Format::Text, Some(log.into()), Some(console.clone()));
            reporter.log("one");
            assert_eq!(*reporter.log_file.borrow(), None, "{log}");
            reporter.log("two");
            assert_eq!(fs::read_to_string(&console).unwrap(), "test: one\ntest: two\n", "{log}");
        }
    }
}
