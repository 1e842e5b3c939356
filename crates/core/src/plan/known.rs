//! The servers that are known to run. Where only servers of one section differ from those that are wanted, as after
//! every event, only these lines are read: of a thousand it is one.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{self, ServerKey, ServerLine};
use crate::lines::without_same_lines;

/// The servers of the text that is known to run, as far as they are not those of the wanted text.
#[derive(Debug)]
pub(super) struct Known<'a> {
    servers: BTreeMap<ServerKey<'a>, ServerLine<'a>>,
    /// Servers of the wanted text that may be new; none tells that all may.
    new: Option<BTreeSet<ServerKey<'a>>>,
}

impl<'a> Known<'a> {
    /// All servers of a text that was read.
    pub(super) fn all(servers: BTreeMap<ServerKey<'a>, ServerLine<'a>>) -> Self {
        Self { servers, new: None }
    }

    /// Reads those lines of `known` and `wanted` that differ, or tells `None` when they are not all lines of servers of
    /// one section.
    pub(super) fn where_it_differs(known: &'a str, wanted: &'a str) -> Option<Self> {
        let (before, known, wanted) = without_same_lines(known, wanted)?;
        if known.is_empty() && wanted.is_empty() {
            return Some(Self { servers: BTreeMap::new(), new: Some(BTreeSet::new()) });
        }
        let backend = config::backend_at_end(before)?;
        let new = config::servers_alone(backend, wanted)?.into_keys().collect();
        Some(Self { servers: config::servers_alone(backend, known)?, new: Some(new) })
    }

    /// The line of a server that is wanted, as it is known to run.
    pub(super) fn line(&self, key: &ServerKey<'a>, wanted: &ServerLine<'a>) -> Option<ServerLine<'a>> {
        let same = || self.new.as_ref().is_some_and(|new| !new.contains(key)).then_some(*wanted);
        self.servers.get(key).copied().or_else(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "global\nbackend nodes\n";

    fn differs(known: &str, wanted: &str) -> Option<(Vec<String>, Vec<String>)> {
        let texts = [known, wanted].map(|servers| format!("{HEAD}{servers}listen stats\n mode http\n"));
        let known = Known::where_it_differs(&texts[0], &texts[1])?;
        let names = |keys: Vec<ServerKey>| keys.iter().map(ToString::to_string).collect();
        Some((names(known.servers.into_keys().collect()), names(known.new?.into_iter().collect())))
    }

    #[test]
    fn only_lines_that_differ_are_read() {
        let (s1, s2, s3) = (" server s1 1.1.1.1:1\n", " server s2 1.1.1.2:1\n", " server s3 1.1.1.3:1\n");
        let (old, new) = differs(&format!("{s1}{s3}"), &format!("{s1}{s2}{s3}")).unwrap();
        assert!(old.is_empty() && new == ["nodes/s2"], "{old:?} {new:?}");
        let (old, new) = differs(&format!("{s1}{s2}{s3}"), &format!("{s1}{s3}")).unwrap();
        assert!(old == ["nodes/s2"] && new.is_empty(), "{old:?} {new:?}");
        let (old, new) = differs(&format!("{s1}{s2}"), &format!("{s1} server s2 1.1.1.9:1 check\n")).unwrap();
        assert!(old == ["nodes/s2"] && new == ["nodes/s2"], "{old:?} {new:?}");
        assert_eq!(differs(s1, s1), Some((Vec::new(), Vec::new())));
    }

    #[test]
    fn other_lines_need_the_whole_text() {
        for (known, wanted) in [
            (" balance source\n", " server s1 1.1.1.1:1\n"),
            ("", " server s1\n"),
            (" server s1 1.1.1.1:1\n", " server s1 1.1.1.2:1\nbackend other\n server s2 1.1.1.1:1\n"),
            ("", "peers p\n server local\n"),
        ] {
            assert_eq!(differs(known, wanted), None, "{known:?} {wanted:?}");
        }
        assert!(Known::where_it_differs("", " server s1 1.1.1.1:1\n").is_none());
        assert!(Known::where_it_differs("peers p\n", "peers p\n server s1 1.1.1.1:1\n").is_none());
    }
}
