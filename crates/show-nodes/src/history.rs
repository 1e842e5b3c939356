//! What the log says about one node.

use std::path::Path;

use lb_core::members::containers::parse_in_container;
use lb_core::os::escape::Quoted;
use lb_core::os::read_file::read;
use lb_core::publish::summary::{How, Summary};
use lb_core::tool::reporter::is_rejection;
use serde::Serialize;

/// Maximum number of lines shown; the last ones are kept.
const MAX_LINES: usize = 50;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it was written, in UTC.
    pub time: String,
    /// The tool that wrote it.
    pub tool: String,
    /// What it says.
    pub message: String,
}

/// How a node got to where it is.
#[derive(Debug, Default, Serialize)]
pub struct History {
    /// The lines about it, oldest first.
    pub lines: Vec<Entry>,
    /// The last publish that added, removed or changed it, as a sentence.
    pub last: Option<String>,
    /// Why it was last rejected.
    pub refused: Option<String>,
}

/// The log file, and the rotated one before it.
#[derive(Debug)]
pub struct Log(Vec<Entry>);

impl Log {
    /// Reads both; a file that cannot be read counts as empty.
    #[must_use]
    pub fn read(log: &Path) -> Self {
        let mut before = log.as_os_str().to_owned();
        before.push(".1");
        let text = [Path::new(&before), log].map(|path| read(path).unwrap_or_default());
        Self::of(&text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
    }

    fn of(text: &str) -> Self {
        Self(entries(text))
    }

    /// The node that `asked` refers to: the last one with this name, or in a container with this name.
    #[must_use]
    pub fn node<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        self.0.iter().rev().find_map(|entry| match parse_in_container(&entry.message) {
            Some((node, container)) if node == asked || container == asked => Some(node),
            None if is_about(&entry.message, asked) => Some(asked),
            _ => None,
        })
    }

    /// The container that the node `name` was last seen in.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&str> {
        let mut containers = self.0.iter().rev().filter_map(|entry| parse_in_container(&entry.message));
        containers.find(|(node, _)| *node == name).map(|(_, container)| container)
    }
}

impl History {
    /// What the log says about the node `name`.
    #[must_use]
    pub fn of(log: &Log, name: &str) -> Self {
        let mut lines: Vec<Entry> = log.0.iter().filter(|entry| is_about(&entry.message, name)).cloned().collect();
        lines.drain(..lines.len().saturating_sub(MAX_LINES));
        let last = lines.iter().rev().find_map(|entry| sentence(entry, name));
        let rejection = lines.iter().rev().find(|entry| is_rejection(&entry.message));
        let refused = rejection.map(|entry| format!("{} by {}: {}", entry.time, entry.tool, entry.message));
        Self { lines, last, refused }
    }
}

/// The entries of a log; other lines are left out.
#[must_use]
pub fn entries(text: &str) -> Vec<Entry> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (time, rest) = line.split_once(' ')?;
    let (tool, message) = rest.split_once(": ")?;
    // The log is only as trustworthy as what was written to it.
    let message = message.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    time.ends_with('Z').then(|| Entry { time: time.to_owned(), tool: tool.to_owned(), message })
}

/// Whether a line contains the name as a word. A container with this name may belong to another node.
fn is_about(message: &str, name: &str) -> bool {
    if let Some((node, _)) = parse_in_container(message) {
        return node == name;
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    message.contains(&Quoted(name).to_string())
        || message.split(|c| !in_name(c)).any(|word| word == name || word.strip_suffix(['.', '-']) == Some(name))
}

/// What a publish did to the node.
fn sentence(entry: &Entry, name: &str) -> Option<String> {
    let summary: Summary = entry.message.parse().ok()?;
    let lists: Vec<_> = summary.lists_with(name).collect();
    let waiting = if lists.contains(&"waiting") { ", then it had something to finish" } else { "" };
    let deeds =
        [("added", "put in"), ("removed", "taken out"), ("changed", "changed"), ("finished", "had finished, and was deleted")];
    let deed = deeds.iter().find(|(list, _)| lists.contains(list)).map(|(_, deed)| deed)?;
    let how = match summary.how {
        How::RunTime => "at run time",
        How::Reload => "by a reload",
        How::File => "in the file only",
    };
    let Summary { cause, generation, .. } = &summary;
    Some(format!("{deed} {} by {} (cause: {cause}), {how}, generation {generation}{waiting}", entry.time, entry.tool))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:01Z sync-nodes: registered s1 172.18.0.2
2026-01-01T00:00:01Z sync-nodes: registered s10 172.18.0.3
2026-01-01T00:00:01Z sync-nodes: published generation=3 cause=agent-log applied=run-time added=s1,s10 commands=6 total_ms=2.110
2026-01-01T00:00:02Z sync-nodes: member 'a/b' rejected: name 'a/b' is not 1 to 128 of
2026-01-01T00:00:03Z sync-nodes: member 's1' rejected: weight 'x' is not 0 to 256
2026-01-01T00:00:03Z sync-nodes: unregistered s1
2026-01-01T00:00:03Z sync-nodes: published generation=4 cause=timer applied=run-time removed=s1 waiting=s1 commands=1 total_ms=2.110
";

    #[test]
    fn only_lines_about_the_node_are_told() {
        let lines = |text: &str, name: &str| History::of(&Log::of(text), name).lines.len();
        assert_eq!(lines(LOG, "s1"), 5);
        assert_eq!(lines(LOG, "s10"), 2);
        assert_eq!(lines(LOG, "a/b"), 1);
        assert_eq!(lines(LOG, "s"), 0);
        assert_eq!(lines("no line of ours\n\n\u{1b} x: s1\n", "s1"), 0);
    }

    #[test]
    fn a_container_is_the_last_node_that_was_in_it() {
        let log = Log::of(
            "\
2026-01-01T00:00:01Z sync-nodes: registered 1c0f 172.18.0.2
2026-01-01T00:00:01Z sync-nodes: 1c0f is the container s1
2026-01-01T00:00:02Z sync-nodes: 8d2e is the container s2
2026-01-01T00:00:03Z sync-nodes: c47a is the container s1
2026-01-01T00:00:04Z sync-nodes: unregistered 1c0f
",
        );
        assert_eq!(
            [log.node("s1"), log.node("s2"), log.node("1c0f"), log.node("s3")],
            [Some("c47a"), Some("8d2e"), Some("1c0f"), None]
        );
        assert_eq!([log.container("1c0f"), log.container("c47a"), log.container("s1")], [Some("s1"), Some("s1"), None]);
        assert_eq!([History::of(&log, "1c0f").lines.len(), History::of(&log, "s1").lines.len()], [3, 0]);
    }

    #[test]
    fn the_last_publish_and_the_last_refusal_are_told() {
        let log = Log::of(LOG);
        let history = History::of(&log, "s1");
        assert_eq!(
            history.last.unwrap(),
            "taken out 2026-01-01T00:00:03Z by sync-nodes (cause: timer), at run time, generation 4, then it had something to finish"
        );
        let refused = "2026-01-01T00:00:03Z by sync-nodes: member 's1' rejected: weight 'x' is not 0 to 256";
        assert_eq!(history.refused.unwrap(), refused);
        assert!(
            History::of(&log, "s10").last.unwrap().starts_with("put in 2026-01-01T00:00:01Z by sync-nodes (cause: agent-log)")
        );
    }
}
