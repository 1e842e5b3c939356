//! The session cookie of a service.

use std::fmt;
use std::str::FromStr;

use crate::node::{NodeError, is_name};

/// The cookie that binds a session to a node: its name, which is as of a node, or `none`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cookie {
    /// No cookie: each request may go to another node.
    None,
    /// The application's session cookie.
    Named(String),
}

impl FromStr for Cookie {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        match text {
            "none" => Ok(Self::None),
            _ if is_name(text) => Ok(Self::Named(text.to_owned())),
            _ => Err(NodeError::Cookie(text.to_owned())),
        }
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if let Self::Named(name) = self { name } else { "none" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_has_a_name_or_is_none() {
        for good in ["JSESSIONID", "__Host-id", "none", "connect.sid"] {
            assert_eq!(good.parse::<Cookie>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a=b", "a;b", "\"a\"", "é", &"x".repeat(129)] {
            assert!(bad.parse::<Cookie>().is_err(), "{bad}");
        }
    }
}
