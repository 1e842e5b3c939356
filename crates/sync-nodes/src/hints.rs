//! Hints that the member list may have changed: lines of the agent's log, and event handlers that knock.
//!
//! Serf's log tells a change some 20 ms after it, its event handlers a second later. That a member is about to leave is
//! only told at the level of debugging, some 300 ms before that it has left. Nothing is read out of a hint, and a lost one
//! costs only time.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_core::log::Reporter;
use lb_core::serf;
use lb_core::wake::{listen, pipe_path};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Pause before the monitor is started again when it ended: the agent restarts, or does not run yet.
const RESTART: Duration = Duration::from_millis(100);
/// What a line of the agent's log has when a member changed, or is about to leave.
const WORDS: [&[u8]; 2] = [b"EventMember", b"messageLeave"];
/// Bytes at the end of what was read that may be the beginning of a word.
const TAIL: usize = 11;

/// The sources of hints.
pub(crate) struct Hints {
    knock: Option<File>,
    monitor: Option<Monitor>,
    monitor_at: Instant,
}

/// The agent's log as it is written.
struct Monitor {
    log: TcpStream,
    /// The end of what was read before, in case the word is cut in two.
    tail: Vec<u8>,
}

impl Hints {
    pub(crate) fn new(master: &Path, reporter: &Reporter) -> Self {
        let pipe = pipe_path(master);
        let knock =
            listen(&pipe).map_err(|error| reporter.say(format_args!("no hints from handlers: {}: {error}", pipe.display())));
        Self { knock: knock.ok(), monitor: None, monitor_at: Instant::now() }
    }

    /// Waits for a hint, at most for `limit`; says whether there was one. That the monitor starts is one too: what
    /// happened without it was not heard.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            if self.start_monitor() {
                return Ok(true);
            }
            let until = if self.monitor.is_none() { deadline.min(self.monitor_at) } else { deadline };
            self.poll(until.saturating_duration_since(Instant::now()))?;
            if self.take() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// Drops the hints that are already there.
    pub(crate) fn forget(&mut self) {
        while self.poll(Duration::ZERO).is_ok_and(|ready| ready) && self.take() {}
    }

    fn poll(&self, limit: Duration) -> Result<bool> {
        let sources: [Option<BorrowedFd>; 2] =
            [self.knock.as_ref().map(AsFd::as_fd), self.monitor.as_ref().map(|monitor| monitor.log.as_fd())];
        let mut fds: Vec<PollFd> = sources.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, limit) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).context("wait for hints"),
        }
    }

    /// Reads what is there; says whether it is a hint.
    fn take(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let knocked = self.knock.as_mut().is_some_and(|knock| knock.read(&mut buffer).is_ok_and(|length| length > 0));
        let heard = match self.monitor.as_mut().map(Monitor::heard) {
            None => false,
            Some(Some(heard)) => heard,
            Some(None) => {
                self.monitor = None;
                self.monitor_at = Instant::now() + RESTART;
                false
            }
        };
        knocked || heard
    }

    /// Starts the monitor if none runs; says whether it did. That it cannot be started is told by the member list too, which needs the same.
    fn start_monitor(&mut self) -> bool {
        if self.monitor.is_some() || Instant::now() < self.monitor_at {
            return false;
        }
        self.monitor = Monitor::start();
        self.monitor_at = Instant::now() + RESTART;
        self.monitor.is_some()
    }
}

impl Monitor {
    fn start() -> Option<Self> {
        let log = serf::monitor().ok()?;
        log.set_nonblocking(true).ok()?;
        Some(Self { log, tail: Vec::new() })
    }

    /// Reads what is there: whether it speaks of a member, or `None` at its end.
    fn heard(&mut self) -> Option<bool> {
        let mut buffer = [0; 4096];
        match self.log.read(&mut buffer) {
            Ok(0) => None,
            Ok(length) => {
                self.tail.extend(buffer.iter().take(length));
                let heard = WORDS.iter().any(|word| self.tail.windows(word.len()).any(|window| window == *word));
                let keep = if heard { 0 } else { TAIL };
                self.tail.drain(..self.tail.len().saturating_sub(keep));
                Some(heard)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(false),
            Err(_) => None,
        }
    }
}
