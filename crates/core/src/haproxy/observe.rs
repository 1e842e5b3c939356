//! Observing the running HAProxy: a session with its worker, the servers it has, and the configuration it has read.
//!
//! The worker that the record names is asked first, on its own socket, and prepares its answer while the caller does something
//! else. If the answer comes from another worker, the master is asked for the right one.

use nix::unistd::getppid;

use crate::config::Config;
use crate::haproxy::ProcessOptions;
use crate::haproxy::last_applied::{LastApplied, ProcessId, RecordedFor, record_path};
use crate::haproxy::{self, EarlySession, HaproxyError, Session, parse_servers};
use crate::os::atomic_file::remove_if_exists;
use crate::os::read_file::read_text;
use crate::registry::witness::{Health, Witness};

/// The command that lists the servers of a worker.
pub(crate) const SERVERS: &str = "show servers state";

/// An observation under way.
pub struct Observation<'a> {
    options: &'a ProcessOptions,
    record: Option<(RecordedFor, LastApplied)>,
    early: Option<EarlySession>,
    /// The answer to [`SERVERS`] once it is there: the worker's, or `None` if HAProxy is not running.
    answer: Option<Option<(Session, String)>>,
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
        Self { options, record, early, answer: None }
    }

    /// What HAProxy's health checks say. About a server of the configuration file that the process does not have, it is not
    /// known.
    ///
    /// # Errors
    /// [`HaproxyError`] if HAProxy does not answer, or says something else.
    pub fn witness(&mut self) -> Result<Witness, HaproxyError> {
        let answer = self.answer()?;
        let witness = answer.as_ref().map_or_else(|| Ok(Witness::absent()), |(session, servers)| self.checked(session, servers));
        self.answer = Some(answer);
        witness
    }

    fn checked(&self, session: &Session, servers: &str) -> Result<Witness, HaproxyError> {
        let servers = parse_servers(servers).ok_or_else(|| session.unexpected(SERVERS))?;
        let found = servers.values().filter_map(|server| Some(((server.address?, server.port), server.health()?)));
        let file = read_text(&self.options.config).unwrap_or_default();
        let missing = Config::parse(&file).servers.into_iter().filter(|(key, _)| !servers.contains_key(key));
        let missing = missing.filter_map(|(_, line)| Some((line.endpoint?, Health::Pending)));
        Ok(Witness::new(found.chain(missing)))
    }

    /// Waits for the answer, unless it is there; `None` if HAProxy is not running.
    fn answer(&mut self) -> Result<Option<(Session, String)>, HaproxyError> {
        if let Some(answer) = self.answer.take() {
            return Ok(answer);
        }
        if let Some(answer) = self.early.take().and_then(EarlySession::answer) {
            return Ok(Some(answer));
        }
        let found = haproxy::find(&self.options.master_socket, &self.options.admin_socket)?;
        let Some(mut session) = found else { return Ok(None) };
        let servers = session.ask(SERVERS)?;
        Ok(Some((session, servers)))
    }

    /// Waits for the answer; `None` if HAProxy is not running. `file` is the text of the configuration file.
    pub(crate) fn end(mut self, file: Option<&str>) -> Result<Option<Process>, HaproxyError> {
        let Some((session, servers)) = self.answer()? else { return Ok(None) };
        let record = self.record.filter(|(recorded_for, last_applied)| match recorded_for {
            // The file may have been edited by hand before HAProxy read it.
            RecordedFor::Master(_) if file != Some(&last_applied.text) => false,
            _ => session.matches(*recorded_for),
        });
        let is_recorded = matches!(record, Some((RecordedFor::Worker(_), _)));
        Ok(Some(Process { session, servers, last_applied: record.map(|(_, last_applied)| last_applied), is_recorded }))
    }
}

/// What the running HAProxy's health checks say.
///
/// # Errors
/// [`HaproxyError`] if HAProxy does not answer, or says something else.
pub fn witness(options: &ProcessOptions) -> Result<Witness, HaproxyError> {
    Observation::begin(options).witness()
}

/// Records what a master that is about to start will read: the parent of this process, which becomes HAProxy by `exec`.
/// A failure is ignored, because it only costs a reload later.
pub(crate) fn record_start(options: &ProcessOptions, running: &LastApplied) {
    if let Some(master) = ProcessId::of_pid(getppid().as_raw()) {
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
