//! The running HAProxy: its master process and the worker that takes the traffic.
//!
//! The worker is found through the master's socket, which names the one that answers (HAProxy 3.0 management guide,
//! section 9.4): so a command never reaches an old worker that only finishes its connections. One that is known is asked
//! on its own socket ([`EarlySession`]), and has to say that it is the one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::os::command::ProgramError;

mod check;
pub mod last_applied;
pub(crate) mod observe;
mod options;
pub mod plan;
mod session;
mod state;

pub use check::check;
pub use options::ProcessOptions;
use session::Connection;
pub use session::{EarlySession, Session, current_worker};
pub use state::{Server, parse_servers};

/// Time that one answer of HAProxy may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause between two looks at a HAProxy that is just starting or reloading.
const PAUSE: Duration = Duration::from_millis(20);
/// Time that a reload may take: a large configuration is read twice.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);

/// Why HAProxy could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    /// The socket is there, but nothing usable comes from it.
    #[error("HAProxy socket {path}", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is not one that this version of HAProxy gives.
    #[error("HAProxy socket {path} gave an unexpected answer to '{command}'", path = path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was asked.
        command: String,
    },
    /// HAProxy runs without the socket that can reload it.
    #[error("HAProxy answers on {admin}, but not on its master socket {master}: start it with -W -S {master}", admin = admin.display(), master = master.display())]
    NoMaster {
        /// The socket that answers.
        admin: PathBuf,
        /// The socket that does not.
        master: PathBuf,
    },
    /// `haproxy -c` finds the configuration invalid.
    #[error("HAProxy rejects the configuration: {0}")]
    Rejected(String),
    /// The new worker did not start; the old one goes on.
    #[error("HAProxy failed to reload, the old worker keeps running: {0}")]
    Reload(String),
    /// `haproxy -c` could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Finds the worker that takes the traffic, or `None` when HAProxy does not run.
///
/// While a master that has just started has no worker yet, it is asked again for a short while.
///
/// # Errors
/// [`HaproxyError`] when something is there that does not answer as HAProxy does.
pub fn find(master: &Path, admin: &Path) -> Result<Option<Session>, HaproxyError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let Some(connection) = Connection::open(master, LIMIT)? else {
            if Connection::open(admin, LIMIT)?.is_none() {
                return Ok(None);
            }
            // The worker that ends with its master may be there a little longer.
            if Instant::now() >= deadline {
                return Err(HaproxyError::NoMaster { admin: admin.to_owned(), master: master.to_owned() });
            }
            std::thread::sleep(PAUSE);
            continue;
        };
        match Session::begin(connection) {
            Ok(Some(session)) => return Ok(Some(session)),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // A master ends its connections when it begins to reload.
            Ok(None) | Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Ok(None) => return Err(HaproxyError::Answer { path: master.to_owned(), command: "show proc".to_owned() }),
            Err(error) => return Err(error),
        }
    }
}

/// Whether nobody listens on the master's socket: then HAProxy reads its file when it starts.
#[must_use]
pub fn is_down(master: &Path) -> bool {
    matches!(Connection::open(master, LIMIT), Ok(None))
}

/// Makes HAProxy read its configuration anew, and returns when the new worker takes the traffic.
///
/// # Errors
/// [`HaproxyError::Reload`] with HAProxy's own words when the new worker did not start; the old one goes on then.
pub fn reload(master: &Path) -> Result<(), HaproxyError> {
    let not_there = || HaproxyError::Socket { path: master.to_owned(), source: io::ErrorKind::NotFound.into() };
    let mut connection = Connection::open(master, RELOAD_LIMIT)?.ok_or_else(not_there)?;
    let answer = connection.last_words("reload")?;
    match answer.lines().next() {
        Some("Success=1") => Ok(()),
        Some("Success=0") => Err(HaproxyError::Reload(alerts(&answer))),
        _ => Err(HaproxyError::Answer { path: master.to_owned(), command: "reload".to_owned() }),
    }
}

/// The alerts in what HAProxy prints, without its prefixes, as one line.
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
