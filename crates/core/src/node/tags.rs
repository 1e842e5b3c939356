//! The settings of a node.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::NodeError;
use crate::service::{Cookie, Hosts, UrlPath};

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Port(pub(super) u16);

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// Port of the application; by default that of the tools' `--port`.
    pub port: Option<Port>,
    /// Share of the traffic.
    pub weight: Option<Weight>,
    /// Whether the node finishes its requests and gets no new sessions.
    pub drain: bool,
    /// The hosts that its service answers for; all without it.
    pub host: Option<Hosts>,
    /// The beginning of the paths that its service answers for; all without it.
    pub path: Option<UrlPath>,
    /// The path of its service's health check; that of the template without it.
    pub check: Option<UrlPath>,
    /// The session cookie of its service; that of the template without it.
    pub cookie: Option<Cookie>,
}

impl Tags {
    /// The known keys.
    pub const KEYS: [&str; 7] = ["port", "weight", "drain", "host", "path", "check", "cookie"];

    /// Parses `key=value` pairs; unknown keys are passed to `other`, which may reject them.
    ///
    /// # Errors
    /// [`NodeError`] if a value is out of range or a key is given twice, and the errors of `other`.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        mut other: impl FnMut(&'a str, &'a str) -> Result<(), NodeError>,
    ) -> Result<Self, NodeError> {
        let (mut port, mut weight, mut drain) = (None, None, None);
        let (mut host, mut path, mut check, mut cookie) = (None, None, None, None);
        for (key, value) in pairs {
            let twice = match key {
                "port" => port.replace(value.parse()?).is_some(),
                "weight" => weight.replace(value.parse()?).is_some(),
                "drain" => drain.replace(parse_drain(value)?).is_some(),
                "host" => host.replace(value.parse()?).is_some(),
                "path" => path.replace(value.parse()?).is_some(),
                "check" => check.replace(value.parse()?).is_some(),
                "cookie" => cookie.replace(value.parse()?).is_some(),
                _ => {
                    other(key, value)?;
                    false
                }
            };
            if twice {
                return Err(NodeError::Duplicate(key.to_owned()));
            }
        }
        Ok(Self { port, weight, drain: drain.unwrap_or(false), host, path, check, cookie })
    }
}

fn parse_drain(text: &str) -> Result<bool, NodeError> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(NodeError::Drain(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(Tags::from_pairs([(key, "no such value")], |_, _| Ok(())).is_err(), "{key}");
        }
    }
}
