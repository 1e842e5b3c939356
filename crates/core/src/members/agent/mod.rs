//! Asking the Serf agent of this container, in the protocol that the command line `serf` speaks with it.
//!
//! The environment says where it is, as for `serf` itself: `SERF_RPC_ADDR`, and `SERF_RPC_AUTH` if it wants a password;
//! without that, the password is the one that `serf-run` has made for it ([`PASSWORD`]).

use std::collections::BTreeMap;
use std::net::TcpStream;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::members::Member;

mod list;
mod msgpack;
mod rpc;

pub use rpc::{PASSWORD, SerfError};
use rpc::{Session, lossy};

/// Time in which an agent gathers the answers to a query.
const ANSWERS: std::time::Duration = std::time::Duration::from_secs(1);

/// The member list of the local agent. What cannot be read of one member is not valid as what it should be, and hides no
/// other; of the tags, those are kept that mean something to us.
///
/// # Errors
/// [`SerfError`] when the agent does not run, or does not answer in time.
pub fn members() -> Result<Vec<Member>, SerfError> {
    let mut session = Session::open()?;
    session.call("members", None::<()>)?;
    session.members()
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
