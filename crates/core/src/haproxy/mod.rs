//! The running HAProxy: its master process, and the worker that takes the traffic.
//!
//! The worker is found through the master socket (HAProxy 3.0 management guide, section 9.4), so that commands never reach an
//! old worker that is finishing its connections. A worker that is already known is asked directly on its own socket, and has
//! to confirm its identity ([`EarlySession`]).

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::os::command::ProgramError;

pub mod certificate;
mod check;
pub mod command;
pub mod last_applied;
pub(crate) mod observe;
mod options;
pub mod plan;
mod session;
mod state;

pub use check::check;
pub use observe::{Observation, witness};
pub use options::ProcessOptions;
use session::Connection;
pub use session::{EarlySession, Session, current_worker};
pub use state::{Server, parse_servers};

/// Time limit for an answer of HAProxy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two attempts to reach a HAProxy that is starting or reloading.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time limit for a reload, which reads a large configuration twice.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Why HAProxy could not be reached, or what it rejected.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    /// The socket exists, but the conversation on it failed.
    #[error("HAProxy socket {path}", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The answer is not one that this version of HAProxy gives.
    #[error("HAProxy socket {path} gave an unexpected answer to '{command}'", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// The command.
        command: String,
    },
    /// HAProxy runs without a master socket, so it cannot be reloaded.
    #[error("HAProxy answers on {admin}, but not on its master socket {master}: start it with -W -S {master}", admin = admin.display(), master = master.display())]
    NoMaster {
        /// The socket that answers.
        admin: PathBuf,
        /// The socket that does not.
        master: PathBuf,
    },
    /// `haproxy -c` rejects the configuration.
    #[error("HAProxy rejects the configuration: {0}")]
    Rejected(String),
    /// The new worker did not start; the old one keeps running.
    #[error("HAProxy failed to reload, the old worker keeps running: {0}")]
    Reload(String),
    /// `haproxy -c` could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Connects to the worker that takes the traffic; `None` if HAProxy is not running. Waits up to two seconds for the first worker
/// of a master that has just started.
///
/// # Errors
/// [`HaproxyError`] if something listens on a socket, but does not answer like HAProxy.
pub fn find(master: &Path, admin: &Path) -> Result<Option<Session>, HaproxyError> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let Some(connection) = Connection::open(master, ANSWER_TIMEOUT)? else {
            if Connection::open(admin, ANSWER_TIMEOUT)?.is_none() {
                return Ok(None);
            }
            // A worker may outlive its master for a moment.
            if Instant::now() >= deadline {
                return Err(HaproxyError::NoMaster { admin: admin.to_owned(), master: master.to_owned() });
            }
            std::thread::sleep(POLL_INTERVAL);
            continue;
        };
        match Session::begin(connection) {
            Ok(Some(session)) => return Ok(Some(session)),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // A master closes its connections when it begins to reload.
            Ok(None) | Err(_) if Instant::now() < deadline => std::thread::sleep(POLL_INTERVAL),
            Ok(None) => return Err(HaproxyError::Answer { path: master.to_owned(), command: "show proc".to_owned() }),
            Err(error) => return Err(error),
        }
    }
}

/// Whether nothing listens on the master socket, so that HAProxy is yet to start and read its file.
#[must_use]
pub fn is_down(master: &Path) -> bool {
    matches!(Connection::open(master, ANSWER_TIMEOUT), Ok(None))
}

/// Makes HAProxy reload its configuration, and waits until the new worker takes the traffic.
///
/// # Errors
/// [`HaproxyError::Reload`] with HAProxy's message if the new worker did not start; the old one keeps running.
pub fn reload(master: &Path) -> Result<(), HaproxyError> {
    let missing = || HaproxyError::Socket { path: master.to_owned(), source: io::ErrorKind::NotFound.into() };
    let mut connection = Connection::open(master, RELOAD_TIMEOUT)?.ok_or_else(missing)?;
    let answer = connection.ask_last("reload")?;
    match answer.lines().next() {
        Some("Success=1") => Ok(()),
        Some("Success=0") => Err(HaproxyError::Reload(alerts(&answer))),
        _ => Err(HaproxyError::Answer { path: master.to_owned(), command: "reload".to_owned() }),
    }
}

/// The alerts in HAProxy's output, without their prefixes, as one line.
#[must_use]
pub fn alerts(output: &str) -> String {
    let alert = |line: &str| -> Option<String> {
        let (_, text) = line.split_once("[ALERT]")?;
        let (_, text) = text.split_once(" : ")?;
        let text = text.strip_prefix("config : ").unwrap_or(text).trim();
        let summary =
            text.starts_with("Error(s) found") || text.starts_with("Fatal errors found") || text.starts_with("Loading failure");
        (!summary && !text.is_empty()).then(|| text.to_owned())
    };
    let found: Vec<String> = output.lines().filter_map(alert).take(3).collect();
    if found.is_empty() {
        let last = output.lines().rev().find(|line| !line.trim().is_empty());
        return last.unwrap_or("no reason given").trim().to_owned();
    }
    found.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_shown_in_haproxy_s_words_without_its_prefixes() {
        let output = "[NOTICE]   (3) : haproxy version is 3.0.11\n\
            [ALERT]    (3) : config : parsing [/x/haproxy.cfg:7] : unknown keyword 'chekc'; did you mean 'check' maybe ?\n\
            [ALERT]    (3) : config : Error(s) found in configuration file : /x/haproxy.cfg\n\
            [ALERT]    (3) : config : Fatal errors found in configuration.\n";
        assert_eq!(alerts(output), "parsing [/x/haproxy.cfg:7] : unknown keyword 'chekc'; did you mean 'check' maybe ?");
        assert_eq!(alerts("something else\n\n"), "something else");
        assert_eq!(alerts("[ALERT]    (3) : config : \nLoading failure!\n"), "Loading failure!");
        assert_eq!(alerts(""), "no reason given");
    }

    #[test]
    fn without_any_socket_haproxy_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let found = find(&dir.path().join("master.sock"), &dir.path().join("admin.sock")).unwrap();
        assert!(found.is_none());
    }
}
