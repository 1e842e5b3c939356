//! A node: one instance of the web application, which takes traffic.
//!
//! Values of these types are checked when they are created. They are safe to use as a file name, in a configuration line
//! and in a command to HAProxy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use crate::service::Role;

mod error;
mod tags;

pub use error::NodeError;
pub use tags::{Port, Tags, Weight};

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
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(NodeError::Name(text.to_owned())) }
    }
}

/// Whether text is 1 to 128 of `A-Z a-z 0-9 . _ -`, not beginning with `.` or `-`.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
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

/// One instance of the web application, which takes traffic.
///
/// Its text form is the line of its registry file: `<name> <address>`, followed by ` role=…` unless that is the default, and
/// those of ` port=…`, ` weight=…`, ` drain=yes`, ` host=…`, ` path=…`, ` check=…` and ` cookie=…` that are set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name in the cluster.
    pub name: NodeName,
    /// Address of the application.
    pub address: Address,
    /// Its role, which names its service.
    pub role: Role,
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
        if !self.role.is_default() {
            write!(f, " role={}", self.role)?;
        }
        if let Some(port) = self.tags.port {
            write!(f, " port={port}")?;
        }
        if let Some(weight) = self.tags.weight {
            write!(f, " weight={weight}")?;
        }
        if self.tags.drain {
            f.write_str(" drain=yes")?;
        }
        let mut pair = |key: &str, value: Option<&dyn fmt::Display>| value.map_or(Ok(()), |value| write!(f, " {key}={value}"));
        pair("host", self.tags.host.as_ref().map(|value| value as _))?;
        pair("path", self.tags.path.as_ref().map(|value| value as _))?;
        pair("check", self.tags.check.as_ref().map(|value| value as _))?;
        pair("cookie", self.tags.cookie.as_ref().map(|value| value as _))
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
        let mut role = None;
        let tags = Tags::from_pairs(pairs.ok_or_else(malformed)?, |key, value| match (key, &role) {
            ("role", None) => {
                role = Some(value.parse()?);
                Ok(())
            }
            ("role", Some(_)) => Err(NodeError::Duplicate(key.to_owned())),
            _ => Err(malformed()),
        })?;
        Ok(Self { name, address, role: role.unwrap_or_default(), tags })
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
    fn a_plain_node_is_the_lab_s_line() {
        let node: Node = "s1 172.18.0.2\n".parse().unwrap();
        assert_eq!(node.to_string(), "s1 172.18.0.2");
    }

    #[test]
    fn a_node_s_line_reads_back_as_the_same_node() {
        for line in [
            "s1 172.18.0.2",
            "s2 fd00::7 port=8080",
            "s3 10.0.0.1 port=1 weight=0 drain=yes",
            "s4 10.0.0.1 role=shop port=1 weight=0 drain=yes host=a.example+b.example path=/x check=/ cookie=none",
        ] {
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
            "s1 1.2.3.4 role=shop role=shop",
            "s1 1.2.3.4 role=stats",
            "s1 1.2.3.4 host=a:80",
            "s1 1.2.3.4\ns2 1.2.3.5",
        ] {
            assert!(bad.parse::<Node>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_named() {
        for key in ["port", "role"] {
            let line = format!("s1 1.2.3.4 {key}=1 {key}=1");
            assert_eq!(line.parse::<Node>(), Err(NodeError::Duplicate(key.to_owned())));
        }
    }
}
