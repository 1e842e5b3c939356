//! Asking the Serf agent of this container.

use std::time::Duration;

use crate::program::{ProgramError, run};

/// Time that the agent has to answer. It answers in some 20 ms; one that hangs must not hang its caller.
const LIMIT: Duration = Duration::from_secs(3);

/// Why there is no member list.
#[derive(Debug, thiserror::Error)]
pub enum SerfError {
    /// The program `serf` could not be run to its end.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It says that it failed.
    #[error("serf {command}: {reason}")]
    Failed {
        /// What was asked.
        command: String,
        /// Its words.
        reason: String,
    },
}

/// The member list of the local agent, as JSON.
///
/// # Errors
/// [`SerfError`] when the agent does not run, or does not answer in time.
pub fn members() -> Result<String, SerfError> {
    ask(&["members", "-format=json"])
}

/// What the agents that have a handler for the query `name` answer to `payload` within a second: by member, as JSON.
///
/// # Errors
/// [`SerfError`] when the agent does not run, or does not answer in time.
pub fn query(name: &str, payload: &str) -> Result<String, SerfError> {
    ask(&["query", "-format=json", "-no-ack", "-timeout=1s", name, payload])
}

fn ask(arguments: &[&str]) -> Result<String, SerfError> {
    let answer = run("serf", arguments, "", LIMIT)?;
    if answer.status.success() {
        return Ok(answer.stdout);
    }
    // It says on either output why it failed.
    let said = format!("{}{}", answer.stderr, answer.stdout);
    let reason = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
    let command = arguments.first().copied().unwrap_or_default().to_owned();
    Err(SerfError::Failed { command, reason: reason.trim().to_owned() })
}
