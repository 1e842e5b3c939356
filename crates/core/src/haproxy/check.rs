//! Asking HAProxy whether a configuration is valid.

use std::path::Path;
use std::time::Duration;

use super::{HaproxyError, alerts};
use crate::os::command::run;

/// Ten thousand servers take 0.4 s.
const LIMIT: Duration = Duration::from_secs(15);
/// HAProxy has no sign for standard input, but can open it as a file.
const INPUT: &str = "/dev/stdin";

/// Lets `haproxy -c` read a configuration, which is shown as `name` in the error.
///
/// # Errors
/// [`HaproxyError::Rejected`] in HAProxy's own words, [`HaproxyError::Program`] when it cannot be asked.
pub fn check(text: &str, name: &Path) -> Result<(), HaproxyError> {
    let answer = run("haproxy", &["-c", "-f", INPUT], text, LIMIT)?;
    if answer.status.success() {
        return Ok(());
    }
    let output = format!("{}{}", answer.stdout, answer.stderr);
    Err(HaproxyError::Rejected(alerts(&output).replace(INPUT, &name.to_string_lossy())))
}
