//! One `server` line: which server it is about, where that is, and what else it says.

use std::fmt;
use std::mem;
use std::net::IpAddr;
use std::str::FromStr;

/// Which server: `backend/name`, as HAProxy's commands have it.
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

/// What a `server` line says after the server's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLine {
    /// Address and port as written.
    pub address: String,
    /// The same, parsed, when both are plain: a host name, a socket, a port range or an offset is not.
    pub endpoint: Option<(IpAddr, u16)>,
    /// All further words, with one space between two of them.
    pub arguments: String,
}

/// The state that a `server` line gives a server at its start, which commands can change.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Settings<'a> {
    /// The value of `weight`; of two, HAProxy takes the last.
    pub weight: Option<&'a str>,
    /// It has health checks.
    pub check: bool,
    /// It starts in maintenance.
    pub disabled: bool,
}

/// What a word of a server line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keyword,
    /// The value of `weight`.
    Weight,
    /// The value of a keyword that takes any text.
    Text,
}

impl ServerLine {
    /// The words without `weight` and its value: what can only be changed by making the server anew.
    pub fn fixed(&self) -> impl Iterator<Item = &str> {
        let keep = |&(kind, word): &(Kind, &str)| kind == Kind::Text || (kind == Kind::Keyword && word != "weight");
        self.words().filter(keep).map(|(_, word)| word)
    }

    /// What the line says about the server's state.
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

    /// The words, told apart as far as needed: `cookie check` is no health check, but a node that is named so.
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

/// What comes after a keyword (HAProxy 3.0 configuration manual, section 5.2).
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

/// Why a text is no server line: it has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server has no address")]
pub struct NoAddress;

impl FromStr for ServerLine {
    type Err = NoAddress;

    /// Reads what a `server` line has after the server's name.
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

/// Address and port, when both are plain.
fn endpoint(address: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = address.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    Some((ip.parse().ok()?, port.parse().ok().filter(|_| digits)?))
}
