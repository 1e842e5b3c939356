//! The running HAProxy as it is found: a conversation with its worker, the servers that it has, and what it has read.
//!
//! HAProxy works on its answer while the caller does something else: the worker that the record names is asked at
//! once, in one message with the question which worker takes the traffic. If that is another one, it is asked anew.

use crate::haproxy::{self, Early, HaproxyError, Session};
use crate::options::ProcessOptions;
use crate::running::{Running, Worker, record_path};

/// What a worker is asked for the servers that it has.
pub(crate) const SERVERS: &str = "show servers state";

/// A look at the process that has begun.
pub(crate) struct Look<'a> {
    options: &'a ProcessOptions,
    running: Option<(Worker, Running)>,
    early: Option<Early>,
}

/// The process as it is.
pub(crate) struct Process {
    /// The conversation with the worker that takes the traffic.
    pub session: Session,
    /// Its answer to [`SERVERS`].
    pub servers: String,
    /// What it is known to run.
    pub running: Option<Running>,
}

impl<'a> Look<'a> {
    /// Asks, and does not wait for the answer.
    pub(crate) fn begin(options: &'a ProcessOptions) -> Self {
        let running = Running::load(&record_path(&options.master_socket));
        let early = running.as_ref().and_then(|(worker, _)| Early::ask(&options.master_socket, *worker, SERVERS));
        Self { options, running, early }
    }

    /// Waits for the answer; `None` tells that HAProxy does not run.
    pub(crate) fn end(self) -> Result<Option<Process>, HaproxyError> {
        let (session, servers) = match self.early.and_then(Early::answer) {
            Some(answer) => answer,
            None => {
                let found = haproxy::find(&self.options.master_socket, &self.options.admin_socket)?;
                let Some(mut session) = found else { return Ok(None) };
                let servers = session.ask(SERVERS)?;
                (session, servers)
            }
        };
        let running = self.running.filter(|(worker, _)| *worker == session.worker()).map(|(_, running)| running);
        Ok(Some(Process { session, servers, running }))
    }
}
