//! A client of the local Serf agent.
//!
//! As for the command `serf`, its address is in `SERF_RPC_ADDR` and its password in `SERF_RPC_AUTH`. By default the password
//! is the one that `serf-run` generated ([`PASSWORD_FILE`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::members::Member;

mod list;
mod msgpack;
mod rpc;

pub use rpc::{PASSWORD_FILE, SerfError};
use rpc::{Session, to_text};

/// Time for which the agent collects the answers to a query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit for joining or leaving other members, which may not answer.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The member list of the local agent. A value that cannot be read becomes an invalid one, and only the tags that matter to
/// the load balancer are kept.
///
/// # Errors
/// [`SerfError`] if the agent is not running or does not answer in time.
pub fn members() -> Result<Vec<Member>, SerfError> {
    let mut session = Session::open()?;
    session.call("members", None::<()>)?;
    session.members()
}

/// Sends a query to the cluster and collects the answers that arrive within a second, by the name of the member.
///
/// # Errors
/// [`SerfError`] if the agent is not running or does not answer in time.
pub fn query(name: &str, payload: &str) -> Result<BTreeMap<String, String>, SerfError> {
    let timeout = i64::try_from(QUERY_TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
    let mut session = Session::open()?;
    session.call("query", Some(Query { name, payload, timeout, request_ack: false }))?;
    let mut answers = BTreeMap::new();
    loop {
        session.header()?;
        let answer: Answer = session.body()?;
        match answer.kind.as_str() {
            "response" => drop(answers.insert(to_text(&answer.from), to_text(&answer.payload.unwrap_or_default()))),
            "done" => return Ok(answers),
            _ => {}
        }
    }
}

/// Makes the agent join the members at these addresses, on the gossip port.
///
/// # Errors
/// [`SerfError`] if the agent is not running, could join none of them, or does not answer within 10 s.
pub fn join(addresses: &[IpAddr]) -> Result<(), SerfError> {
    let existing = addresses.iter().map(ToString::to_string).collect();
    Session::open_for(MEMBERS_TIMEOUT)?.call("join", Some(Join { existing, replay: false }))
}

/// Makes the agent leave the cluster and exit.
///
/// # Errors
/// [`SerfError`] if the agent is not running or has not left within 10 s.
pub fn leave() -> Result<(), SerfError> {
    Session::open_for(MEMBERS_TIMEOUT)?.call("leave", None::<()>)
}

/// Opens a stream of the agent's log, beginning with the most recent lines: lines of text with a few bytes of framing
/// between them. It ends when the agent does.
///
/// # Errors
/// [`SerfError`] if the agent is not running or does not answer in time.
pub fn monitor() -> Result<TcpStream, SerfError> {
    let mut session = Session::open()?;
    // Only at this level does the log say that a member is about to leave.
    session.call("monitor", Some(Monitor { log_level: "DEBUG" }))?;
    Ok(session.into_stream())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Query<'a> {
    name: &'a str,
    payload: &'a str,
    /// In nanoseconds.
    timeout: i64,
    request_ack: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Join {
    existing: Vec<String>,
    /// Events of before are not repeated.
    replay: bool,
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
