//! Hints that the member list may have changed: lines in the agent's log, and event handlers that knock.
//!
//! Serf logs a change after some 20 ms and calls its event handlers a second later. It logs that a member is about to leave
//! only at debug level, some 300 ms before it logs that the member has left. Nothing is parsed from a hint, and losing one
//! only costs time.

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

/// Pause before restarting a monitor that has ended, because the agent is restarting or not running yet.
const RESTART: Duration = Duration::from_millis(100);
/// What a line in the agent's log contains when a member has changed or is about to leave.
const WORDS: [(Hint, &[u8]); 2] = [(Hint::Change, b"EventMember"), (Hint::Leave, b"messageLeave")];
/// Number of bytes at the end of a read that may be the beginning of a word.
const TAIL: usize = 11;

/// What is hinted at; if there are several, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hint {
    /// An event handler has knocked.
    Knock,
    /// Something has changed.
    Change,
    /// A member is about to leave and will soon stop accepting requests.
    Leave,
}

impl Hint {
    /// The cause that is logged for the resulting publish.
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

/// The agent's log, streamed.
struct Monitor {
    log: TcpStream,
    /// The end of the previous read, in case a word was split.
    tail: Vec<u8>,
}

impl Hints {
    pub(crate) fn new(master: &Path, reporter: &Reporter) -> Self {
        let pipe = pipe_path(master);
        let knock =
            listen(&pipe).map_err(|error| reporter.log(format_args!("no hints from handlers: {}: {error}", pipe.display())));
        Self { knock: knock.ok(), monitor: None, monitor_at: Instant::now() }
    }

    /// Waits at most `limit` for a hint. Starting the monitor counts as one, because earlier changes went unheard.
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

    /// Collects hints for `limit`, or until a member is about to leave, then drops them.
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

    /// Reads what is available.
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

    /// Starts the monitor if none is running; returns whether it did. A failure is not reported here: reading the member list
    /// fails for the same reason.
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

    /// Reads what is available; an error means that the log has ended.
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
