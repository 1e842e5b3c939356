//! The record of the configuration that HAProxy was last made to run.
//!
//! HAProxy can list its servers, but not the rest of the configuration that it has read, so the tools record what they
//! apply. The record is bound to a worker, or to a master that is about to start, by process id and start time. A restart or
//! a reload by someone else invalidates it, and then the running configuration is unknown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::config::{ServerKey, ServerLine};
use crate::os::atomic_file::Staged;
use crate::os::read_file::read_text;

/// Identifies a process, even if its id is reused later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, which does not change with the clock.
    start: u64,
}

impl ProcessId {
    /// The process that has this id now, or `None` if there is none.
    #[must_use]
    pub fn of_pid(pid: i32) -> Option<Self> {
        // A single read is enough for its 300 bytes or so.
        let mut buffer = [0; 1024];
        let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut buffer)).ok()?;
        let stat = String::from_utf8_lossy(buffer.get(..length)?);
        // The second field is a name in parentheses that may contain spaces; the start time is the 22nd (proc(5)).
        let (_, fields) = stat.rsplit_once(") ")?;
        let start = fields.split(' ').nth(19)?.parse().ok()?;
        Some(Self { pid, start })
    }
}

/// The process that a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedFor {
    /// A worker.
    Worker(ProcessId),
    /// The first worker of a master that had not started when the record was made.
    Master(ProcessId),
}

/// The configuration that a worker runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LastApplied {
    /// Text of the configuration, including the effect of commands.
    pub text: String,
    /// Servers that are no longer in the configuration, but are kept in maintenance until their last connections end.
    pub leaving: BTreeMap<ServerKey, ServerLine>,
    /// Fingerprints of the certificates that it has loaded, by the names of their files.
    pub certificates: BTreeMap<String, u64>,
}

impl LastApplied {
    /// Loads the record with the process it is about; `None` if it is missing or invalid.
    #[must_use]
    pub fn load(path: &Path) -> Option<(RecordedFor, Self)> {
        let mut text = read_text(path).ok()?;
        let head: String = text.drain(..text.find("\n\n")? + 2).collect();
        let mut head = head.trim_end().lines();
        let (kind, process) = head.next()?.split_once(' ')?;
        let (pid, start) = process.split_once(' ')?;
        let process = ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? };
        let recorded_for = match kind {
            "worker" => RecordedFor::Worker(process),
            "master" => RecordedFor::Master(process),
            _ => return None,
        };
        let (mut leaving, mut certificates) = (BTreeMap::new(), BTreeMap::new());
        for line in head {
            match line.split_once(' ')? {
                ("leaving", line) => {
                    let (backend, line) = line.split_once('/')?;
                    let (server, line) = line.split_once(' ')?;
                    leaving.insert(ServerKey::new(backend, server), line.parse().ok()?);
                }
                ("certificate", line) => {
                    let (name, fingerprint) = line.split_once(' ')?;
                    certificates.insert(name.to_owned(), fingerprint.parse().ok()?);
                }
                _ => return None,
            }
        }
        Some((recorded_for, Self { text, leaving, certificates }))
    }

    /// Records that `recorded_for` runs this configuration.
    ///
    /// # Errors
    /// I/O errors.
    pub fn store(&self, path: &Path, recorded_for: RecordedFor) -> io::Result<()> {
        let (kind, process) = match recorded_for {
            RecordedFor::Worker(process) => ("worker", process),
            RecordedFor::Master(process) => ("master", process),
        };
        let mut head = format!("{kind} {} {}", process.pid, process.start);
        for (key, line) in &self.leaving {
            // Writing to a string cannot fail.
            let _ = write!(head, "\nleaving {key} {line}");
        }
        for (name, fingerprint) in &self.certificates {
            let _ = write!(head, "\ncertificate {name} {fingerprint}");
        }
        head.push_str("\n\n");
        Staged::write(path, &[head.as_bytes(), self.text.as_bytes()], 0o600)?.commit()
    }
}

/// Path of the record, next to the master socket.
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
        let certificates = BTreeMap::from([("shop.pem".to_owned(), u64::MAX)]);
        let running = LastApplied { text: "global\n\n    maxconn 5\n".to_owned(), leaving, certificates };
        for reader in [RecordedFor::Worker(process), RecordedFor::Master(process)] {
            running.store(&path, reader).unwrap();
            assert_eq!(LastApplied::load(&path), Some((reader, running.clone())));
        }
    }

    #[test]
    fn a_torn_or_missing_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("running.cfg");
        assert_eq!(LastApplied::load(&path), None);
        for torn in [
            "",
            "worker 7 9",
            "worker 7\n\ntext",
            "child 7 9\n\ntext",
            "worker 7 9\nleft nodes/s1\n\ntext",
            "worker 7 9\ncertificate x\n\n",
        ] {
            fs::write(&path, torn).unwrap();
            assert_eq!(LastApplied::load(&path), None, "{torn:?}");
        }
    }
}
