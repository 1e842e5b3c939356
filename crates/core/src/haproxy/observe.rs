//! Observing the running HAProxy: a session with its worker, the servers it has, and the configuration it has read.
//!
//! The worker that the record names is asked first, on its own socket, and prepares its answer while the caller does something
//! else. If the answer comes from another worker, the master is asked for the right one.

use std::collections::BTreeMap;

use nix::unistd::getppid;

use crate::haproxy::ProcessOptions;
use crate::haproxy::last_applied::{LastApplied, ProcessId, RecordedFor, record_path};
use crate::haproxy::{self, EarlySession, HaproxyError, Session};
use crate::os::atomic_file::remove_if_exists;

/// The command that lists the servers of a worker.
pub(crate) const SERVERS: &str = "show servers state";

/// An observation under way.
pub(crate) struct Observation<'a> {
    options: &'a ProcessOptions,
    record: Option<(RecordedFor, LastApplied)>,
    early: Option<EarlySession>,
}

/// The observed process.
pub(crate) struct Process {
    /// The session with the worker that takes the traffic.
    pub session: Session,
    /// Its answer to [`SERVERS`].
    pub servers: String,
    /// The configuration that it runs, if known.
    pub last_applied: Option<LastApplied>,
    /// Whether the record is about this worker, not its master.
    pub is_recorded: bool,
}

impl<'a> Observation<'a> {
    /// Sends the question without waiting for the answer.
    pub(crate) fn begin(options: &'a ProcessOptions) -> Self {
        let record = LastApplied::load(&record_path(&options.master_socket));
        let early = match &record {
            Some((RecordedFor::Worker(worker), _)) => EarlySession::ask(&options.admin_socket, *worker, SERVERS),
            _ => None,
        };
        Self { options, record, early }
    }

    /// Waits for the answer; `None` if HAProxy is not running. `file` is the text of the configuration file.
    pub(crate) fn end(self, file: Option<&str>) -> Result<Option<Process>, HaproxyError> {
        let (session, servers) = match self.early.and_then(EarlySession::answer) {
            Some(answer) => answer,
            None => {
                let found = haproxy::find(&self.options.master_socket, &self.options.admin_socket)?;
                let Some(mut session) = found else { return Ok(None) };
                let servers = session.ask(SERVERS)?;
                (session, servers)
            }
        };
        let record = self.record.filter(|(recorded_for, last_applied)| match recorded_for {
            // The file may have been edited by hand before HAProxy read it.
            RecordedFor::Master(_) if file != Some(&last_applied.text) => false,
            _ => session.matches(*recorded_for),
        });
        let is_recorded = matches!(record, Some((RecordedFor::Worker(_), _)));
        Ok(Some(Process { session, servers, last_applied: record.map(|(_, last_applied)| last_applied), is_recorded }))
    }
}

/// Records what a master that is about to start will read: the parent of this process, which becomes HAProxy by `exec`.
/// A failure is ignored, because it only costs a reload later.
pub(crate) fn record_start(options: &ProcessOptions, text: String) {
    if let Some(master) = ProcessId::of_pid(getppid().as_raw()) {
        let running = LastApplied { text, leaving: BTreeMap::new() };
        let _ = running.store(&record_path(&options.master_socket), RecordedFor::Master(master));
    }
}

/// Discards the record made by [`record_start`], because the file is about to change.
pub(crate) fn discard_start(options: &ProcessOptions) {
    let path = record_path(&options.master_socket);
    if matches!(LastApplied::load(&path), Some((RecordedFor::Master(_), _))) {
        let _ = remove_if_exists(&path);
    }
}
