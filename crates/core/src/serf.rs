//! Asking the Serf agent of this container, in the protocol that the command line `serf` speaks with it.
//!
//! The environment says where it is, as for `serf` itself: `SERF_RPC_ADDR`, and `SERF_RPC_AUTH` if it wants a password;
//! without that, the password is the one that `serf-run` has made for it ([`PASSWORD`]).

mod rpc;

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpStream};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::members::Listed;
pub use rpc::{PASSWORD, SerfError};
use rpc::{Session, lossy};

/// Time in which an agent gathers the answers to a query.
const ANSWERS: std::time::Duration = std::time::Duration::from_secs(1);

/// The member list of the local agent.
///
/// # Errors
/// [`SerfError`] when the agent does not run, or does not answer in time.
pub fn members() -> Result<Vec<Listed>, SerfError> {
    let mut session = Session::open()?;
    session.call("members", None::<()>)?;
    let members: Members = session.body()?;
    members.members.into_iter().map(Entry::listed).collect::<Option<_>>().ok_or_else(|| session.nonsense())
}

/// What the agents that have a handler for the query `name` answer to `payload` within a second, each by its member.
///
/// # Errors
/// [`SerfError`] when the agent does not run, or does not answer in time.
pub fn query(name: &str, payload: &str) -> Result<BTreeMap<String, String>, SerfError> {
    let timeout = i64::try_from(ANSWERS.as_nanos()).unwrap_or(i64::MAX);
    let mut session = Session::open()?;
    session.call("query", Some(Query { name, payload, timeout, request_ack: false }))?;
    let mut answers = BTreeMap::new();
    loop {
        session.header()?;
        let answer: Answer = session.body()?;
        match answer.kind.as_str() {
            "response" => drop(answers.insert(lossy(&answer.from), lossy(&answer.payload.unwrap_or_default()))),
            "done" => return Ok(answers),
            _ => {}
        }
    }
}

/// The agent's log as it is written, and what was logged shortly before: lines of text between a few bytes that are not.
/// The connection ends with the agent.
///
/// # Errors
/// [`SerfError`] when the agent does not run, or does not answer in time.
pub fn monitor() -> Result<TcpStream, SerfError> {
    let mut session = Session::open()?;
    // That a member is about to leave is told at no higher level.
    session.call("monitor", Some(Monitor { log_level: "DEBUG" }))?;
    Ok(session.into_stream())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Query<'a> {
    name: &'a str,
    payload: &'a str,
    /// Nanoseconds.
    timeout: i64,
    request_ack: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Monitor {
    log_level: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(default)]
    from: ByteBuf,
    #[serde(default)]
    payload: Option<ByteBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Members {
    members: Vec<Entry>,
}

/// Texts of other members, in which any byte may be.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    name: ByteBuf,
    /// 4 or 16 bytes.
    addr: ByteBuf,
    #[serde(default)]
    tags: Option<BTreeMap<ByteBuf, ByteBuf>>,
    status: String,
}

impl Entry {
    fn listed(self) -> Option<Listed> {
        let address: IpAddr = match *self.addr.as_slice() {
            [a, b, c, d] => [a, b, c, d].into(),
            // Go writes an IPv4 address in this form now and then.
            ref bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
        };
        let tags = self.tags.unwrap_or_default();
        Some(Listed {
            name: lossy(&self.name),
            address: address.to_string(),
            tags: tags.iter().map(|(key, value)| (lossy(key), lossy(value))).collect(),
            status: self.status,
        })
    }
}
