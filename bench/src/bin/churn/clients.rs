//! The clients: wrk (<https://github.com/wg/wrk>), driven by a script, with one thread per client.
//!
//! wrk never retries, so every failed request is counted. The clients stop between two requests, so that in the end each request
//! was answered or counted as lost. They report a lost request at once, because HAProxy does not log all of them
//! (`http_wait_for_response` closes silently when a reused connection breaks).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use e2e::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const SCRIPT: &str = include_str!("client.lua");
/// A response that takes longer counts as lost.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Its presence tells the clients to stop.
const STOP_FILE: &str = "stop";

/// The outcome of some clients' requests.
#[derive(Debug)]
pub struct Tally {
    /// Number of requests sent.
    pub requests: u64,
    /// Number of lost requests, by what the client saw.
    pub lost: BTreeMap<String, u64>,
    /// When they were lost, as far as is known.
    pub lost_at: Vec<SystemTime>,
    /// Number of connections closed between two requests without an announcement in the last response.
    pub closed: u64,
    /// The longest response time.
    pub slowest: Duration,
    /// How often a client was given a new session.
    pub sessions: u64,
}

impl Tally {
    /// How many requests were lost.
    #[must_use]
    pub fn all_lost(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// Clients of one method that send requests without a pause; one wrk process.
#[derive(Debug)]
pub struct Clients {
    count: u64,
    wrk: Child,
    answered: Arc<AtomicU64>,
    stopped: Arc<AtomicU64>,
    reader: Option<JoinHandle<Said>>,
}

/// The output of one process's clients, except for their progress.
#[derive(Debug, Default)]
struct Said {
    summary: Option<String>,
    lost_at: Vec<SystemTime>,
}

impl Clients {
    /// Starts `count` clients that send `method` to the balancer at `address`, for `at_most` this long.
    ///
    /// They stop after [`tell_to_stop`] with the same directory. POST clients with a session use `cookie`.
    ///
    /// # Errors
    /// If wrk does not start, or its script cannot be written.
    pub fn start(
        method: &str,
        count: u64,
        address: &str,
        folder: &Path,
        cookie: Option<&str>,
        at_most: Duration,
    ) -> Result<Self> {
        let script = folder.join("client.lua");
        std::fs::write(&script, SCRIPT).context("write the script for wrk")?;
        let mut wrk = Command::new("wrk")
            .args(["--threads", &count.to_string(), "--connections", &count.to_string()])
            .args(["--duration", &format!("{}s", at_most.as_secs()), "--timeout", &format!("{}s", RESPONSE_TIMEOUT.as_secs())])
            .arg("--script")
            .arg(&script)
            .args([&format!("http://{address}/"), "--", method])
            .arg(folder.join(STOP_FILE))
            .args(cookie)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start wrk")?;
        let (answered, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let output = wrk.stdout.take().context("no output of wrk")?;
        let reader = thread::spawn({
            let (answered, stopped) = (answered.clone(), stopped.clone());
            move || read(output, &answered, &stopped)
        });
        Ok(Self { count, wrk, answered, stopped, reader: Some(reader) })
    }

    /// Approximate number of requests answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether they are still sending requests.
    ///
    /// # Errors
    /// If the state of wrk cannot be determined.
    pub fn are_running(&mut self) -> Result<bool> {
        Ok(self.wrk.try_wait()?.is_none())
    }

    /// Waits for clients that were told to stop, and returns the counts.
    ///
    /// # Errors
    /// If wrk did not report its counts.
    pub fn finish(mut self) -> Result<Tally> {
        // A client that is still waiting by then got no response.
        for _ in 0..RESPONSE_TIMEOUT.as_millis() / 100 + 50 {
            if self.stopped.load(Ordering::Relaxed) == self.count {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        // wrk sleeps until its time is over unless it is interrupted.
        kill(pid(&self.wrk)?, Signal::SIGINT).context("interrupt wrk")?;
        eventually("wrk ends", 10, || match self.wrk.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let said = self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let summary = said.summary.context("wrk said nothing at its end")?;
        Ok(Tally { lost_at: said.lost_at, ..tally(&summary)? })
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Fails if it has already ended, as it should have.
        let _ = self.wrk.kill();
        let _ = self.wrk.wait();
    }
}

/// Tells the clients of this directory to stop after their next response.
///
/// # Errors
/// If the stop file cannot be written.
pub fn tell_to_stop(folder: &Path) -> Result<()> {
    std::fs::write(folder.join(STOP_FILE), "").context("tell wrk to stop")
}

fn pid(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

fn read(output: ChildStdout, answered: &AtomicU64, stopped: &AtomicU64) -> Said {
    let mut said = Said::default();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some(count) = line.strip_prefix("answered ") {
            answered.fetch_add(count.parse().unwrap_or(0), Ordering::Relaxed);
        } else if line == "stopped" {
            stopped.fetch_add(1, Ordering::Relaxed);
        } else if line == "lost" {
            said.lost_at.push(SystemTime::now());
        } else if line.starts_with('{') {
            said.summary = Some(line);
        }
    }
    said
}

fn tally(summary: &str) -> Result<Tally> {
    let summary: Value = serde_json::from_str(summary).with_context(|| format!("wrk said {summary}"))?;
    let count = |name: &str| summary[name].as_u64().with_context(|| format!("wrk said no {name}"));
    let (cut, unanswered, broken) = (count("cut")?, count("unanswered")?, count("broken")?);
    let kinds = [("cut", cut), ("late", count("late")?), ("no answer", unanswered)];
    let mut lost: BTreeMap<String, u64> = kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    for (status, count) in summary["status"].as_object().context("wrk said no status")? {
        lost.insert(format!("status {status}"), count.as_u64().unwrap_or(0));
    }
    lost.retain(|_, count| *count > 0);
    let requests = count("answered")? + cut + unanswered;
    ensure!(requests > 0, "wrk sent nothing");
    let (slowest, sessions) = (Duration::from_micros(count("slowest_us")?), count("sessions")?);
    Ok(Tally { requests, lost, lost_at: Vec::new(), closed: broken.saturating_sub(cut), slowest, sessions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_no_answer_with_200_is_lost() {
        let summary = r#"{"answered":100,"cut":1,"unanswered":9,"broken":3,"late":4,"slowest_us":5,"sessions":6,
            "status":{"401":7,"503":8}}"#;
        let tally = tally(summary).unwrap();
        assert_eq!(tally.requests, 110);
        assert_eq!(tally.all_lost(), 1 + 4 + 7 + 8 + 9);
        assert_eq!((tally.lost["cut"], tally.closed), (1, 2));
    }

    #[test]
    fn nothing_lost_is_no_kind() {
        let summary = r#"{"answered":100,"cut":0,"unanswered":0,"broken":0,"late":0,"slowest_us":5,"sessions":0,"status":{}}"#;
        assert!(tally(summary).unwrap().lost.is_empty());
    }
}
