//! A `server` line: the server's name, address and arguments.

use std::fmt;
use std::mem;
use std::net::IpAddr;
use std::str::FromStr;

/// Identifies a server, written `backend/name` in HAProxy's commands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey {
    /// Name of the `backend` or `listen` section.
    pub backend: String,
    /// Name of the server.
    pub server: String,
}

impl ServerKey {
    /// The server `server` of the section `backend`.
    #[must_use]
    pub fn new(backend: &str, server: &str) -> Self {
        Self { backend: backend.to_owned(), server: server.to_owned() }
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// The part of a `server` line after the server's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLine {
    /// Address and port as written.
    pub address: String,
    /// The same, parsed. `None` for a host name, a socket, a port range or an offset.
    pub endpoint: Option<(IpAddr, u16)>,
    /// All further words, separated by single spaces.
    pub arguments: String,
}

/// The initial state of a server, which commands can change.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a> {
    /// The value of the last `weight`, which is the one HAProxy uses.
    pub weight: Option<&'a str>,
    /// Whether it has health checks.
    pub check: bool,
    /// Whether it starts in maintenance.
    pub disabled: bool,
}

/// Kind of a word in a server line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keyword,
    /// The value of `weight`.
    Weight,
    /// The value of a keyword that takes arbitrary text.
    Text,
}

impl ServerLine {
    /// The words except `weight` and its value. They can only be changed by recreating the server.
    pub fn fixed(&self) -> impl Iterator<Item = &str> {
        let keep = |&(kind, word): &(Kind, &str)| kind == Kind::Text || (kind == Kind::Keyword && word != "weight");
        self.words().filter(keep).map(|(_, word)| word)
    }

    /// The initial state that the line gives the server.
    #[must_use]
    pub fn settings(&self) -> Settings<'_> {
        let mut settings = Settings::default();
        for word in self.words() {
            match word {
                (Kind::Weight, weight) => settings.weight = Some(weight),
                (Kind::Keyword, "check") => settings.check = true,
                (Kind::Keyword, "disabled") => settings.disabled = true,
                _ => {}
            }
        }
        settings
    }

    /// The words with their kinds: in `cookie check`, `check` is the name of a node, not a health check.
    fn words(&self) -> impl Iterator<Item = (Kind, &str)> {
        let mut next = Kind::Keyword;
        self.arguments.split(' ').filter(|word| !word.is_empty()).map(move |word| {
            let kind = mem::replace(&mut next, Kind::Keyword);
            if kind == Kind::Keyword {
                next = after(word);
            }
            (kind, word)
        })
    }
}

/// Kind of the word after a keyword (HAProxy 3.0 configuration manual, section 5.2).
fn after(keyword: &str) -> Kind {
    match keyword {
        "weight" => Kind::Weight,
        "agent-send" | "check-sni" | "cookie" | "guid" | "namespace" | "redir" | "resolvers" | "sni" | "track" | "verifyhost" => {
            Kind::Text
        }
        _ => Kind::Keyword,
    }
}

impl fmt::Display for ServerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        if self.arguments.is_empty() { Ok(()) } else { write!(f, " {}", self.arguments) }
    }
}

/// The text has no address, so it is not a server line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server has no address")]
pub struct NoAddress;

impl FromStr for ServerLine {
    type Err = NoAddress;

    /// Parses the part of a `server` line after the server's name.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let mut words = text.split_ascii_whitespace();
        let address = words.next().ok_or(NoAddress)?;
        let mut arguments = String::with_capacity(text.len() - address.len());
        for word in words {
            if !arguments.is_empty() {
                arguments.push(' ');
            }
            arguments.push_str(word);
        }
        Ok(Self { address: address.to_owned(), endpoint: endpoint(address), arguments })
    }
}

/// Parses an address with a port.
fn endpoint(address: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = address.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    Some((ip.parse().ok()?, port.parse().ok().filter(|_| digits)?))
}
