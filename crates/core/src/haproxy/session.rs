//! Sessions on HAProxy's command line sockets.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::TimeVal;

use super::HaproxyError;
use crate::haproxy::last_applied::{ProcessId, RecordedFor};
use crate::os::permissions::check_file;

/// Maximum size of an answer in bytes; the state of 10,000 servers has less than 2 MB.
const MAX_ANSWER: usize = 16 << 20;

/// The prompt that a worker writes after each answer on its own socket.
const PROMPT: &str = "\n> ";

/// A connection to one of the sockets.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
    stream: UnixStream,
    /// Time limit for an answer.
    timeout: Duration,
}

impl Connection {
    /// Connects; `None` if nothing listens there. `timeout` is the time limit for connecting and for each answer.
    pub(super) fn open(path: &Path, timeout: Duration) -> Result<Option<Self>, HaproxyError> {
        match check_file(path).and_then(|()| connect(path, timeout)) {
            Ok(stream) => Ok(Some(Self { path: path.to_owned(), stream, timeout })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(source) => Err(HaproxyError::Socket { path: path.to_owned(), source }),
        }
    }

    /// Sends the last command of the connection, and reads the answer to its end.
    pub(super) fn ask_last(&mut self, command: &str) -> Result<String, HaproxyError> {
        self.send(command)?;
        self.stream.shutdown(Shutdown::Write).map_err(|source| self.failed(source))?;
        self.receive(|_| false)
    }

    /// Sends a command and reads the answer up to the next prompt.
    fn ask(&mut self, command: &str) -> Result<String, HaproxyError> {
        self.send(command)?;
        let mut answer = self.receive(at_prompt)?;
        if !at_prompt(answer.as_bytes()) {
            return Err(HaproxyError::Answer { path: self.path.clone(), command: command.to_owned() });
        }
        answer.truncate(answer.rfind('\n').unwrap_or(0));
        answer.truncate(answer.trim_end().len());
        Ok(answer)
    }

    fn send(&mut self, command: &str) -> Result<(), HaproxyError> {
        let line = format!("{command}\n");
        self.stream.write_all(line.as_bytes()).map_err(|source| self.failed(source))
    }

    fn receive(&mut self, complete: impl Fn(&[u8]) -> bool) -> Result<String, HaproxyError> {
        let deadline = Instant::now() + self.timeout;
        let mut answer = Vec::new();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let length = match self.stream.read(&mut chunk) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // This is how a socket reports that its timeout has expired.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(self.failed(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(self.failed(error)),
            };
            answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
            if length == 0 || complete(&answer) {
                return String::from_utf8(answer).map_err(|_| self.failed(io::ErrorKind::InvalidData.into()));
            }
            if Instant::now() > deadline {
                return Err(self.failed(io::ErrorKind::TimedOut.into()));
            }
            if answer.len() > MAX_ANSWER {
                return Err(self.failed(io::ErrorKind::InvalidData.into()));
            }
        }
    }

    fn failed(&self, source: io::Error) -> HaproxyError {
        HaproxyError::Socket { path: self.path.clone(), source }
    }
}

/// Connects with a time limit, because the full queue of a hanging process would block forever.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let timeout = TimeVal::new(i64::try_from(timeout.as_secs()).unwrap_or(1), 0);
    socket::setsockopt(&fd, sockopt::SendTimeout, &timeout)?;
    socket::setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?).map_err(|errno| match errno {
        Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
        other => io::Error::from(other),
    })?;
    Ok(UnixStream::from(fd))
}

/// Whether an answer is complete: its last line is a prompt, `> `, `master> `, `master[ReloadFailed]> ` or `<pid>> `.
fn at_prompt(answer: &[u8]) -> bool {
    let last = answer.rsplit(|&b| b == b'\n').next().unwrap_or(answer);
    last.strip_suffix(b"> ").is_some_and(|name| name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'[' | b']')))
}

/// A session with one worker, through the master or on the worker's own socket. It never reaches another worker.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    worker: ProcessId,
    /// The prompt after each answer.
    prompt: String,
    /// The master, unless it has reloaded since it started.
    master: Option<ProcessId>,
}

impl Session {
    /// Begins a session with the worker that takes the traffic; `None` if there is none yet.
    pub(super) fn begin(mut connection: Connection) -> Result<Option<Self>, HaproxyError> {
        connection.ask("prompt")?;
        let processes = connection.ask("show proc")?;
        let Some(worker) = current_worker(&processes).and_then(ProcessId::of_pid) else { return Ok(None) };
        connection.ask(&format!("@!{}", worker.pid))?;
        let (prompt, master) = (format!("\n{}> ", worker.pid), first_master(&processes).and_then(ProcessId::of_pid));
        Ok(Some(Self { connection, worker, prompt, master }))
    }

    /// The worker of this session.
    #[must_use]
    pub fn worker(&self) -> ProcessId {
        self.worker
    }

    /// Whether a record is about this worker.
    #[must_use]
    pub fn matches(&self, recorded_for: RecordedFor) -> bool {
        match recorded_for {
            RecordedFor::Worker(worker) => worker == self.worker,
            RecordedFor::Master(master) => Some(master) == self.master,
        }
    }

    /// Sends a command and returns the answer without surrounding whitespace.
    ///
    /// # Errors
    /// [`HaproxyError`] if the worker does not answer in time. A failed command is not an error; the answer says so.
    pub fn ask(&mut self, command: &str) -> Result<String, HaproxyError> {
        self.connection.ask(command)
    }

    /// Sends several commands at once and returns the answers in the same order. All are executed, even if one fails.
    ///
    /// # Errors
    /// [`HaproxyError`] if the worker does not answer in time, or closes the connection before the last answer.
    pub fn ask_all(&mut self, commands: &[String]) -> Result<Vec<String>, HaproxyError> {
        let mut answers = Vec::with_capacity(commands.len());
        // A batch must fit into HAProxy's buffers, because it does not read while it waits for its answers to be read.
        for batch in commands.chunks(32) {
            self.connection.send(&batch.join("\n"))?;
            let text = self.connection.receive(|answer| count(answer, self.prompt.as_bytes()) == batch.len())?;
            if let Some(command) = batch.get(count(text.as_bytes(), self.prompt.as_bytes())) {
                return Err(self.unexpected(command));
            }
            answers.extend(text.split(&self.prompt).take(batch.len()).map(|answer| answer.trim().to_owned()));
        }
        Ok(answers)
    }

    /// The error for an answer that this version of HAProxy does not give.
    #[must_use]
    pub fn unexpected(&self, command: &str) -> HaproxyError {
        HaproxyError::Answer { path: self.connection.path.clone(), command: command.to_owned() }
    }
}

/// A command sent ahead on the socket of a worker that is assumed to take the traffic. Going through the master takes twice as
/// long.
#[derive(Debug)]
pub struct EarlySession {
    connection: Connection,
    worker: ProcessId,
}

impl EarlySession {
    /// Sends the command without waiting for the answer; `None` if that fails. The way through the master then shows why.
    #[must_use]
    pub fn ask(admin: &Path, worker: ProcessId, command: &str) -> Option<Self> {
        let mut connection = Connection::open(admin, super::ANSWER_TIMEOUT).ok()??;
        connection.send(&format!("prompt\n{command}\nshow cli level\nshow info")).ok()?;
        Some(Self { connection, worker })
    }

    /// The session and the answer; `None` if there is no answer in time, if it comes from another worker or from one that is
    /// stopping, as shortly after a reload, or if the socket does not allow changes.
    #[must_use]
    pub fn answer(mut self) -> Option<(Session, String)> {
        let mut text =
            self.connection.receive(|answer| last_answer(answer).is_some_and(|last| last.starts_with(b"Name: "))).ok()?;
        let mut answers = text.strip_prefix(PROMPT)?.strip_suffix(PROMPT)?.rsplitn(3, PROMPT);
        let (info, level, answer) = (answers.next()?, answers.next()?, answers.next()?);
        let has_line = |line: &str| info.lines().any(|found| found == line);
        let is_same = has_line(&format!("Pid: {}", self.worker.pid)) && ProcessId::of_pid(self.worker.pid) == Some(self.worker);
        if !is_same || !has_line("Stopping: 0") || level.trim() != "admin" {
            return None;
        }
        let session = Session { connection: self.connection, worker: self.worker, prompt: PROMPT.to_owned(), master: None };
        text.truncate(PROMPT.len() + answer.trim_end().len());
        text.drain(..PROMPT.len());
        Some((session, text))
    }
}

/// The answer between the last two prompts.
fn last_answer(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_suffix(PROMPT.as_bytes())?;
    let prompt = text.windows(PROMPT.len()).rposition(|window| window == PROMPT.as_bytes())?;
    text.get(prompt + PROMPT.len()..)
}

/// Number of times that `word` occurs in `text`.
fn count(text: &[u8], word: &[u8]) -> usize {
    text.windows(word.len()).filter(|window| *window == word).count()
}

/// Process id of the current worker in the answer to `show proc`, which lists it before the old ones.
#[must_use]
pub fn current_worker(processes: &str) -> Option<i32> {
    let line = processes.lines().skip_while(|line| *line != "# workers").nth(1)?;
    let mut words = line.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    (words.next()? == "worker").then_some(pid)
}

/// Process id of the master in the answer to `show proc`, unless it has reloaded.
fn first_master(processes: &str) -> Option<i32> {
    let mut words = processes.lines().find(|line| !line.starts_with('#'))?.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    (words.next()? == "master" && words.next()? == "0").then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESSES: &str = "\
#<PID>          <type>          <reloads>       <uptime>        <version>
1               master          1 [failed: 0]   0d00h00m29s     3.0.11-1+deb13u3
# workers
163             worker          0               0d00h00m00s     3.0.11-1+deb13u3
# old workers
9               worker          1               0d00h00m29s     3.0.11-1+deb13u3
# programs";

    #[test]
    fn the_current_worker_is_not_an_old_one() {
        assert_eq!(current_worker(PROCESSES), Some(163));
        let starting: String = PROCESSES.lines().filter(|line| !line.starts_with("163")).collect::<Vec<_>>().join("\n");
        assert_eq!(current_worker(&starting), None);
        assert_eq!(current_worker(""), None);
    }

    #[test]
    fn a_master_that_reloaded_is_not_as_it_started() {
        assert_eq!(first_master(PROCESSES), None);
        assert_eq!(first_master(&PROCESSES.replace("1 [failed", "0 [failed")), Some(1));
        assert_eq!(first_master(""), None);
    }

    #[test]
    fn prompts_are_told_from_answers() {
        for prompt in ["> ", "master> ", "text\n\nmaster[ReloadFailed]> ", "\n163> "] {
            assert!(at_prompt(prompt.as_bytes()), "{prompt:?}");
        }
        for other in ["", "text", "a -> ", "> \n", "master>"] {
            assert!(!at_prompt(other.as_bytes()), "{other:?}");
        }
    }
}
