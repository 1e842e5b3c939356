//! Making the registry equal to the member list, and what goes out on whose word.
//!
//! Gossip can be cut off, half heard or forged while the nodes answer requests. So a node that did not say that it leaves only
//! goes if HAProxy's health check does not reach it either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::members::{Gone, MemberList};
use crate::node::{Endpoint, Node, NodeName, Port, Weight};
use crate::registry::witness::{Health, Witness};
use crate::registry::{Registry, RegistryError};
use crate::service::Role;

/// Why a node stays in the registry as it is, although the member list says otherwise. In each case, its health check does
/// not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// It has failed in gossip.
    Failed,
    /// It is missing from the list.
    Absent,
    /// It has left in gossip, but no other node could take its requests, or somebody else keeps saying so.
    Left,
    /// Its member is rejected.
    Rejected,
    /// Its member is at another address now.
    Moved,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed in gossip, reachable: kept",
            Self::Absent => "missing from gossip, not known to be down: kept",
            Self::Left => "left in gossip, reachable: kept until its health check fails",
            Self::Rejected => "rejected, reachable: kept as it was",
            Self::Moved => "at another address in gossip, reachable at the old one: kept there",
        })
    }
}

/// What is needed to judge which registered nodes stay although the member list says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The member list.
    pub list: &'a MemberList,
    /// Nodes that were said to leave a short time ago, but did not. If it is said again, their health checks decide.
    pub doubted: &'a BTreeSet<NodeName>,
    /// Port of nodes without a tag `port`.
    pub port: Port,
}

impl Judge<'_> {
    /// The nodes that stay. `witness` is only asked if the list says otherwise about one of them.
    ///
    /// # Errors
    /// That of `witness`.
    pub fn kept<E>(
        self,
        registry: &Registry,
        witness: impl FnOnce() -> Result<Witness, E>,
    ) -> Result<BTreeMap<NodeName, Kept>, E> {
        let doubts = || registry.nodes().values().filter_map(|node| Some((node, self.doubt(node)?)));
        if doubts().next().is_none() {
            return Ok(BTreeMap::new());
        }
        let witness = witness()?;
        let mut kept = BTreeMap::new();
        loop {
            let claimed = self.claimed(&kept);
            let stays = |(node, reason): &(&Node, Kept)| {
                !claimed.contains(&node.endpoint(self.port)) && self.stays(node, *reason, &witness)
            };
            let before = kept.len();
            kept.extend(doubts().filter(stays).map(|(node, reason)| (node.name.clone(), reason)));
            // A node that is kept where it was has not taken the place of another one.
            if kept.len() == before {
                break;
            }
        }
        self.keep_last(registry, &witness, &mut kept);
        Ok(kept)
    }

    /// What the list says about a registered node, unless it confirms its address.
    fn doubt(self, node: &Node) -> Option<Kept> {
        if let Some(member) = self.list.nodes.get(&node.name) {
            return (node.address != member.address).then_some(Kept::Moved);
        }
        Some(match self.list.gone.get(&node.name) {
            Some(Gone::Leaving | Gone::Left) => Kept::Left,
            Some(Gone::Failed) => Kept::Failed,
            None if self.list.rejected.iter().any(|(name, _)| name == node.name.as_str()) => Kept::Rejected,
            None => Kept::Absent,
        })
    }

    /// Where alive members answer, other than those that are kept elsewhere.
    fn claimed(self, kept: &BTreeMap<NodeName, Kept>) -> BTreeSet<Endpoint> {
        let members = self.list.nodes.values().filter(|node| !kept.contains_key(&node.name));
        members.map(|node| node.endpoint(self.port)).collect()
    }

    fn stays(self, node: &Node, reason: Kept, witness: &Witness) -> bool {
        match witness.health(node.endpoint(self.port)) {
            _ if reason == Kept::Left && !self.doubted.contains(&node.name) => false,
            Some(health) => health != Health::Fails,
            // Nothing checks it, so gossip's word alone must do. But an agent that knows nobody, or that may have started
            // together with HAProxy, cannot tell who is missing.
            None => reason == Kept::Absent && (self.list.alive <= 1 || !witness.is_running()),
        }
    }

    /// Also keeps the nodes that leave if no other node of their service takes requests, until they do not take any either.
    fn keep_last(self, registry: &Registry, witness: &Witness, kept: &mut BTreeMap<NodeName, Kept>) {
        let health = |node: &Node| witness.health(node.endpoint(self.port));
        let serves = |node: &Node| health(node) == Some(Health::Passes) && node.weight() != Weight::DRAINED;
        let stays = |node: &Node| self.doubt(node).is_none() || kept.contains_key(&node.name);
        let served: BTreeSet<&Role> =
            registry.nodes().values().filter(|node| stays(node) && serves(node)).map(|node| &node.role).collect();
        let claimed = self.claimed(kept);
        for node in registry.nodes().values().filter(|node| self.doubt(node) == Some(Kept::Left) && !served.contains(&node.role))
        {
            if health(node) >= Some(Health::Pending) && !claimed.contains(&node.endpoint(self.port)) {
                kept.insert(node.name.clone(), Kept::Left);
            }
        }
    }
}

/// Changes to the registry.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Change {
    /// Nodes that are new or differ from before.
    pub registered: BTreeSet<NodeName>,
    /// Of these, the ones that are new or have another address.
    pub arrived: BTreeSet<NodeName>,
    /// Nodes that were unregistered.
    pub unregistered: BTreeSet<NodeName>,
    /// Number of nodes that were rejected because of the limit.
    pub over_limit: usize,
}

/// Makes the registry equal to the alive nodes of the list and the `kept` ones, up to `max_nodes`; those that are already
/// registered take precedence. A node that does not differ is not written. The caller holds the lock.
///
/// # Errors
/// [`RegistryError`]. The next sync completes what was not done.
pub fn reconcile(
    registry: &mut Registry,
    list: &MemberList,
    kept: &BTreeMap<NodeName, Kept>,
    max_nodes: usize,
) -> Result<Change, RegistryError> {
    let mut change = Change::default();
    // Unregister first, which makes room for new nodes.
    let goes = |name: &NodeName| !list.nodes.contains_key(name) && !kept.contains_key(name);
    for name in registry.names().filter(goes).collect::<BTreeSet<_>>() {
        if registry.remove(&name)? {
            change.unregistered.insert(name);
        }
    }
    let alive = list.nodes.values().filter(|node| !kept.contains_key(&node.name));
    let (known, new): (Vec<_>, Vec<_>) = alive.partition(|node| registry.nodes().contains_key(&node.name));
    let room = max_nodes.saturating_sub(kept.len() + known.len());
    change.over_limit = new.len().saturating_sub(room);
    for node in known.into_iter().chain(new.into_iter().take(room)) {
        let has_same_address = registry.nodes().get(&node.name).is_some_and(|old| old.address == node.address);
        if registry.put(node)? {
            change.registered.insert(node.name.clone());
            if !has_same_address {
                change.arrived.insert(node.name.clone());
            }
        }
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::admission::Admission;

    fn list(members: &[(&str, &str, &str)]) -> MemberList {
        let entry = |(name, address, status): &(&str, &str, &str)| {
            format!(r#"{{"name":"{name}","addr":"{address}:7946","tags":{{"role":"backend"}},"status":"{status}"}}"#)
        };
        let entries: Vec<_> = members.iter().map(entry).collect();
        MemberList::parse(&format!(r#"{{"members":[{}]}}"#, entries.join(",")), &Admission::anywhere("backend")).unwrap()
    }

    fn registry(nodes: &[&str]) -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::read(dir.path()).unwrap();
        for node in nodes {
            registry.put(&node.parse().unwrap()).unwrap();
        }
        (dir, registry)
    }

    /// What is in the directory now.
    fn nodes(dir: &tempfile::TempDir) -> Vec<String> {
        Registry::read(dir.path()).unwrap().nodes().values().map(ToString::to_string).collect()
    }

    fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    /// Which nodes stay, and why, if HAProxy runs and checks these addresses.
    fn kept(registry: &Registry, list: &MemberList, doubted: &[&str], checked: &[(&str, Health)]) -> Vec<(String, Kept)> {
        let checked = checked.iter().map(|(address, health)| ((address.parse().unwrap(), 3000), *health));
        judged(registry, list, doubted, &Witness::new(checked))
    }

    fn judged(registry: &Registry, list: &MemberList, doubted: &[&str], witness: &Witness) -> Vec<(String, Kept)> {
        let doubted = doubted.iter().map(|doubted| name(doubted)).collect();
        let judge = Judge { list, doubted: &doubted, port: "3000".parse().unwrap() };
        let kept = judge.kept(registry, || Ok::<_, ()>(witness.clone())).unwrap();
        kept.into_iter().map(|(name, kept)| (name.to_string(), kept)).collect()
    }

    const UP: Health = Health::Passes;
    const DOWN: Health = Health::Fails;

    #[test]
    fn the_registry_becomes_the_alive_members() {
        let (dir, _) = registry(&["s1 1.1.1.1", "s2 1.1.1.2", "s3 1.1.1.3"]);
        std::fs::write(dir.path().join("junk"), "").unwrap();
        let mut registry = Registry::read(dir.path()).unwrap();
        let list = list(&[("s1", "1.1.1.9", "alive"), ("s2", "1.1.1.2", "failed"), ("s4", "1.1.1.4", "alive")]);
        let change = reconcile(&mut registry, &list, &BTreeMap::new(), 9).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.9", "s4 1.1.1.4"]);
        assert_eq!((change.registered.len(), change.arrived.len(), change.unregistered.len()), (2, 2, 3));
        assert!(!dir.path().join("junk").exists());
        for mut registry in [registry, Registry::read(dir.path()).unwrap()] {
            assert_eq!(reconcile(&mut registry, &list, &BTreeMap::new(), 9).unwrap(), Change::default());
        }
    }

    #[test]
    fn what_is_kept_stays_as_it_was() {
        let (dir, mut registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2", "s3 1.1.1.3"]);
        let list = list(&[("s1", "1.1.1.9", "alive"), ("s2", "1.1.1.2", "failed"), ("s4", "1.1.1.4", "alive")]);
        let kept = BTreeMap::from([(name("s1"), Kept::Moved), (name("s2"), Kept::Failed)]);
        let change = reconcile(&mut registry, &list, &kept, 3).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.1", "s2 1.1.1.2", "s4 1.1.1.4"]);
        assert_eq!(change.unregistered, BTreeSet::from([name("s3")]));
        assert_eq!(reconcile(&mut registry, &list, &kept, 2).unwrap().over_limit, 0);
    }

    #[test]
    fn haproxy_is_not_asked_while_gossip_confirms_all() {
        let (_dir, registry) = registry(&["s1 1.1.1.1"]);
        let list = list(&[("s1", "1.1.1.1", "alive"), ("s2", "1.1.1.2", "alive"), ("s3", "1.1.1.3", "failed")]);
        let judge = Judge { list: &list, doubted: &BTreeSet::new(), port: "3000".parse().unwrap() };
        assert!(judge.kept(&registry, || -> Result<Witness, ()> { panic!("asked") }).unwrap().is_empty());
    }

    #[test]
    fn what_gossip_has_lost_stays_as_long_as_haproxy_reaches_it() {
        let (_dir, registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2", "s3 1.1.1.3", "s4 1.1.1.4"]);
        let list = list(&[("s1", "1.1.1.1", "failed"), ("s2", "1.1.1.2", "failed"), ("ha", "1.1.1.9", "alive")]);
        let checked = [("1.1.1.1", UP), ("1.1.1.2", DOWN), ("1.1.1.3", UP), ("1.1.1.4", DOWN)];
        let reached = [("s1".to_owned(), Kept::Failed), ("s3".to_owned(), Kept::Absent)];
        assert_eq!(kept(&registry, &list, &[], &checked), reached);
        // No check has ended yet.
        assert_eq!(kept(&registry, &list, &[], &checked.map(|(address, _)| (address, Health::Pending))).len(), 4);
    }

    #[test]
    fn without_a_check_gossip_alone_counts_but_not_the_silence_of_one_that_knows_nobody() {
        let (_dir, registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2"]);
        let alone = list(&[("ha", "1.1.1.9", "alive"), ("s1", "1.1.1.1", "failed")]);
        let whole = list(&[("ha", "1.1.1.9", "alive"), ("s1", "1.1.1.1", "failed"), ("s3", "1.1.1.3", "alive")]);
        let absent = [("s2".to_owned(), Kept::Absent)];
        assert_eq!(kept(&registry, &alone, &[], &[]), absent);
        assert_eq!(kept(&registry, &whole, &[], &[]), []);
        for list in [&alone, &whole] {
            assert_eq!(judged(&registry, list, &[], &Witness::absent()), absent);
        }
    }

    #[test]
    fn a_node_that_leaves_goes_at_once_unless_it_is_the_last_or_somebody_else_says_so() {
        let (_dir, registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2"]);
        let one = list(&[("s1", "1.1.1.1", "leaving"), ("s2", "1.1.1.2", "alive")]);
        let both = list(&[("s1", "1.1.1.1", "left"), ("s2", "1.1.1.2", "left")]);
        let up = [("1.1.1.1", UP), ("1.1.1.2", UP)];
        let s1 = [("s1".to_owned(), Kept::Left)];
        assert_eq!(kept(&registry, &one, &[], &up), []);
        assert_eq!(kept(&registry, &one, &["s1"], &up), s1);
        assert_eq!(kept(&registry, &one, &["s1"], &[("1.1.1.1", DOWN), ("1.1.1.2", UP)]), []);
        assert_eq!(kept(&registry, &one, &[], &[("1.1.1.1", UP), ("1.1.1.2", DOWN)]), s1);
        assert_eq!(kept(&registry, &one, &[], &[("1.1.1.1", UP), ("1.1.1.2", Health::Pending)]), s1);
        assert_eq!(kept(&registry, &both, &[], &up).len(), 2);
        assert_eq!(kept(&registry, &both, &[], &[("1.1.1.1", UP), ("1.1.1.2", DOWN)]), s1);
        assert_eq!(kept(&registry, &both, &[], &[]), []);
        assert_eq!(judged(&registry, &both, &[], &Witness::absent()), []);
    }

    #[test]
    fn a_node_that_only_drains_does_not_take_over() {
        let (_dir, registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2 drain=yes"]);
        let list = list(&[("s1", "1.1.1.1", "left"), ("s2", "1.1.1.2", "alive")]);
        assert_eq!(kept(&registry, &list, &[], &[("1.1.1.1", UP), ("1.1.1.2", UP)]).len(), 1);
    }

    #[test]
    fn a_node_is_not_moved_while_it_answers_where_it_was() {
        let (_dir, registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2"]);
        let moved = list(&[("s1", "1.1.1.9", "alive"), ("s2", "1.1.1.2", "alive")]);
        assert_eq!(kept(&registry, &moved, &[], &[("1.1.1.1", UP), ("1.1.1.2", UP)]), [("s1".to_owned(), Kept::Moved)]);
        assert_eq!(kept(&registry, &moved, &[], &[("1.1.1.1", DOWN), ("1.1.1.2", UP)]), []);
        assert_eq!(kept(&registry, &moved, &[], &[]), []);
        let swapped = list(&[("s1", "1.1.1.2", "alive"), ("s2", "1.1.1.1", "alive")]);
        assert_eq!(kept(&registry, &swapped, &[], &[("1.1.1.1", UP), ("1.1.1.2", UP)]), []);
    }

    #[test]
    fn another_live_member_at_its_place_ends_it_but_not_one_that_only_claims_the_place() {
        let (_dir, registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2"]);
        let up = [("1.1.1.1", UP), ("1.1.1.2", UP)];
        let successor = list(&[("s9", "1.1.1.1", "alive"), ("s1", "1.1.1.1", "failed"), ("s2", "1.1.1.2", "alive")]);
        assert_eq!(kept(&registry, &successor, &[], &up), []);
        // s1 answers where it was, so that the place of s2 is still its own.
        let claim = list(&[("s1", "1.1.1.2", "alive"), ("s2", "1.1.1.2", "failed")]);
        let both = [("s1".to_owned(), Kept::Moved), ("s2".to_owned(), Kept::Failed)];
        assert_eq!(kept(&registry, &claim, &[], &up), both);
    }

    #[test]
    fn a_member_that_became_invalid_serves_as_it_was() {
        let (_dir, registry) = registry(&["s1 1.1.1.1"]);
        let mut list = list(&[]);
        list.rejected.push(("s1".to_owned(), crate::node::NodeError::Name(String::new())));
        assert_eq!(kept(&registry, &list, &[], &[("1.1.1.1", UP)]), [("s1".to_owned(), Kept::Rejected)]);
        assert_eq!(kept(&registry, &list, &[], &[("1.1.1.1", DOWN)]), []);
        assert_eq!(kept(&registry, &list, &[], &[]), []);
    }

    #[test]
    fn of_too_many_nodes_those_that_are_there_stay() {
        let (dir, mut registry) = registry(&["s7 1.1.1.7", "s8 1.1.1.8"]);
        let all = ["s1", "s2", "s7", "s9"].map(|name| (name, "1.1.1.1", "alive"));
        let change = reconcile(&mut registry, &list(&all), &BTreeMap::new(), 2).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.1", "s7 1.1.1.1"]);
        assert_eq!(change.over_limit, 2);
        assert_eq!(
            reconcile(&mut registry, &list(&all), &BTreeMap::new(), 2).unwrap(),
            Change { over_limit: 2, ..Change::default() }
        );
    }
}
