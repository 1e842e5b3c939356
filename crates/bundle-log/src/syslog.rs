//! Syslog: the URL of a server, and a line as a message (RFC 5424; over TCP as in RFC 6587, section 3.4.2).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use lb_core::os::command;

/// The default port of a syslog server.
const PORT: u16 = 514;
/// Time limit for resolving a name.
const RESOLVE: Duration = Duration::from_secs(5);
/// Priority of every line: facility local0, severity informational.
const PRIORITY: u8 = 16 * 8 + 6;
/// Maximum length of a message in bytes: the default limit of rsyslog, and well below that of a datagram.
pub(crate) const MAX_MESSAGE: usize = 8 * 1024;

/// The transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) transport: Transport,
    host: String,
    port: u16,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be udp://HOST[:PORT] or tcp://HOST[:PORT]";
        let (transport, place) = match text.split_once("://") {
            Some(("udp", place)) => (Transport::Udp, place),
            Some(("tcp", place)) => (Transport::Tcp, place),
            _ => return Err(FORM),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) if host.parse::<IpAddr>().is_ok() => (host, port),
            Some(_) => return Err(FORM),
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port.strip_prefix(':').map(str::parse) {
            None if port.is_empty() => PORT,
            Some(Ok(port)) if port > 0 => port,
            _ => return Err(FORM),
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        let is_name = host.starts_with(|first: char| first.is_ascii_alphanumeric())
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if is_address || is_name { Ok(Self { transport, host: host.to_owned(), port }) } else { Err(FORM) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.transport == Transport::Udp { "udp" } else { "tcp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl Target {
    /// The first address of its name, resolved each time, because a container that comes back may have another one.
    ///
    /// Uses `getent`, because a static program cannot rely on glibc's resolver, and because `getent` can be killed.
    pub(crate) fn resolve(&self) -> io::Result<SocketAddr> {
        if let Ok(address) = self.host.parse() {
            return Ok(SocketAddr::new(address, self.port));
        }
        let answer = command::run("getent", &["ahosts", &self.host], "", RESOLVE).map_err(io::Error::other)?;
        let first = answer.stdout.split_whitespace().next().and_then(|address| address.parse().ok());
        first.map(|address| SocketAddr::new(address, self.port)).ok_or_else(|| io::Error::other("nobody has this name"))
    }
}

/// A line as a message, without a line break. Long lines are truncated.
pub(crate) fn message(host: &str, program: &str, time: SystemTime, line: &[u8]) -> Vec<u8> {
    let time = humantime::format_rfc3339_millis(time);
    let mut message = format!("<{PRIORITY}>1 {time} {host} {program} - - - ").into_bytes();
    message.extend(line);
    message.truncate(MAX_MESSAGE);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_transport_a_host_and_a_port() {
        for (text, full) in [
            ("udp://logs:514", "udp://logs:514"),
            ("tcp://logs.example.org", "tcp://logs.example.org:514"),
            ("udp://172.18.0.9:5514", "udp://172.18.0.9:5514"),
            ("tcp://[::1]", "tcp://[::1]:514"),
            ("tcp://[fe80::1]:65535", "tcp://[fe80::1]:65535"),
            ("udp://my_project-logs_1", "udp://my_project-logs_1:514"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "logs:514",
            "http://logs",
            "udp://",
            "udp://:514",
            "udp://logs:",
            "udp://logs:0",
            "udp://logs:65536",
            "udp://logs:1:2",
            "udp://-v",
            "udp://a b",
            "udp://logs/",
            "tcp://[::1",
            "tcp://[logs]:514",
            "tcp://[::1]514",
            "UDP://logs",
            "udp://lögs",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_says_when_where_and_what() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let text = String::from_utf8(message("s1", "haproxy", time, b"GET / 200")).unwrap();
        assert_eq!(text, "<134>1 1970-01-01T00:00:01.500Z s1 haproxy - - - GET / 200");
        assert_eq!(message("s1", "haproxy", time, &[b'x'; 100_000]).len(), MAX_MESSAGE);
    }
}
