//! Serf's RPC: MessagePack over TCP (Serf's documentation, "RPC protocol", version 1).
//!
//! Requests and answers consist of a header and, for most commands, a body.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::list::{self, ListError};
use crate::members::Member;
use crate::os::escape::Quoted;

/// Time limit for everything on one connection. An agent answers within a millisecond, and a query takes a second.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Default address of an agent.
const DEFAULT_ADDRESS: &str = "127.0.0.1:7373";
/// Default directory of `serf-run`'s files.
const DEFAULT_DIRECTORY: &str = "/run/serf";
/// Maximum size in bytes of an answer, except for the member list; that to a query has some thousand.
const MAX_ANSWER: u64 = 1 << 20;
/// Size of the read buffer in bytes.
const BUFFER_SIZE: usize = 64 << 10;

/// Name of the file in `SERF_DIR` with the agent's password.
pub const PASSWORD_FILE: &str = "rpc-auth";

/// Why the agent gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum SerfError {
    /// The agent cannot be reached, or the connection broke.
    #[error("serf agent at {address}: {}", .reason.to_string().to_lowercase())]
    Io {
        /// Address of the agent.
        address: String,
        /// The cause; not named `source`, so that a chain of errors does not repeat it.
        reason: io::Error,
    },
    /// The agent took too long.
    #[error("serf agent at {address} did not answer in {TIMEOUT:?}")]
    TimedOut {
        /// Address of the agent.
        address: String,
    },
    /// The answer is not valid in Serf's protocol, or was cut off.
    #[error("serf agent at {address}: cannot read its answer")]
    Invalid {
        /// Address of the agent.
        address: String,
    },
    /// The member list takes too much memory.
    #[error("serf agent at {address}: its member list is too long: it has hundreds of thousands of members")]
    TooManyMembers {
        /// Address of the agent.
        address: String,
    },
    /// One of the above, with a huge member as the likely cause.
    #[error("{cause}; its member {name} takes more than {megabytes} MB: remove it with serf force-leave -prune NAME", name = Quoted(.name), megabytes = .bytes >> 20)]
    LargeMember {
        /// Message of the error.
        cause: String,
        /// Name of the member.
        name: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The agent reports an error.
    #[error("serf agent at {address}: {command}: {reason}")]
    Refused {
        /// Address of the agent.
        address: String,
        /// The command.
        command: &'static str,
        /// The agent's message.
        reason: String,
    },
}

/// Untrusted bytes as text.
pub(super) fn to_text(bytes: &[u8]) -> String {
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
    answers: BufReader<DeadlineStream>,
}

impl Session {
    /// Connects and authenticates.
    pub(super) fn open() -> Result<Self, SerfError> {
        Self::open_for(TIMEOUT)
    }

    /// The same with another time limit for all answers.
    pub(super) fn open_for(limit: Duration) -> Result<Self, SerfError> {
        let address = setting("SERF_RPC_ADDR").unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let deadline = Instant::now() + limit;
        let stream = connect(&address).map_err(|source| failed(&address, source))?;
        let mut session = Self {
            address,
            command: "handshake",
            answers: BufReader::with_capacity(BUFFER_SIZE, DeadlineStream { stream, deadline }),
        };
        session.call("handshake", Some(Handshake { version: 1 }))?;
        if let Some(auth_key) = setting("SERF_RPC_AUTH").or_else(password) {
            session.call("auth", Some(Auth { auth_key }))?;
        }
        Ok(session)
    }

    /// Sends a command and reads the header of the answer.
    pub(super) fn call(&mut self, command: &'static str, body: Option<impl Serialize>) -> Result<(), SerfError> {
        self.command = command;
        let mut request = rmp_serde::to_vec_named(&Request { command, seq: 0 }).map_err(|_| self.invalid())?;
        if let Some(body) = body {
            request.append(&mut rmp_serde::to_vec_named(&body).map_err(|_| self.invalid())?);
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
        rmp_serde::from_read((&mut self.answers).take(MAX_ANSWER)).map_err(|error| match error {
            Error::InvalidMarkerRead(source) | Error::InvalidDataRead(source) if source.kind() != ErrorKind::UnexpectedEof => {
                failed(&self.address, source)
            }
            _ => self.invalid(),
        })
    }

    /// Reads the body of the answer to `members`.
    pub(super) fn members(&mut self) -> Result<Vec<Member>, SerfError> {
        list::read(&mut self.answers).map_err(|ListError { reason, largest }| {
            let address = self.address.clone();
            let error = match reason.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData => self.invalid(),
                ErrorKind::FileTooLarge => SerfError::TooManyMembers { address },
                _ => failed(&self.address, reason),
            };
            let Some((name, bytes)) = largest else { return error };
            SerfError::LargeMember { cause: error.to_string(), name, bytes }
        })
    }

    pub(super) fn invalid(&self) -> SerfError {
        SerfError::Invalid { address: self.address.clone() }
    }

    /// The connection itself; buffered input is dropped.
    pub(super) fn into_stream(self) -> TcpStream {
        self.answers.into_inner().stream
    }
}

/// The password that `serf-run` generated. If it is missing or wrong, the agent reports that.
fn password() -> Option<String> {
    let directory = setting("SERF_DIR").unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned());
    fs::read_to_string(Path::new(&directory).join(PASSWORD_FILE)).ok()
}

fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::InvalidInput, "not an address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(stream) => {
                stream.set_write_timeout(Some(TIMEOUT))?;
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

/// A connection with a deadline for all reads together.
struct DeadlineStream {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}
