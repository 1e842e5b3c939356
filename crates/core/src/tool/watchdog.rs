//! A time limit for a whole run.
//!
//! Each known wait has a limit of its own. This one covers the rest: input that never ends, a HAProxy that answers a byte a
//! second, a disk that hangs. A tool can be stopped at any moment, because files are replaced atomically and the lock ends
//! with the process.

use std::process;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// A deadline that is active as long as the value lives.
#[derive(Debug)]
pub struct Watchdog(Option<Sender<()>>);

impl Watchdog {
    /// Starts the deadline. After `limit` it calls `on_timeout` and ends the process with exit code 1.
    #[must_use]
    pub fn start(limit: Duration, on_timeout: impl FnOnce() + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        let watch = move || {
            loop {
                match receiver.recv_timeout(limit) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        on_timeout();
                        process::exit(1);
                    }
                }
            }
        };
        // If no thread can be started, the tool runs without a deadline.
        Self(thread::Builder::new().spawn(watch).ok().map(|_| sender))
    }

    /// Restarts the deadline, for a service that works in rounds.
    pub fn reset(&self) {
        if let Some(sender) = &self.0 {
            // The thread only ends with this value.
            let _ = sender.send(());
        }
    }
}
