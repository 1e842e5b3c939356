//! What the tools have done since the container started: a small file beside HAProxy's sockets, for the generation in the
//! log and for the metrics.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Applied, Outcome};
use crate::os::atomic_file::replace;
use crate::os::read_file::read_text;

/// The counts. A file that is not there, or not whole, counts from zero.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Publishes that were applied by commands at run time.
    pub run_time: u64,
    /// Publishes that were applied by a reload.
    pub reload: u64,
    /// Publishes that only wrote the file.
    pub file: u64,
    /// Publishes that failed.
    pub failed: u64,
    /// Time that the ones that did not fail took, in microseconds.
    pub micros: u64,
}

impl Stats {
    /// Reads them.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        read_text(path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// How many publishes have changed something.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.run_time.saturating_add(self.reload).saturating_add(self.file)
    }

    /// Adds a publish that changed something.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        let micros = outcome.times.last().map_or(0, |(_, total)| total.as_micros());
        self.micros = self.micros.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX));
        match outcome.applied {
            Applied::Commands(_) => self.run_time += 1,
            Applied::Reload(_) => self.reload += 1,
            Applied::NotRunning | Applied::Nothing => self.file += 1,
        }
    }

    /// Changes what is stored; the caller holds the lock. That it cannot be stored stops nobody.
    pub(super) fn update(path: &Path, change: impl FnOnce(&mut Self)) -> Self {
        let mut stats = Self::load(path);
        change(&mut stats);
        if let Ok(text) = serde_json::to_vec(&stats) {
            let _ = replace(path, &text, 0o600);
        }
        stats
    }
}

/// Where they are: beside the master socket.
#[must_use]
pub fn stats_path(master: &Path) -> PathBuf {
    master.with_file_name("stats.json")
}

/// Where the time of the last sync is: it is when this empty file was last changed, since a sync that changes nothing
/// writes nothing.
fn sync_path(master: &Path) -> PathBuf {
    master.with_file_name("last-sync")
}

/// Records that registry, file and process are equal to the member list. That it cannot be recorded stops nobody.
pub fn record_sync(master: &Path) {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(sync_path(master));
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// When registry, file and process were last equal to the member list, in seconds since 1970; `None` if they never were.
#[must_use]
pub fn last_sync(master: &Path) -> Option<u64> {
    let modified = fs::metadata(sync_path(master)).and_then(|metadata| metadata.modified()).ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_counts_from_zero() {
        let dir = tempfile::tempdir().unwrap();
        let path = stats_path(&dir.path().join("master.sock"));
        assert_eq!(Stats::load(&path), Stats::default());
        for text in ["", "{", "[]", "{\"reload\":-1}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Stats::load(&path), Stats::default(), "{text}");
        }
        let stored = Stats::update(&path, |stats| stats.reload += 2);
        assert_eq!((Stats::load(&path), stored.generation()), (stored.clone(), 2));
    }
}
