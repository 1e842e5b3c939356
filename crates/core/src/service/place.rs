//! Places, where a service answers: a host, a path, or both.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use crate::node::NodeError;

/// Maximum length of a host, in bytes (RFC 1035).
const MAX_HOST: usize = 253;
/// Maximum length of all hosts of a node together, in bytes: no more fits into Serf's tags.
const MAX_HOSTS: usize = 512;
/// Maximum length of a path, in bytes.
const MAX_PATH: usize = 255;

/// A host in lower case, without port, such as `shop.example`; `*.example` stands for all names with one label more.
///
/// It has only `a-z 0-9 - _ .`, and at the beginning possibly `*`, so it is safe in a condition of HAProxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

impl Host {
    /// The host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it begins with `*.`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }
}

impl FromStr for Host {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
        };
        let reason = match text {
            _ if text.len() > MAX_HOST => "is longer than 253 characters",
            _ if !text.is_ascii() => "is not ASCII: write it in its ASCII form (xn--…)",
            _ if text.contains(':') => "has a port, or is an IPv6 address: it must be a name alone",
            _ if name.contains('*') => "has a * that is not in *. at its beginning",
            _ if name.split('.').all(is_label) => return Ok(Self(text.to_ascii_lowercase())),
            _ => "is not labels of a-z 0-9 - _ (1 to 63 each, - not at an end) with dots between them",
        };
        Err(NodeError::Host { host: text.to_owned(), reason })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One or more hosts, separated by `+`; sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts(Vec<Host>);

impl Hosts {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Host> {
        self.0.iter()
    }
}

impl FromStr for Hosts {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        if text.len() > MAX_HOSTS {
            return Err(NodeError::Host { host: text.to_owned(), reason: "is longer than 512 characters in all" });
        }
        let mut hosts: Vec<Host> = text.split('+').map(str::parse).collect::<Result<_, _>>()?;
        hosts.sort_unstable();
        hosts.dedup();
        Ok(Self(hosts))
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Host::as_str).collect::<Vec<_>>().join("+"))
    }
}

/// An absolute path of `A-Z a-z 0-9 - . _ ~ /`, without empty segments (except after a last `/`), `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UrlPath(String);

impl UrlPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlPath {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
        let inside = text.strip_prefix('/').map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let reason = match inside {
            _ if text.len() > MAX_PATH => "is longer than 255 characters",
            None => "does not begin with /",
            Some(_) if !text.bytes().all(allowed) => "has other characters than A-Z a-z 0-9 - . _ ~ /",
            Some(rest) if rest.split('/').any(|segment| matches!(segment, "." | "..")) => "has a segment . or ..",
            Some(_) if text.contains("//") => "has an empty segment",
            Some(_) => return Ok(Self(text.to_owned())),
        };
        Err(NodeError::Path { path: text.to_owned(), reason })
    }
}

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a service answers: `shop.example/api`, `shop.example`, `/api`, or `/` for whatever no other place matches.
///
/// In their order, the first that matches a request is the one that counts: those of a host before those of a wildcard before
/// those of all hosts, and of one host the longer path first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The host; `None` stands for all.
    host: Option<Host>,
    /// The first segments of the path, without a `/` at the end; empty for all paths.
    path: String,
}

impl Place {
    /// A place of this host and path; without either it is the default place.
    #[must_use]
    pub fn new(host: Option<&Host>, path: Option<&UrlPath>) -> Self {
        let path = path.map_or("", UrlPath::as_str);
        Self { host: host.cloned(), path: path.strip_suffix('/').unwrap_or(path).to_owned() }
    }

    /// The host; `None` stands for all.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The beginning of the path, such as `/api`; empty for all paths.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is that of the default service.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |place: &'_ Self| (place.host.is_none(), place.host.as_ref().is_some_and(Host::is_wildcard));
        let rest = |place: &Self| Reverse(place.path.len());
        key(self)
            .cmp(&key(other))
            .then_with(|| self.host.cmp(&other.host))
            .then_with(|| rest(self).cmp(&rest(other)))
            .then_with(|| self.path.cmp(&other.path))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Place {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let host = if host.is_empty() && !path.is_empty() { None } else { Some(host.parse()?) };
        let path = if path.is_empty() { None } else { Some(path.parse()?) };
        Ok(Self::new(host.as_ref(), path.as_ref()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_ref().map_or("", Host::as_str);
        if self.is_default() { f.write_str("/") } else { write!(f, "{host}{}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = NodeError>>(text: &str) -> String {
        text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} is accepted")).to_string()
    }

    #[test]
    fn hosts_that_no_client_can_ask_for_are_refused_with_their_reason() {
        let (long, label) = (format!("{}.example", "a.".repeat(130)), format!("{}.example", "x".repeat(64)));
        for (bad, reason) in [
            ("", "labels"),
            ("shop example", "labels"),
            ("shop..example", "labels"),
            (".shop.example", "labels"),
            ("shop.example.", "labels"),
            ("-shop.example", "labels"),
            ("shop-.example", "labels"),
            ("shop.example/api", "labels"),
            ("shop}.example", "labels"),
            ("'shop'", "labels"),
            (&label, "labels"),
            (&long, "longer than 253"),
            ("shop.example:80", "a port"),
            ("fd00::1", "a port"),
            ("*", "a * that"),
            ("shop.*.example", "a * that"),
            ("*.*.example", "a * that"),
            ("*shop.example", "a * that"),
            ("bücher.example", "in its ASCII form (xn--…)"),
        ] {
            assert!(refusal::<Host>(bad).contains(reason), "{bad}: {}", refusal::<Host>(bad));
        }
        for good in ["shop.example", "*.example", "localhost", "172.18.0.2", "xn--bcher-kva.example", "a_b.c-d"] {
            assert_eq!(good.parse::<Host>().unwrap().as_str(), good);
        }
        assert_eq!("Shop.EXAMPLE".parse::<Host>().unwrap().as_str(), "shop.example");
        assert_eq!("b.example+A.example+b.example".parse::<Hosts>().unwrap().to_string(), "a.example+b.example");
        assert!(refusal::<Hosts>("a.example++b").contains("labels"));
        assert!(refusal::<Hosts>(&vec!["a"; 300].join("+")).contains("512"));
    }

    #[test]
    fn paths_that_are_not_plain_are_refused_with_their_reason() {
        for (bad, reason) in [
            ("", "does not begin with /"),
            ("api", "does not begin with /"),
            ("/api/../x", "a segment . or .."),
            ("/..", "a segment . or .."),
            ("/./", "a segment . or .."),
            ("//", "an empty segment"),
            ("/a//b", "an empty segment"),
            ("/a%2fb", "other characters"),
            ("/a#b", "other characters"),
            ("/a b", "other characters"),
            ("/a\"b", "other characters"),
            ("/a'b", "other characters"),
            ("/a\\b", "other characters"),
            ("/a{b", "other characters"),
            ("/é", "other characters"),
            (&format!("/{}", "x".repeat(255)), "longer than 255"),
        ] {
            assert!(refusal::<UrlPath>(bad).contains(reason), "{bad}: {}", refusal::<UrlPath>(bad));
        }
        for good in ["/", "/api", "/api/", "/a/b.c/~d_e-f", "/...", &format!("/{}", "x".repeat(254))] {
            assert_eq!(good.parse::<UrlPath>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_place_reads_back_as_it_is_printed() {
        for text in ["shop.example/api", "shop.example", "*.example/a/b", "/api", "/"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("Shop.example/api/".parse::<Place>().unwrap().to_string(), "shop.example/api");
        assert_eq!("shop.example/".parse::<Place>().unwrap().to_string(), "shop.example");
        for bad in ["", "shop.example/..", "api/x y", "*/x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn exact_hosts_and_longer_paths_come_first() {
        let mut places: Vec<Place> =
            ["/", "/a", "*.b", "b/a", "/a/b/c", "b", "*.b/x", "a", "b/a/b", "b/c"].map(|text| text.parse().unwrap()).into();
        places.sort_unstable();
        let sorted: Vec<String> = places.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, ["a", "b/a/b", "b/a", "b/c", "b", "*.b/x", "*.b", "/a/b/c", "/a", "/"]);
    }
}
