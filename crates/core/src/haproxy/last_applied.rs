//! What the process is known to run: a record that holds for one process only.
//!
//! HAProxy can tell its servers, but not the rest of the configuration that it has read. So whoever makes it read
//! one, or changes a server, records it. The record names the worker, or the master that is about to start, by process
//! id and start time: after a restart, or a reload by somebody else, it holds no more, and it is simply not known what
//! runs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::{ServerKey, ServerLine};
use crate::os::atomic_file::Staged;
use crate::os::read_file::read_text;

/// One process, told from an earlier one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    /// The id.
    pub pid: i32,
    /// Clock ticks between the start of the system and that of the process; no change of the clock touches it.
    start: u64,
}

impl ProcessId {
    /// The process that has this id now, or `None` when there is none.
    #[must_use]
    pub fn of_pid(pid: i32) -> Option<Self> {
        // One read: it has some 300 bytes.
        let mut buffer = [0; 1024];
        let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut buffer)).ok()?;
        let stat = String::from_utf8_lossy(buffer.get(..length)?);
        // The second field is a name in parentheses and may itself have spaces; the start is the 22nd (proc(5)).
        let (_, fields) = stat.rsplit_once(") ")?;
        let start = fields.split(' ').nth(19)?.parse().ok()?;
        Some(Self { pid, start })
    }
}

/// The process that a record holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// This worker.
    Worker(ProcessId),
    /// The first worker of this master, which was not HAProxy yet when the record was made.
    Master(ProcessId),
}

/// What a worker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastApplied {
    /// The text of the configuration that it runs in effect.
    pub text: String,
    /// Servers that are no longer in the configuration and wait, in maintenance, for their last connections to end.
    pub leaving: BTreeMap<ServerKey, ServerLine>,
}

impl LastApplied {
    /// The record, if there is one, and the process that it holds for.
    #[must_use]
    pub fn load(path: &Path) -> Option<(Reader, Self)> {
        let mut text = read_text(path).ok()?;
        let head: String = text.drain(..text.find("\n\n")? + 2).collect();
        let mut head = head.trim_end().lines();
        let (kind, process) = head.next()?.split_once(' ')?;
        let (pid, start) = process.split_once(' ')?;
        let process = ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? };
        let reader = match kind {
            "worker" => Reader::Worker(process),
            "master" => Reader::Master(process),
            _ => return None,
        };
        let leaving = head.map(|line| {
            let (backend, line) = line.strip_prefix("leaving ")?.split_once('/')?;
            let (server, line) = line.split_once(' ')?;
            Some((ServerKey::new(backend, server), line.parse().ok()?))
        });
        Some((reader, Self { text, leaving: leaving.collect::<Option<_>>()? }))
    }

    /// Records that `reader` runs this.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn store(&self, path: &Path, reader: Reader) -> io::Result<()> {
        let (kind, process) = match reader {
            Reader::Worker(process) => ("worker", process),
            Reader::Master(process) => ("master", process),
        };
        let mut head = format!("{kind} {} {}", process.pid, process.start);
        for (key, line) in &self.leaving {
            // A string takes all that is written to it.
            let _ = write!(head, "\nleaving {key} {line}");
        }
        head.push_str("\n\n");
        Staged::write(path, &[head.as_bytes(), self.text.as_bytes()], 0o600)?.commit()
    }
}

/// Where the record is: beside the master socket.
#[must_use]
pub fn record_path(master: &Path) -> PathBuf {
    master.with_file_name("running.cfg")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("running.cfg");
        let process = ProcessId::of_pid(i32::try_from(std::process::id()).unwrap()).unwrap();
        let leaving = BTreeMap::from([(ServerKey::new("nodes", "s1"), "172.18.0.2:3000 check weight 5".parse().unwrap())]);
        let running = LastApplied { text: "global\n\n    maxconn 5\n".to_owned(), leaving };
        for reader in [Reader::Worker(process), Reader::Master(process)] {
            running.store(&path, reader).unwrap();
            assert_eq!(LastApplied::load(&path), Some((reader, running.clone())));
        }
    }

    #[test]
    fn a_torn_or_missing_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("running.cfg");
        assert_eq!(LastApplied::load(&path), None);
        for torn in ["", "worker 7 9", "worker 7\n\ntext", "child 7 9\n\ntext", "worker 7 9\nleft nodes/s1\n\ntext"] {
            fs::write(&path, torn).unwrap();
            assert_eq!(LastApplied::load(&path), None, "{torn:?}");
        }
    }
}
