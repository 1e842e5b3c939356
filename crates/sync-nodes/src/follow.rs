//! The service: syncs at every hint, and periodically without one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_core::members::{Gone, MemberList};
use lb_core::node::NodeName;
use lb_core::os::atomic_file::{remove_if_exists, replace};
use lb_core::registry::reconcile::Kept;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, deadline};

use crate::SyncNodes;
use crate::hints::{Hint, Hints};
use crate::leaves::Leaves;

/// Maximum time before a failed sync is retried, as the cause may be gone.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time until the next sync while a node is kept although the member list says otherwise, or is about to leave.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum pause between two syncs in a burst of hints.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// Time for the local agent to start.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// A hint that comes this long after the previous one starts a new burst.
const BURST_GAP: Duration = Duration::from_secs(1);

/// Syncs forever. Errors are logged when they are new, and the sync is retried.
pub(crate) fn follow(tool: &SyncNodes, reporter: &Reporter) -> Result<Exit> {
    let mut hints = Hints::new(&tool.options.process.master_socket, reporter);
    let mut rounds = Rounds { tool, reporter, leaves: Leaves::default(), kept: BTreeMap::new() };
    let blind = Blind::new(&tool.options.process.master_socket);
    let mut trouble = Trouble::default();
    let mut pace = Pace::default();
    // The agent starts at the same time, so its initial absence is not worth logging.
    let _ = tool.list_within(START_TIMEOUT);
    // A hanging round would block the work of the handlers too, because they only wake this service.
    let deadline = deadline(SyncNodes::NAME, &tool.run_options, *tool.every);
    let mut cause = "start";
    loop {
        deadline.reset();
        let list = tool.list();
        blind.note(&list);
        let result = list.and_then(|list| rounds.sync(&list, cause));
        let limit = result.as_ref().map_or(RETRY_INTERVAL, |limit| *limit);
        trouble.note(result.map(drop), reporter);
        let hint = hints.wait(limit.min(*tool.every))?;
        cause = hint.map_or("timer", Hint::cause);
        // The next round sees whatever arrives during the pause.
        hints.gather(pace.pause(hint))?;
    }
}

/// What one round passes on to the next.
struct Rounds<'a> {
    tool: &'a SyncNodes,
    reporter: &'a Reporter,
    leaves: Leaves,
    /// Nodes that the last round kept although the member list says otherwise.
    kept: BTreeMap<NodeName, Kept>,
}

impl Rounds<'_> {
    /// Syncs, and returns how long this can be left alone.
    fn sync(&mut self, list: &MemberList, cause: &str) -> Result<Duration> {
        let doubted = self.leaves.note(list, Instant::now());
        let synced = self.tool.apply(list, &doubted, cause, self.reporter)?;
        for name in self.kept.keys().filter(|name| !synced.kept.contains_key(*name)) {
            if list.nodes.contains_key(name) && !synced.change.registered.contains(name) {
                self.reporter.log(format_args!("{name} is confirmed by gossip again"));
            }
        }
        self.kept = synced.kept;
        // The agent does not report that a health check fails, nor that a member does not leave after all.
        let is_open = !self.kept.is_empty() || list.gone.values().any(|gone| *gone == Gone::Leaving);
        Ok(if is_open { OPEN_INTERVAL } else { *self.tool.every })
    }
}

/// A file for the health check that says why there is no member list; it exists only while there is none.
struct Blind(PathBuf);

impl Blind {
    /// It is next to HAProxy's sockets. A file from an earlier run stays until there is a list.
    fn new(master: &Path) -> Self {
        Self(master.with_file_name("sync.trouble"))
    }

    /// A failure to write it is ignored.
    fn note(&self, list: &Result<MemberList>) {
        let _ = match list {
            Ok(_) => remove_if_exists(&self.0).map(drop),
            Err(error) => replace(&self.0, format!("no member list: {error:#}\n").as_bytes(), 0o644),
        };
    }
}

/// The error of the last round, so that a lasting one is logged once, and its end as well.
#[derive(Default)]
struct Trouble {
    last: Option<String>,
}

impl Trouble {
    fn note(&mut self, result: Result<()>, reporter: &Reporter) {
        let error = result.err().map(|error| format!("{error:#}"));
        match &error {
            Some(error) if self.last.as_ref() != Some(error) => reporter.log(error),
            None if self.last.is_some() => reporter.log("works again"),
            _ => {}
        }
        self.last = error;
    }
}

/// Acts on the first hint of a burst at once, and on the next ones after growing pauses: fifty simultaneous joins cost a
/// handful of syncs, and the last sync comes after the last hint. A leave never waits.
#[derive(Default)]
struct Pace {
    pause: Duration,
    last: Option<Instant>,
}

impl Pace {
    /// The pause before the sync for this hint.
    fn pause(&mut self, hint: Option<Hint>) -> Duration {
        let burst = hint.is_some() && self.last.is_some_and(|last| last.elapsed() < BURST_GAP);
        self.pause = if burst { (self.pause * 2).clamp(Duration::from_millis(25), MAX_PAUSE) } else { Duration::ZERO };
        self.last = hint.map(|_| Instant::now());
        if hint == Some(Hint::Leave) { Duration::ZERO } else { self.pause }
    }
}
