//! The result: a table and a verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use e2e::docker::{text, try_docker};

use crate::changes::{Change, Driver};
use crate::clients::Tally;
use crate::journal::{Journal, Kill, workers};

/// The figures of one run.
#[derive(Debug)]
pub struct Report {
    seed: u64,
    duration: Duration,
    get: (Tally, Journal),
    post: (Tally, Journal),
    kills: Vec<Kill>,
    history: Vec<(SystemTime, String)>,
    made: BTreeMap<Change, u64>,
    reloads: usize,
}

impl Report {
    /// Combines what the clients saw and what HAProxy logged.
    #[must_use]
    pub fn new(seed: u64, driver: &Driver, get: Tally, post: Tally, duration: Duration) -> Self {
        let output = try_docker(&["logs", "--timestamps", &driver.balancer.name], "");
        let logs = text(&output.stdout) + &text(&output.stderr);
        let journal = |method| Journal::read(&logs, method, &driver.kills);
        Self {
            seed,
            duration,
            get: (get, journal("GET")),
            post: (post, journal("POST")),
            kills: driver.kills.clone(),
            history: driver.history.clone(),
            made: driver.made.clone(),
            reloads: workers(&logs) - driver.workers_at_first,
        }
    }

    /// Number of requests lost before HAProxy noticed a kill.
    fn lost_to_kills(&self, tally: &Tally) -> u64 {
        tally.lost_at.iter().map(|time| u64::from(self.is_lost_to_kill(*time))).sum()
    }

    fn is_lost_to_kill(&self, time: SystemTime) -> bool {
        self.kills.iter().any(|kill| kill.explains(time))
    }

    /// Requests not lost to a kill, one line each, with what was happening at the time.
    fn circumstances(&self) -> Vec<String> {
        let tally = |(method, tally): (&str, &Tally)| {
            let times = tally.lost_at.iter().filter(|time| !self.is_lost_to_kill(**time));
            let mut lines: Vec<String> = times.map(|time| format!("lost: {method}, {}", self.circumstance(*time))).collect();
            let untold = tally.all_lost().saturating_sub(tally.lost_at.len() as u64);
            if untold > 0 {
                lines.push(format!("lost: {untold} {method} at an unknown time"));
            }
            lines
        };
        [("GET", &self.get.0), ("POST", &self.post.0)].into_iter().flat_map(tally).collect()
    }

    fn circumstance(&self, time: SystemTime) -> String {
        match self.history.iter().rev().find_map(|(began, what)| Some((time.duration_since(*began).ok()?, what))) {
            Some((since, what)) => format!("{} ms after the begin of change {what}", since.as_millis()),
            None => "before the first change".to_owned(),
        }
    }

    /// Number of POSTs not lost to a kill, judged by when they were lost and by their server as far as HAProxy logged it.
    fn unexplained(&self) -> u64 {
        let (tally, journal) = &self.post;
        tally.all_lost().saturating_sub(self.lost_to_kills(tally)).max(journal.unexplained)
    }

    /// Checks that every request that can be answered was answered.
    ///
    /// # Errors
    /// If not.
    pub fn verdict(&self) -> Result<()> {
        let (get, post) = (self.get.0.all_lost(), self.unexplained());
        ensure!(get == 0, "{get} GET lost");
        ensure!(post == 0, "{post} POST lost without a kill of their node");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (get, post) = (&self.get, &self.post);
        let requests = get.0.requests + post.0.requests;
        let made: u64 = self.made.values().sum();
        writeln!(f, "\nOn {}, --seed {}\n", bench::machine(), self.seed)?;
        let mut row = |name: &str, get: String, post: String| writeln!(f, "| {name:<38} | {get:>22} | {post:>22} |");
        row("", "GET".to_owned(), "POST".to_owned())?;
        row(&"-".repeat(38), "-".repeat(21) + ":", "-".repeat(21) + ":")?;
        row("requests", get.0.requests.to_string(), post.0.requests.to_string())?;
        row("lost", get.0.all_lost().to_string(), post.0.all_lost().to_string())?;
        row("of these, to a kill", self.lost_to_kills(&get.0).to_string(), self.lost_to_kills(&post.0).to_string())?;
        row("lost, as clients saw it", kinds(&get.0.lost), kinds(&post.0.lost))?;
        row("lost, as HAProxy logged it", kinds(&get.1.lost), kinds(&post.1.lost))?;
        row("answered, but not at the first attempt", get.1.retried.to_string(), post.1.retried.to_string())?;
        row("connections closed between requests", get.0.closed.to_string(), post.0.closed.to_string())?;
        row("slowest answer", slowest(&get.0), slowest(&post.0))?;
        row("new sessions", get.0.sessions.to_string(), String::new())?;
        let by_kind = |(change, count): (&Change, &u64)| format!("{count} {}", format!("{change:?}").to_lowercase());
        writeln!(f, "\nchanges: {made}: {}", self.made.iter().map(by_kind).collect::<Vec<_>>().join(", "))?;
        writeln!(f, "reloads: {}", self.reloads)?;
        for line in self.circumstances() {
            writeln!(f, "{line}")?;
        }
        let seconds = self.duration.as_secs().max(1);
        writeln!(f, "time: {seconds} s, {} requests/s", requests / seconds)
    }
}

fn kinds(lost: &BTreeMap<String, u64>) -> String {
    lost.iter().map(|(kind, count)| format!("{kind}: {count}")).collect::<Vec<_>>().join(", ")
}

fn slowest(tally: &Tally) -> String {
    format!("{} ms", bench::milliseconds(tally.slowest))
}
