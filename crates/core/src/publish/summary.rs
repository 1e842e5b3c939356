//! The summary of a publish in the log, written by the tools and read by `show-nodes`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::outcome::{Applied, Outcome};

/// Maximum number of names in one list: the line stays short when thousands of servers change.
const MAX_NAMES: usize = 20;
/// Maximum length of a word, in characters.
const MAX_WORD: usize = 128;

/// One line of `key=value` pairs, as in `published generation=7 cause=timer applied=run-time added=s1,s2 commands=6
/// total_ms=2.110`. A list of more than 20 names ends with `+N`, the number of those that are not shown; an empty one is
/// omitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of this publish among those that changed something.
    pub generation: u64,
    /// Why it was done: `hint`, `timer`, an event, `by-hand`.
    pub cause: String,
    /// How the process was changed.
    pub how: How,
    /// The servers that were changed.
    lists: [Names; LISTS.len()],
    /// The certificates that were changed.
    certificates: Names,
    /// Number of commands at run time.
    commands: Option<usize>,
    /// Why HAProxy was reloaded.
    reason: Option<String>,
    /// Duration of each step, in whole microseconds.
    times: Vec<(String, Duration)>,
}

/// The lists of servers, by their keys in the line.
const LISTS: [&str; 5] = ["added", "removed", "changed", "waiting", "finished"];

/// The key of the certificates' list.
const CERTIFICATES: &str = "certificates";

/// How a publish changed the process, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Not at all: only the file was written.
    File,
    /// By commands.
    RunTime,
    /// By a reload.
    Reload,
}

impl How {
    const ALL: [Self; 3] = [Self::File, Self::RunTime, Self::Reload];

    fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::RunTime => "run-time",
            Self::Reload => "reload",
        }
    }
}

/// The first names of a list.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Names {
    first: Vec<String>,
    /// Number of further names.
    more: usize,
}

impl Names {
    fn of(names: &BTreeSet<String>) -> Self {
        Self { first: names.iter().take(MAX_NAMES).map(|name| word(name)).collect(), more: names.len().saturating_sub(MAX_NAMES) }
    }
}

impl Summary {
    /// Summarizes a publish that was done because of `cause`.
    #[must_use]
    pub fn new(outcome: &Outcome, cause: &str) -> Self {
        let (how, commands, reason) = match &outcome.applied {
            Applied::NotRunning | Applied::Nothing => (How::File, None, None),
            Applied::Commands(commands) => (How::RunTime, Some(commands.len()), None),
            Applied::Reload(reason) => (How::Reload, None, Some(reason.replace('"', "'").replace(char::is_control, " "))),
        };
        let micros = |time: &Duration| Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Self {
            generation: outcome.generation,
            cause: word(cause),
            how,
            lists: outcome.servers.lists().map(|(_, names)| Names::of(names)),
            certificates: Names::of(&outcome.certificates),
            commands,
            reason,
            times: outcome.times.iter().map(|(step, time)| ((*step).to_owned(), micros(time))).collect(),
        }
    }

    /// Keys of the lists that contain the server `name`. It may also be among the names that are only counted.
    pub fn lists_with(&self, name: &str) -> impl Iterator<Item = &'static str> {
        let found: Vec<_> = self.lists().filter(|(_, names)| names.first.iter().any(|other| other == name)).collect();
        found.into_iter().map(|(key, _)| key)
    }

    fn lists(&self) -> impl Iterator<Item = (&'static str, &Names)> {
        LISTS.into_iter().zip(&self.lists)
    }

    /// All lists of the line, by their keys.
    fn all_lists(&self) -> impl Iterator<Item = (&'static str, &Names)> {
        self.lists().chain([(CERTIFICATES, &self.certificates)])
    }

    /// The fields of the JSON format. `added_more` and the like count the names that are not shown.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        put("message", json!("published"));
        put("generation", json!(self.generation));
        put("cause", json!(self.cause));
        put("applied", json!(self.how.as_str()));
        for (key, names) in self.all_lists() {
            put(key, json!(names.first));
            if names.more > 0 {
                put(&format!("{key}_more"), json!(names.more));
            }
        }
        if let Some(commands) = self.commands {
            put("commands", json!(commands));
        }
        if let Some(reason) = &self.reason {
            put("reason", json!(reason));
        }
        for (step, time) in &self.times {
            put(&format!("{step}_ms"), json!(time.as_micros() as f64 / 1000.0));
        }
        fields
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "published generation={} cause={} applied={}", self.generation, self.cause, self.how.as_str())?;
        for (key, names) in self.all_lists().filter(|(_, names)| !names.first.is_empty()) {
            write!(f, " {key}={}", names.first.join(","))?;
            if names.more > 0 {
                write!(f, ",+{}", names.more)?;
            }
        }
        if let Some(commands) = self.commands {
            write!(f, " commands={commands}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " reason=\"{reason}\"")?;
        }
        // Formatting floating-point numbers would make each tool 10 kB larger.
        self.times.iter().try_for_each(|(step, time)| {
            let micros = time.as_micros();
            write!(f, " {step}_ms={}.{:03}", micros / 1000, micros % 1000)
        })
    }
}

/// The text is not the summary of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the summary of a publish")]
pub struct NoSummary;

impl FromStr for Summary {
    type Err = NoSummary;

    fn from_str(text: &str) -> Result<Self, NoSummary> {
        parse(text).ok_or(NoSummary)
    }
}

fn parse(text: &str) -> Option<Summary> {
    let (mut generation, mut cause, mut how, mut commands, mut reason) = (None, None, None, None, None);
    let (mut lists, mut certificates, mut times) = (<[Names; LISTS.len()]>::default(), Names::default(), Vec::new());
    let mut rest = text.strip_prefix("published")?;
    while let Some(pair) = rest.strip_prefix(' ') {
        let (key, value) = pair.split_once('=')?;
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_at(value.find(' ').unwrap_or(value.len())),
        };
        rest = after;
        match key {
            "generation" => generation = Some(value.parse().ok()?),
            "cause" => cause = Some(value.to_owned()),
            "applied" => how = Some(How::ALL.into_iter().find(|how| how.as_str() == value)?),
            "commands" => commands = Some(value.parse().ok()?),
            CERTIFICATES => certificates = parse_names(value)?,
            "reason" => reason = Some(value.to_owned()),
            _ => match (LISTS.into_iter().zip(&mut lists).find(|(list, _)| *list == key), key.strip_suffix("_ms")) {
                (Some((_, names)), _) => *names = parse_names(value)?,
                (None, Some(step)) => times.push((step.to_owned(), parse_milliseconds(value)?)),
                // A newer version may have further keys.
                (None, None) => {}
            },
        }
    }
    let is_whole = rest.is_empty();
    is_whole.then_some(Summary {
        generation: generation?,
        cause: cause?,
        how: how?,
        lists,
        certificates,
        commands,
        reason,
        times,
    })
}

fn parse_names(value: &str) -> Option<Names> {
    let mut names = Names::default();
    for name in value.split(',') {
        match name.strip_prefix('+') {
            Some(more) => names.more = more.parse().ok()?,
            None => names.first.push(name.to_owned()),
        }
    }
    Some(names)
}

fn parse_milliseconds(value: &str) -> Option<Duration> {
    let (whole, micros) = value.split_once('.')?;
    let whole: u64 = whole.parse().ok()?;
    let micros: u64 = micros.parse().ok().filter(|_| micros.len() == 3)?;
    Some(Duration::from_micros(whole.checked_mul(1000)?.checked_add(micros)?))
}

/// Any text as a single word; other characters become `?`.
fn word(text: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || "._-:/".contains(c) { c } else { '?' };
    text.chars().take(MAX_WORD).map(good).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::outcome::Servers;

    fn names(range: std::ops::Range<usize>) -> BTreeSet<String> {
        range.map(|number| format!("s{number:05}")).collect()
    }

    fn summary(applied: Applied, servers: Servers) -> Summary {
        let times = vec![("render", Duration::from_nanos(1_234_567)), ("total", Duration::from_millis(2))];
        let certificates = BTreeSet::from(["shop.pem".to_owned()]);
        let outcome = Outcome { written: true, applied, servers, certificates, generation: 7, times, ..Outcome::default() };
        Summary::new(&outcome, "member-join")
    }

    #[test]
    fn the_line_is_read_as_it_was_written() {
        let few = Servers { added: names(0..2), waiting: names(3..4), ..Servers::default() };
        let many = Servers { removed: names(0..10_000), changed: names(7..8), ..Servers::default() };
        for (applied, servers) in [
            (Applied::Nothing, few.clone()),
            (Applied::Commands(Vec::new()), many.clone()),
            (Applied::Reload("line 'x=\"y\"' is new or changed".to_owned()), Servers::default()),
            (Applied::Reload("forced".to_owned()), few),
            (Applied::Commands(Vec::new()), many),
        ] {
            let summary = summary(applied, servers);
            assert_eq!(summary.to_string().parse(), Ok(summary.clone()), "{summary}");
        }
    }

    #[test]
    fn the_line_is_short_however_many_servers_it_is_about() {
        let summary = summary(Applied::NotRunning, Servers { added: names(0..10_000), ..Servers::default() });
        let line = summary.to_string();
        assert!(line.len() < 300 && line.contains(",s00019,+9980 "), "{line}");
        let fields = summary.fields();
        assert_eq!((fields["added"].as_array().map(Vec::len), &fields["added_more"]), (Some(20), &json!(9980)));
        assert!(!fields.contains_key("removed_more"), "{fields:?}");
        assert_eq!(summary.lists_with("s00003").collect::<Vec<_>>(), ["added"]);
        assert_eq!(summary.lists_with("s09999").count(), 0);
    }

    #[test]
    fn no_word_of_a_file_breaks_the_line() {
        let removed = BTreeSet::from(["a\u{1b}\"x".to_owned()]);
        let applied = Applied::Reload("line 'x \"y\"\n' is new".to_owned());
        let line = Summary { cause: word("a cause"), ..summary(applied, Servers { removed, ..Servers::default() }) }.to_string();
        assert!(line.contains(" cause=a?cause ") && line.contains(" removed=a??x "), "{line}");
        assert!(line.contains(" reason=\"line 'x 'y' ' is new\""), "{line}");
    }

    #[test]
    fn json_has_every_list() {
        let servers = Servers { added: BTreeSet::from(["d".to_owned()]), ..Servers::default() };
        let fields = summary(Applied::Reload("why".to_owned()), servers).fields();
        assert_eq!((&fields["added"], &fields["waiting"]), (&json!(["d"]), &json!([])));
        assert_eq!((&fields["generation"], &fields["reason"], &fields["render_ms"]), (&json!(7), &json!("why"), &json!(1.234)));
    }

    #[test]
    fn other_lines_are_none() {
        for bad in [
            "",
            "published",
            "published generation=x cause=c applied=file",
            "published generation=1 cause=c applied=magic",
            "published generation=1 cause=c applied=reload reason=\"x",
            "unregistered s1",
            "unpublished generation=1 cause=c applied=file",
        ] {
            assert_eq!(bad.parse::<Summary>(), Err(NoSummary), "{bad}");
        }
        assert!("published generation=1 cause=c applied=file color=red".parse::<Summary>().is_ok());
    }
}
