//! Statistics of all publishes since the container started, in a small file next to HAProxy's sockets. They give the
//! generation in the log and the metrics.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Applied, Outcome};
use crate::os::atomic_file::replace;
use crate::os::read_file::read_text;

/// Counters of publishes. If the file is missing or invalid, they start at zero.
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
    /// Total duration of the successful ones, in microseconds.
    pub micros: u64,
}

impl Stats {
    /// Loads the statistics.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        read_text(path).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Number of publishes that changed something.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.run_time.saturating_add(self.reload).saturating_add(self.file)
    }

    /// Counts a publish that changed something.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        let micros = outcome.times.last().map_or(0, |(_, total)| total.as_micros());
        self.micros = self.micros.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX));
        match outcome.applied {
            Applied::Commands(_) => self.run_time += 1,
            Applied::Reload(_) => self.reload += 1,
            Applied::NotRunning | Applied::Nothing => self.file += 1,
        }
    }

    /// Updates the file; a failure to write it is ignored. The caller holds the lock.
    pub(super) fn update(path: &Path, change: impl FnOnce(&mut Self)) -> Self {
        let mut stats = Self::load(path);
        change(&mut stats);
        if let Ok(text) = serde_json::to_vec(&stats) {
            let _ = replace(path, &text, 0o600);
        }
        stats
    }
}

/// Path of the statistics, next to the master socket.
#[must_use]
pub fn stats_path(master: &Path) -> PathBuf {
    master.with_file_name("stats.json")
}

/// Path of an empty file whose modification time is that of the last sync. A sync that changes nothing only touches it.
fn sync_path(master: &Path) -> PathBuf {
    master.with_file_name("last-sync")
}

/// Records that registry, file and process match the member list. A failure is ignored.
pub fn record_sync(master: &Path) {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(sync_path(master));
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

/// When registry, file and process last matched the member list, in seconds since 1970; `None` if never.
#[must_use]
pub fn last_sync(master: &Path) -> Option<u64> {
    let modified = fs::metadata(sync_path(master)).and_then(|metadata| metadata.modified()).ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    #[test]
    fn the_last_sync_is_the_latest_that_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let master = dir.path().join("master.sock");
        assert_eq!(last_sync(&master), None);
        record_sync(&master);
        let file = OpenOptions::new().append(true).open(sync_path(&master)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
        assert_eq!(last_sync(&master), Some(1_000_000));
        record_sync(&master);
        assert!(last_sync(&master).is_some_and(|synced| synced > 1_000_000));
    }
}
