//! Serf's RPC: MessagePack over TCP (Serf's documentation, "RPC protocol", version 1).
//!
//! A request is a header and, for most commands, a body; so is what comes back.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::list::{self, Broken};
use crate::members::Member;
use crate::os::escape::Quoted;

/// Time that the agent has for all it is asked on one connection. It answers within a millisecond, and a query in a
/// second; one that hangs must not hang its caller.
const LIMIT: Duration = Duration::from_secs(3);
/// Where an agent listens unless it is told otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:7373";
/// Where `serf-run` has its files unless it is told otherwise.
const DEFAULT_DIRECTORY: &str = "/run/serf";
/// Most bytes of one answer that is kept whole; that of a query has some thousand.
const LARGEST: u64 = 1 << 20;
/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// The file in `SERF_DIR` that has the agent's password.
pub const PASSWORD: &str = "rpc-auth";

/// Why the agent gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum SerfError {
    /// There is no agent, or it went away.
    #[error("serf agent at {address}: {}", .reason.to_string().to_lowercase())]
    Io {
        /// Where it should be.
        address: String,
        /// What the system said; not named `source`, so that a chain of errors does not say it again.
        reason: io::Error,
    },
    /// It took too long.
    #[error("serf agent at {address} did not answer in {LIMIT:?}")]
    TimedOut {
        /// Where it is.
        address: String,
    },
    /// What it said is not Serf's protocol, or was cut off.
    #[error("serf agent at {address}: cannot read its answer")]
    Nonsense {
        /// Where it is.
        address: String,
    },
    /// It has more members than anybody can have.
    #[error("serf agent at {address}: its member list is too long: it has hundreds of thousands of members")]
    Flood {
        /// Where it is.
        address: String,
    },
    /// One of the above, and there is a member that is likely to be the cause.
    #[error("{cause}; its member {name} takes more than {megabytes} MB: remove it by serf force-leave -prune NAME", name = Quoted(.name), megabytes = .bytes >> 20)]
    Large {
        /// What happened.
        cause: String,
        /// The member of which there is most.
        name: String,
        /// How many bytes came of it.
        bytes: u64,
    },
    /// It says that it failed.
    #[error("serf agent at {address}: {command}: {reason}")]
    Refused {
        /// Where it is.
        address: String,
        /// What was asked.
        command: &'static str,
        /// Its words.
        reason: String,
    },
}

/// Bytes of other members as text.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    command: &'static str,
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    error: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Handshake {
    version: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Auth {
    auth_key: String,
}

/// A connection to the agent.
pub(super) struct Session {
    address: String,
    command: &'static str,
    answers: BufReader<Timed>,
}

impl Session {
    /// Connects, and says which version is spoken.
    pub(super) fn open() -> Result<Self, SerfError> {
        let address = setting("SERF_RPC_ADDR").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let deadline = Instant::now() + LIMIT;
        let stream = connect(&address).map_err(|source| failed(&address, source))?;
        let mut session =
            Self { address, command: "handshake", answers: BufReader::with_capacity(BUFFER, Timed { stream, deadline }) };
        session.call("handshake", Some(Handshake { version: 1 }))?;
        if let Some(auth_key) = setting("SERF_RPC_AUTH").or_else(password) {
            session.call("auth", Some(Auth { auth_key }))?;
        }
        Ok(session)
    }

    /// Gives a command, and reads the header of the answer.
    pub(super) fn call(&mut self, command: &'static str, body: Option<impl Serialize>) -> Result<(), SerfError> {
        self.command = command;
        let mut request = rmp_serde::to_vec_named(&Request { command, seq: 0 }).map_err(|_| self.nonsense())?;
        if let Some(body) = body {
            request.append(&mut rmp_serde::to_vec_named(&body).map_err(|_| self.nonsense())?);
        }
        self.answers.get_mut().stream.write_all(&request).map_err(|source| failed(&self.address, source))?;
        self.header()
    }

    /// Reads the header of an answer.
    pub(super) fn header(&mut self) -> Result<(), SerfError> {
        let response: Response = self.body()?;
        if response.error.is_empty() {
            return Ok(());
        }
        Err(SerfError::Refused { address: self.address.clone(), command: self.command, reason: response.error })
    }

    /// Reads the body of an answer.
    pub(super) fn body<T: DeserializeOwned>(&mut self) -> Result<T, SerfError> {
        use rmp_serde::decode::Error;
        rmp_serde::from_read((&mut self.answers).take(LARGEST)).map_err(|error| match error {
            Error::InvalidMarkerRead(source) | Error::InvalidDataRead(source) if source.kind() != ErrorKind::UnexpectedEof => {
                failed(&self.address, source)
            }
            _ => self.nonsense(),
        })
    }

    /// Reads the body of the answer to `members`.
    pub(super) fn members(&mut self) -> Result<Vec<Member>, SerfError> {
        list::read(&mut self.answers).map_err(|Broken { reason, largest }| {
            let address = self.address.clone();
            let error = match reason.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData => self.nonsense(),
                ErrorKind::FileTooLarge => SerfError::Flood { address },
                _ => failed(&self.address, reason),
            };
            let Some((name, bytes)) = largest else { return error };
            SerfError::Large { cause: error.to_string(), name, bytes }
        })
    }

    pub(super) fn nonsense(&self) -> SerfError {
        SerfError::Nonsense { address: self.address.clone() }
    }

    /// The connection itself; what was read ahead is dropped.
    pub(super) fn into_stream(self) -> TcpStream {
        self.answers.into_inner().stream
    }
}

/// The agent says so if it wants another one, or one at all.
fn password() -> Option<String> {
    let directory = setting("SERF_DIR").unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned());
    fs::read_to_string(Path::new(&directory).join(PASSWORD)).ok()
}

fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::InvalidInput, "not an address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, LIMIT) {
            Ok(stream) => {
                stream.set_write_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn failed(address: &str, reason: io::Error) -> SerfError {
    let address = address.to_owned();
    match reason.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => SerfError::TimedOut { address },
        _ => SerfError::Io { address, reason },
    }
}

/// A connection that is read until the deadline, however slowly its bytes come.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}
