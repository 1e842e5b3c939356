//! Who was said to leave, but did not. Gossip without a key, or a member with it, can say so of others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lb_core::members::{Gone, MemberList};
use lb_core::node::NodeName;

/// How long a node that was alive after all is remembered.
const MEMORY: Duration = Duration::from_secs(60);
/// Time for a member to deny a leave that it did not announce, which takes a second on an idle machine. One that is alive later
/// has left and come back.
const DENIAL_TIME: Duration = Duration::from_secs(10);

/// What the last lists said about who leaves.
#[derive(Debug, Default)]
pub(crate) struct Leaves {
    /// Since when the lists have said so.
    said: BTreeMap<NodeName, Instant>,
    denied: BTreeMap<NodeName, Instant>,
}

impl Leaves {
    /// Takes note of a list, and returns the nodes that are alive or leave now, but within the last minute were alive after
    /// they had been said to leave.
    pub(crate) fn note(&mut self, list: &MemberList, now: Instant) -> BTreeSet<NodeName> {
        let is_denied =
            |name: &NodeName, since: Instant| list.nodes.contains_key(name) && now.duration_since(since) < DENIAL_TIME;
        let back = self.said.iter().filter(|(name, since)| is_denied(name, **since));
        self.denied.extend(back.map(|(name, _)| (name.clone(), now)));
        self.denied.retain(|_, since| now.duration_since(*since) < MEMORY);
        let since = |name: &NodeName| (name.clone(), self.said.get(name).copied().unwrap_or(now));
        self.said = list.gone.iter().filter(|(_, gone)| **gone != Gone::Failed).map(|(name, _)| since(name)).collect();
        self.denied.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use lb_core::members::admission::Admission;

    use super::*;

    fn list(status: &str) -> MemberList {
        let member = r#"{"name":"s1","addr":"1.1.1.1:7946","tags":{"role":"backend"},"status":"STATUS"}"#;
        let json = format!(r#"{{"members":[{}]}}"#, member.replace("STATUS", status));
        MemberList::parse(&json, &Admission::anywhere("backend")).unwrap()
    }

    #[test]
    fn a_leave_that_did_not_happen_is_remembered_for_a_minute() {
        let (mut leaves, start) = (Leaves::default(), Instant::now());
        let mut note = |status: &str, seconds: u64| leaves.note(&list(status), start + Duration::from_secs(seconds)).len();
        assert_eq!([note("alive", 0), note("leaving", 1), note("left", 2)], [0, 0, 0]);
        assert_eq!([note("alive", 3), note("leaving", 4), note("alive", 5), note("alive", 64)], [1, 1, 1, 1]);
        assert_eq!([note("alive", 65), note("left", 66)], [0, 0]);
    }

    #[test]
    fn a_node_that_has_left_and_comes_back_is_believed_when_it_leaves_again() {
        let (mut leaves, start) = (Leaves::default(), Instant::now());
        let mut note = |status: &str, seconds: u64| leaves.note(&list(status), start + Duration::from_secs(seconds)).len();
        assert_eq!([note("leaving", 0), note("left", 1), note("left", 9)], [0, 0, 0]);
        assert_eq!([note("alive", 10), note("leaving", 20), note("left", 21)], [0, 0, 0]);
        // Denied at last.
        assert_eq!(note("alive", 29), 1);
    }

    #[test]
    fn a_failure_is_no_leave() {
        let (mut leaves, now) = (Leaves::default(), Instant::now());
        leaves.note(&list("failed"), now);
        assert!(leaves.note(&list("alive"), now).is_empty());
    }
}
