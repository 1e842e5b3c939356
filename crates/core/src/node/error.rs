//! Why text is not a valid part of a node.

use std::net::IpAddr;

use super::Tags;
use crate::os::escape::Quoted;

/// Why text is not a valid part of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The name is empty, too long, or has a character that is not allowed in a file or server name.
    #[error("name {name} is not 1 to 128 of A-Z a-z 0-9 . _ - (not beginning with . or -)", name = Quoted(.0))]
    Name(String),
    /// The text is not an IPv4 or IPv6 literal.
    #[error("address {address} is not an IPv4 or IPv6 address", address = Quoted(.0))]
    Address(String),
    /// The address is valid, but cannot be that of a server.
    #[error("address {address} is {kind}, so no server can have it")]
    NotAServer {
        /// The address.
        address: IpAddr,
        /// Kind of the address.
        kind: &'static str,
    },
    /// The address is one of the balancer's own.
    #[error("address {0} is this balancer's own: it would send its requests to itself")]
    Own(IpAddr),
    /// The address is not in a network of the nodes.
    #[error("address {address} {reason}")]
    Elsewhere {
        /// The address.
        address: IpAddr,
        /// Where the address is, and which setting allows it.
        reason: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("port {port} is not 1 to 65535", port = Quoted(.0))]
    Port(String),
    /// The weight is not a number from 0 to 256.
    #[error("weight {weight} is not 0 to 256", weight = Quoted(.0))]
    Weight(String),
    /// The value of `drain` is neither `yes` nor `no`.
    #[error("drain {drain} is not yes or no", drain = Quoted(.0))]
    Drain(String),
    /// The text cannot be the role of a node.
    #[error("role {role} {reason}", role = Quoted(role))]
    Role {
        /// The text.
        role: String,
        /// Why not.
        reason: &'static str,
    },
    /// The text is not a host that a service can answer for.
    #[error("host {host} {reason}", host = Quoted(host))]
    Host {
        /// The text.
        host: String,
        /// Why not.
        reason: &'static str,
    },
    /// The text is not a plain absolute path.
    #[error("path {path} {reason}", path = Quoted(path))]
    Path {
        /// The text.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// The text is not the name of a cookie.
    #[error("cookie {cookie} is neither none nor 1 to 128 of A-Z a-z 0-9 . _ - (not beginning with . or -)", cookie = Quoted(.0))]
    Cookie(String),
    /// A registry line has no address, or an unknown key.
    #[error("line {line} is not '<name> <address> [KEY=VALUE…]' with keys of role {keys}", line = Quoted(.0), keys = Tags::KEYS.join(" "))]
    Malformed(String),
    /// A key is given more than once.
    #[error("{key} is given twice", key = Quoted(.0))]
    Duplicate(String),
}
