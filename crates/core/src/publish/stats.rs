//! What the tools have done since the container started: a small file beside HAProxy's sockets, for the generation in the
//! log and for the metrics.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

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
    /// When registry, file and process were last made equal to the member list, in seconds since 1970.
    pub synced: Option<u64>,
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

    /// Changes what is stored; the caller holds the lock. That it cannot be stored stops nobody.
    pub(crate) fn update(path: &Path, change: impl FnOnce(&mut Self)) -> Self {
        let mut counters = Self::load(path);
        change(&mut counters);
        if let Ok(text) = serde_json::to_vec(&counters) {
            let _ = replace(path, &text, 0o600);
        }
        counters
    }
}

/// Where they are: beside the master socket.
#[must_use]
pub fn stats_path(master: &Path) -> PathBuf {
    master.with_file_name("counters.json")
}

/// Notes that registry, file and process are equal to the member list. The caller holds the lock.
pub fn note_sync(master: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stats::update(&stats_path(master), |counters| counters.synced = Some(now.as_secs()));
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
        let stored = Stats::update(&path, |counters| counters.reload += 2);
        assert_eq!((Stats::load(&path), stored.generation()), (stored.clone(), 2));
    }
}
