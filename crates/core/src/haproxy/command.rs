//! Commands to the running HAProxy (HAProxy 3.0 management guide, section 9.3).

use std::fmt;
use std::net::IpAddr;

use crate::config::ServerKey;

/// A command to the worker about one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The server.
    pub server: ServerKey,
    /// What to do with it.
    pub action: Action,
}

/// What can be done with a server at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create it, with the arguments of its line in the file.
    Add(String),
    /// Start its health checks, which `add server` does not do.
    Check,
    /// End maintenance or drain.
    Ready,
    /// Change its address.
    Move {
        /// New address.
        address: IpAddr,
        /// New port.
        port: u16,
    },
    /// Change its share of the traffic.
    Weigh(u32),
    /// Put it into maintenance: no new requests, while running ones continue.
    Maintain,
    /// Delete it, in order to recreate it.
    Delete,
    /// Delete it if it has no connections left; otherwise a later run does.
    DeleteWhenIdle,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.server;
        match &self.action {
            Action::Add(line) => write!(f, "add server {key} {line}"),
            Action::Check => write!(f, "enable health {key}"),
            Action::Ready => write!(f, "set server {key} state ready"),
            Action::Move { address, port } => write!(f, "set server {key} addr {address} port {port}"),
            Action::Weigh(weight) => write!(f, "set server {key} weight {weight}"),
            Action::Maintain => write!(f, "set server {key} state maint"),
            Action::Delete | Action::DeleteWhenIdle => write!(f, "del server {key}"),
        }
    }
}

impl Action {
    /// Whether HAProxy's answer means that the command succeeded.
    #[must_use]
    pub fn is_done(&self, answer: &str) -> bool {
        match self {
            Self::Add(_) => answer == "New server registered.",
            Self::Delete | Self::DeleteWhenIdle => answer == "Server deleted.",
            Self::Move { .. } => answer.contains(" changed") || answer.starts_with("no need to change"),
            Self::Check | Self::Ready | Self::Weigh(_) | Self::Maintain => answer.is_empty(),
        }
    }
}
