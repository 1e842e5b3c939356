//! Validating a configuration with `haproxy -c`.

use std::path::Path;
use std::time::Duration;

use super::{HaproxyError, alerts};
use crate::os::command::run;

/// Time limit of a check; 10,000 servers with dynamic cookies, which HAProxy compares in pairs, take 1 s.
const TIMEOUT: Duration = Duration::from_secs(15);
/// HAProxy has no option for standard input, but can open it as a file.
const STDIN: &str = "/dev/stdin";

/// Validates a configuration with `haproxy -c`. In the error it is called `name`.
///
/// # Errors
/// [`HaproxyError::Rejected`] with HAProxy's message, [`HaproxyError::Program`] if `haproxy` cannot be run.
pub fn check(text: &str, name: &Path) -> Result<(), HaproxyError> {
    let answer = run("haproxy", &["-c", "-f", STDIN], text, TIMEOUT)?;
    if answer.status.success() {
        return Ok(());
    }
    let output = format!("{}{}", answer.stdout, answer.stderr);
    Err(HaproxyError::Rejected(alerts(&output).replace(STDIN, &name.to_string_lossy())))
}
