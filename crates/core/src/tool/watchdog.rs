//! A limit on a whole run: whatever a tool waits for, it ends.
//!
//! Each wait that is known has its own limit. This one is for those that are not: an input that never ends, a HAProxy
//! that answers a byte a second, a disk that hangs. A tool that ends at any moment leaves files wholly old or wholly new,
//! and its lock ends with it.

use std::process;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// A deadline that runs as long as the value lives.
#[derive(Debug)]
pub struct Watchdog(Option<Sender<()>>);

impl Watchdog {
    /// After `limit`, calls `last_words` and ends the process with exit code 1.
    #[must_use]
    pub fn start(limit: Duration, last_words: impl FnOnce() + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        let watch = move || {
            loop {
                match receiver.recv_timeout(limit) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        last_words();
                        process::exit(1);
                    }
                }
            }
        };
        // Where no thread can be had, the work is still worth doing.
        Self(thread::Builder::new().spawn(watch).ok().map(|_| sender))
    }

    /// Begins anew: for one that goes on for ever, round by round.
    pub fn reset(&self) {
        if let Some(sender) = &self.0 {
            // The thread only ends with this value.
            let _ = sender.send(());
        }
    }
}
