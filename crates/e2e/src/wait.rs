//! Polling with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// A test waits this many times longer than a quiet machine needs: other work on the same processor can make everything ten times
/// slower for some seconds, and no test should fail by the clock.
const PATIENCE: u32 = 3;

/// Polls until `look` returns a value, and returns that. `within` is how many seconds a quiet machine needs at most.
///
/// # Panics
/// After `PATIENCE` times as long, with the last error of `look`.
pub fn eventually<T>(what: &str, within: u64, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    let limit = PATIENCE * Duration::from_secs(within);
    loop {
        match look() {
            Ok(value) => return value,
            Err(missing) if begin.elapsed() > limit => panic!("{what}: not within {limit:?}: {missing}"),
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
