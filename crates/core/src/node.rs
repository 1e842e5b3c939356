//! A node: one instance of the web application, which takes traffic.
//!
//! Values of these types are checked when they are created. They are safe to use as a file name, in a configuration line
//! and in a command to HAProxy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

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
    /// A registry line has no address, or an unknown key.
    #[error("line {line} is not '<name> <address> [port=…] [weight=…] [drain=…]'", line = Quoted(.0))]
    Malformed(String),
    /// A key is given more than once.
    #[error("{key} is given twice", key = Quoted(.0))]
    Duplicate(String),
}

/// The name of a node: 1 to 128 of `A-Z a-z 0-9 . _ -`, not beginning with `.` or `-`.
///
/// Such a name is valid as a file name, HAProxy server name and cookie value, and cannot be mistaken for an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NodeError::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The IPv4 or IPv6 address of a node.
///
/// [`Admission`](crate::members::admission::Admission) decides in which networks it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address(IpAddr);

/// IP address and port.
pub type Endpoint = (IpAddr, u16);

impl Address {
    /// The IP address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl FromStr for Address {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let ip: IpAddr = text.parse().map_err(|_| NodeError::Address(text.to_owned()))?;
        // `::ffff:0.0.0.0` is treated as 0.0.0.0.
        let plain = ip.to_canonical();
        let broadcast = matches!(plain, IpAddr::V4(v4) if v4.is_broadcast());
        let kind = match ip {
            _ if plain.is_unspecified() => "unspecified",
            _ if plain.is_multicast() => "multicast",
            _ if broadcast => "broadcast",
            _ => return Ok(Self(ip)),
        };
        Err(NodeError::NotAServer { address: ip, kind })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Port(u16);

impl FromStr for Port {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        match text.parse() {
            Ok(port @ 1..) if is_number(text) => Ok(Self(port)),
            _ => Err(NodeError::Port(text.to_owned())),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's share of the traffic relative to the others, 0 to 256 as in HAProxy; the default is 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Weight(u16);

impl Weight {
    /// The weight of a draining node, which gets no new sessions.
    pub const DRAINED: Self = Self(0);
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl FromStr for Weight {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        match text.parse() {
            Ok(weight @ 0..=256) if is_number(text) => Ok(Self(weight)),
            _ => Err(NodeError::Weight(text.to_owned())),
        }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether text has digits only; the standard parser also accepts a leading `+`.
fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Optional settings of a node: its Serf tags, and the ` key=value` pairs of a registry line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tags {
    /// Port of the application; by default that of the tools' `--port`.
    pub port: Option<Port>,
    /// Share of the traffic.
    pub weight: Option<Weight>,
    /// Whether the node finishes its requests and gets no new sessions.
    pub drain: bool,
}

impl Tags {
    /// The known keys.
    pub const KEYS: [&str; 3] = ["port", "weight", "drain"];

    /// Parses `key=value` pairs; unknown keys are passed to `other`, which may reject them.
    ///
    /// # Errors
    /// [`NodeError`] if a value is out of range or a key is given twice, and the errors of `other`.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        mut other: impl FnMut(&'a str) -> Result<(), NodeError>,
    ) -> Result<Self, NodeError> {
        let (mut port, mut weight, mut drain) = (None, None, None);
        for (key, value) in pairs {
            let twice = match key {
                "port" => port.replace(value.parse()?).is_some(),
                "weight" => weight.replace(value.parse()?).is_some(),
                "drain" => drain.replace(parse_drain(value)?).is_some(),
                _ => {
                    other(key)?;
                    false
                }
            };
            if twice {
                return Err(NodeError::Duplicate(key.to_owned()));
            }
        }
        Ok(Self { port, weight, drain: drain.unwrap_or(false) })
    }
}

fn parse_drain(text: &str) -> Result<bool, NodeError> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(NodeError::Drain(text.to_owned())),
    }
}

/// One instance of the web application, which takes traffic.
///
/// Its text form is the line of its registry file: `<name> <address>`, followed by those of ` port=…`, ` weight=…` and
/// ` drain=yes` that are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name in the cluster.
    pub name: NodeName,
    /// Address of the application.
    pub address: Address,
    /// Optional settings.
    pub tags: Tags,
}

impl Node {
    /// The port of its application, or `default` if it has no tag `port`.
    #[must_use]
    pub fn port(&self, default: Port) -> Port {
        self.tags.port.unwrap_or(default)
    }

    /// Where its application listens; `default` is the port without a tag `port`.
    #[must_use]
    pub fn endpoint(&self, default: Port) -> Endpoint {
        (self.address.ip(), self.port(default).0)
    }

    /// Its share of the traffic: 0 while it drains, and 100 if it has no tag `weight`.
    #[must_use]
    pub fn weight(&self) -> Weight {
        if self.tags.drain { Weight::DRAINED } else { self.tags.weight.unwrap_or_default() }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.address)?;
        if let Some(port) = self.tags.port {
            write!(f, " port={port}")?;
        }
        if let Some(weight) = self.tags.weight {
            write!(f, " weight={weight}")?;
        }
        if self.tags.drain {
            f.write_str(" drain=yes")?;
        }
        Ok(())
    }
}

impl FromStr for Node {
    type Err = NodeError;

    fn from_str(line: &str) -> Result<Self, NodeError> {
        let malformed = || NodeError::Malformed(line.to_owned());
        let mut words = line.trim_end().split(' ');
        let name = words.next().ok_or_else(malformed)?.parse()?;
        let address = words.next().ok_or_else(malformed)?.parse()?;
        let pairs: Option<Vec<_>> = words.map(|word| word.split_once('=')).collect();
        let tags = Tags::from_pairs(pairs.ok_or_else(malformed)?, |_| Err(malformed()))?;
        Ok(Self { name, address, tags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_safe_file_names_are_refused() {
        let long = "x".repeat(129);
        for bad in ["", ".", "..", ".hidden", "-rf", "a/b", "a b", "a\n", "é", "a;b", "{{x}}", "%[src]", "$(id)", "#", &long] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for good in ["s1", "3f2a", "server", "a.b_c-D", &"x".repeat(128)] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn addresses_that_no_server_has_are_refused() {
        for bad in ["", "s1", "1.2.3", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1%eth0", "1.2.3.4:80"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
        for good in ["172.18.0.2", "127.0.0.1", "fd00::1"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for bad in ["", "0", "65536", "-1", "+80", "80 ", "1e3"] {
            assert!(bad.parse::<Port>().is_err(), "{bad:?}");
        }
        for bad in ["", "257", "-1", "+5", "1.5"] {
            assert!(bad.parse::<Weight>().is_err(), "{bad:?}");
        }
        assert!("0".parse::<Weight>().is_ok() && "256".parse::<Weight>().is_ok());
    }

    #[test]
    fn all_keys_are_known() {
        for key in Tags::KEYS {
            assert!(Tags::from_pairs([(key, "no such value")], |_| Ok(())).is_err(), "{key}");
        }
    }

    #[test]
    fn a_plain_node_is_the_lab_s_line() {
        let node: Node = "s1 172.18.0.2\n".parse().unwrap();
        assert_eq!(node.to_string(), "s1 172.18.0.2");
    }

    #[test]
    fn a_node_s_line_reads_back_as_the_same_node() {
        for line in ["s1 172.18.0.2", "s2 fd00::7 port=8080", "s3 10.0.0.1 port=1 weight=0 drain=yes"] {
            assert_eq!(line.parse::<Node>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for bad in [
            "",
            "s1",
            "s1 ",
            "s1  172.18.0.2",
            "s1 172.18.0.2 port",
            "s1 172.18.0.2 colour=red",
            "s1 1.2.3.4 port=1 port=2",
            "s1 1.2.3.4\ns2 1.2.3.5",
        ] {
            assert!(bad.parse::<Node>().is_err(), "{bad:?}");
        }
    }
}
