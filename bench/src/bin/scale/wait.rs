//! Polling with a deadline, often enough for a measurement.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Looks until there is a value.
pub fn soon<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("not within {within:?}: {what}");
        }
        sleep(PAUSE);
    }
}

/// Waits until a value has not changed for this long.
pub fn settled<T: PartialEq>(what: &str, quiet: Duration, within: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let (mut last, mut since) = (look()?, Instant::now());
    soon(what, within, || {
        let now = look()?;
        if now != last {
            (last, since) = (now, Instant::now());
            return Ok(None);
        }
        Ok((since.elapsed() >= quiet).then_some(now))
    })
}
