//! Hints that the member list may have changed: lines of the agent's log, and event handlers that knock.
//!
//! Serf's log tells a change some 20 ms after it, its event handlers a second later. That a member is about to leave is
//! only told at the level of debugging, some 300 ms before that it has left. Nothing is read out of a hint, and a lost one
//! costs only time.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_core::members::agent;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::wakeup::{listen, pipe_path};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Pause before the monitor is started again when it ended: the agent restarts, or does not run yet.
const RESTART: Duration = Duration::from_millis(100);
/// What a line of the agent's log has when a member changed, or is about to leave.
const WORDS: [(Hint, &[u8]); 2] = [(Hint::Change, b"EventMember"), (Hint::Leave, b"messageLeave")];
/// Bytes at the end of what was read that may be the beginning of a word.
const TAIL: usize = 11;

/// What is hinted at; the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hint {
    /// An event handler has knocked.
    Knock,
    /// Something has changed.
    Change,
    /// A member is about to leave: soon it takes no request any more.
    Leave,
}

impl Hint {
    /// What the log calls it, as the cause of what is done then.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Knock => "event-handler",
            Self::Change => "agent-log",
            Self::Leave => "agent-log-leave",
        }
    }
}

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

    /// Waits for a hint, at most for `limit`. That the monitor starts is one too: what happened without it was not heard.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<Hint>> {
        let deadline = Instant::now() + limit;
        loop {
            if self.start_monitor() {
                return Ok(Some(Hint::Change));
            }
            let until = if self.monitor.is_none() { deadline.min(self.monitor_at) } else { deadline };
            self.poll(until.saturating_duration_since(Instant::now()))?;
            let hint = self.take();
            if hint.is_some() || Instant::now() >= deadline {
                return Ok(hint);
            }
        }
    }

    /// Lets hints gather for `limit`, or until a member is about to leave; then drops those that are there.
    pub(crate) fn gather(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.poll(deadline.saturating_duration_since(Instant::now()))? {
            if self.take() == Some(Hint::Leave) {
                break;
            }
        }
        while self.poll(Duration::ZERO)? {
            self.take();
        }
        Ok(())
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

    /// Reads what is there.
    fn take(&mut self) -> Option<Hint> {
        let mut buffer = [0; 4096];
        let knocked = self.knock.as_mut().is_some_and(|knock| knock.read(&mut buffer).is_ok_and(|length| length > 0));
        let heard = match self.monitor.as_mut().map(Monitor::heard) {
            None => None,
            Some(Ok(heard)) => heard,
            Some(Err(_)) => {
                self.monitor = None;
                self.monitor_at = Instant::now() + RESTART;
                None
            }
        };
        heard.max(knocked.then_some(Hint::Knock))
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
        let log = agent::monitor().ok()?;
        log.set_nonblocking(true).ok()?;
        Some(Self { log, tail: Vec::new() })
    }

    /// Reads what is there; an error tells that it has ended.
    fn heard(&mut self) -> io::Result<Option<Hint>> {
        let mut buffer = [0; 4096];
        match self.log.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.tail.extend(buffer.iter().take(length));
                let has = |word: &[u8]| self.tail.windows(word.len()).any(|window| window == word);
                let heard = WORDS.iter().filter(|(_, word)| has(word)).map(|(hint, _)| *hint).max();
                let keep = if heard.is_some() { 0 } else { TAIL };
                self.tail.drain(..self.tail.len().saturating_sub(keep));
                Ok(heard)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
