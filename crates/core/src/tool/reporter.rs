//! Where the tools say what they did: standard error, and a log file of bounded size.

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

/// Size at which the log file is put aside as `<file>.1`, in bytes; so both together never have more than twice that.
const LARGEST: u64 = 1 << 20;

/// Separates a rejected line or member from the reason.
pub const REJECTED: &str = " rejected: ";
/// Separates a node that is not in the configuration from the reason.
pub const EXCLUDED: &str = " excluded: ";

/// Whether a message of the log says why a member or node was rejected or excluded.
#[must_use]
pub fn is_rejection(message: &str) -> bool {
    message.contains(REJECTED) || message.contains(EXCLUDED)
}

/// How lines look on standard error and on the console; the log file is always text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `tool: what: why`
    #[default]
    Text,
    /// A JSON object: `time`, `tool`, `message`, and what else there is
    Json,
}

/// Says what a tool did, one line each: `tool: what: why`.
///
/// A line goes to standard error, to the log file with the time before it, and, from an event handler, to the
/// console as well, because Serf keeps a handler's output to itself. A log that cannot be written stops no tool.
#[derive(Debug)]
pub struct Reporter {
    tool: &'static str,
    format: Format,
    log: RefCell<Option<PathBuf>>,
    /// What was complained of in the last round, by topic.
    complaints: RefCell<BTreeMap<&'static str, BTreeSet<String>>>,
    console: Option<PathBuf>,
}

impl Reporter {
    /// A reporter for `tool` with a log file and a console to write to.
    #[must_use]
    pub fn new(tool: &'static str, format: Format, log: Option<PathBuf>, console: Option<PathBuf>) -> Self {
        Self { tool, format, log: RefCell::new(log), complaints: RefCell::default(), console }
    }

    /// Says one line; line breaks and other control characters in it become spaces, so that it stays one.
    pub fn say(&self, what: impl fmt::Display) {
        let what = what.to_string().replace(char::is_control, " ");
        self.emit(&what, || Map::from_iter([("message".to_owned(), json!(what))]));
    }

    /// Says a line that has `fields` in the JSON format.
    fn emit(&self, what: &str, fields: impl FnOnce() -> Map<String, Value>) {
        let now = SystemTime::now();
        let line = format!("{}: {what}\n", self.tool);
        let shown = match self.format {
            Format::Text => line.clone(),
            Format::Json => self.as_json(now, fields()),
        };
        write_stderr(&shown);
        if let Some(console) = &self.console {
            // Only a copy for `docker logs`; there may be no such console.
            let _ = append(console, OFlag::O_NONBLOCK, &shown);
        }
        self.keep(now, &line);
    }

    fn as_json(&self, now: SystemTime, mut fields: Map<String, Value>) -> String {
        fields.insert("time".to_owned(), json!(humantime::format_rfc3339_millis(now).to_string()));
        fields.insert("tool".to_owned(), json!(self.tool));
        format!("{}\n", Value::Object(fields))
    }

    /// Tells a person at the terminal what is expected; this is not logged.
    pub fn hint(&self, what: impl fmt::Display) {
        write_stderr(&format!("{}: {what}\n", self.tool));
    }

    /// Says what a publish changed, if anything, and why it was done, in one line; and which registry
    /// files and nodes it passed over.
    pub fn published(&self, published: &Outcome, cause: &str) {
        self.skipped(&published.skipped);
        let excluded = published.excluded.iter().map(|(name, words)| format!("{name}{EXCLUDED}HAProxy rejects it: {words}"));
        self.complain("nodes", excluded.collect());
        if published.changed() {
            let summary = published.summary(cause);
            self.emit(&summary.to_string(), || summary.fields());
        }
    }

    /// Says which registry files were passed over, and why.
    pub fn skipped(&self, skipped: &[(PathBuf, String)]) {
        let line = |(path, reason): &(PathBuf, String)| format!("skipped {}: {reason}", Quoted(&path.to_string_lossy()));
        self.complain("registry", skipped.iter().map(line).collect());
    }

    /// Says the complaints of this round about a topic, except those that it had in the round before as well.
    pub fn complain(&self, topic: &'static str, complaints: BTreeSet<String>) {
        let before = self.complaints.borrow_mut().remove(topic).unwrap_or_default();
        for complaint in complaints.difference(&before) {
            self.say(complaint);
        }
        self.complaints.borrow_mut().insert(topic, complaints);
    }

    /// Logs that a node is registered.
    pub fn registered(&self, node: &Node) {
        self.say(format_args!("registered {node}"));
    }

    /// Logs that a node is no longer registered.
    pub fn unregistered(&self, name: &NodeName) {
        self.say(format_args!("unregistered {name}"));
    }

    fn keep(&self, now: SystemTime, line: &str) {
        let Some(path) = self.log.borrow().clone() else { return };
        let time = humantime::format_rfc3339_seconds(now);
        if let Err(error) = append_bounded(&path, &format!("{time} {line}")) {
            // Say it once, and go on without the log.
            self.log.replace(None);
            write_stderr(&format!("{}: log file {}: {error}\n", self.tool, path.display()));
        }
    }
}

/// Standard error may be closed; there is nobody left to tell then.
fn write_stderr(line: &str) {
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Appends a line to the log file, after it was put aside when it has become too large.
fn append_bounded(path: &Path, line: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() >= LARGEST) {
        put_aside(path)?;
    }
    match append(path, OFlag::O_NONBLOCK, line) {
        // Another user's file, say root's after `docker exec -u 0`: in a directory of ours it can be replaced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            put_aside(path)?;
            append(path, OFlag::empty(), line)
        }
        result => result,
    }
}

fn put_aside(path: &Path) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    fs::rename(path, aside)
}

/// One `write` in append mode, so that lines of several tools never mix.
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
        reporter(&path).say("one\ntwo\x1b[2J");
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
            reporter(&path).keep(SystemTime::now(), &line);
        }
        let total: u64 = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(total < 3 * LARGEST, "{total}");
        assert!(path.exists());
    }

    #[test]
    fn a_log_that_cannot_be_written_is_given_up_and_the_console_has_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console");
        for log in ["/nonexistent/serf.log", "/"] {
            fs::write(&console, "").unwrap();
            let reporter = Reporter::new("test", Format::Text, Some(log.into()), Some(console.clone()));
            reporter.say("one");
            assert_eq!(*reporter.log.borrow(), None, "{log}");
            reporter.say("two");
            assert_eq!(fs::read_to_string(&console).unwrap(), "test: one\ntest: two\n", "{log}");
        }
    }
}
