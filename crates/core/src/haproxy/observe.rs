//! The running HAProxy as it is found: a conversation with its worker, the servers that it has, and what it has read.
//!
//! HAProxy works on its answer while the caller does something else: the worker that the record names is asked at
//! once, on its own socket, and who it is with it. If that is another one, the master is asked for the right one.

use std::collections::BTreeMap;

use nix::unistd::getppid;

use crate::haproxy::ProcessOptions;
use crate::haproxy::last_applied::{LastApplied, ProcessId, Reader, record_path};
use crate::haproxy::{self, EarlySession, HaproxyError, Session};
use crate::os::atomic_file::remove_if_exists;

/// What a worker is asked for the servers that it has.
pub(crate) const SERVERS: &str = "show servers state";

/// A look at the process that has begun.
pub(crate) struct Observation<'a> {
    options: &'a ProcessOptions,
    record: Option<(Reader, LastApplied)>,
    early: Option<EarlySession>,
}

/// The process as it is.
pub(crate) struct Process {
    /// The conversation with the worker that takes the traffic.
    pub session: Session,
    /// Its answer to [`SERVERS`].
    pub servers: String,
    /// What it is known to run.
    pub last_applied: Option<LastApplied>,
    /// The record names this worker itself.
    pub is_recorded: bool,
}

impl<'a> Observation<'a> {
    /// Asks, and does not wait for the answer.
    pub(crate) fn begin(options: &'a ProcessOptions) -> Self {
        let record = LastApplied::load(&record_path(&options.master_socket));
        let early = match &record {
            Some((Reader::Worker(worker), _)) => EarlySession::ask(&options.admin_socket, *worker, SERVERS),
            _ => None,
        };
        Self { options, record, early }
    }

    /// Waits for the answer; `None` tells that HAProxy does not run. `file` is the text of the configuration file.
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
        let record = self.record.filter(|(reader, last_applied)| match reader {
            // Somebody may have written the file by hand while HAProxy was about to read it.
            Reader::Master(_) if file != Some(&last_applied.text) => false,
            _ => session.is(*reader),
        });
        let is_recorded = matches!(record, Some((Reader::Worker(_), _)));
        Ok(Some(Process { session, servers, last_applied: record.map(|(_, last_applied)| last_applied), is_recorded }))
    }
}

/// Records what a master that is about to start will read: this process's parent, which is to become HAProxy by `exec`.
/// That it cannot be recorded costs a reload later, and nothing else.
pub(crate) fn record_start(options: &ProcessOptions, text: String) {
    if let Some(master) = ProcessId::of_pid(getppid().as_raw()) {
        let running = LastApplied { text, leaving: BTreeMap::new() };
        let _ = running.store(&record_path(&options.master_socket), Reader::Master(master));
    }
}

/// Takes back what [`record_start`] recorded: another file will be there.
pub(crate) fn discard_start(options: &ProcessOptions) {
    let path = record_path(&options.master_socket);
    if matches!(LastApplied::load(&path), Some((Reader::Master(_), _))) {
        let _ = remove_if_exists(&path);
    }
}
