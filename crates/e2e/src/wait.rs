//! Polling with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Polls until `look` returns a value, and returns that; `within` is in seconds.
///
/// # Panics
/// If the time is over, with the last error of `look`.
pub fn eventually<T>(what: &str, within: u64, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(within);
    loop {
        match look() {
            Ok(value) => return value,
            Err(missing) if Instant::now() > deadline => panic!("{what}: not within {within} s: {missing}"),
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

/// `Ok` if the two are equal, otherwise both as text.
///
/// # Errors
/// Both, for the message of [`eventually`].
pub fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}")) }
}
