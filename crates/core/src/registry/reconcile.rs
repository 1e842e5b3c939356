//! Making the registry equal to the member list.

use std::collections::BTreeSet;

use crate::members::MemberList;
use crate::node::NodeName;
use crate::registry::{Registry, RegistryError};

/// What to do with nodes that the member list does not have at all.
///
/// An agent that has just started knows only itself, and learns the others when it has joined them; until then, not
/// to be in its list means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Remove them.
    Remove,
    /// Keep them, if the list has no other alive member.
    KeepWhenAlone,
}

/// How the registry was changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Change {
    /// Nodes that are new, or differ from before.
    pub put: BTreeSet<NodeName>,
    /// Of these, the ones that are new, or have another address.
    pub came: BTreeSet<NodeName>,
    /// Nodes that are no longer there.
    pub removed: BTreeSet<NodeName>,
    /// Nodes that are kept although the list does not have them.
    pub kept: BTreeSet<NodeName>,
    /// How many nodes were refused because there would be too many.
    pub too_many: usize,
}

/// Makes the registry equal to the alive nodes of the list, of which there may be `most`: those that are registered
/// already come before others. Nothing is written where nothing differs. Members that left or failed are removed in any
/// case. The caller holds the lock.
///
/// # Errors
/// [`RegistryError`]; what was not done then is done by the next sync.
pub fn reconcile(registry: &mut Registry, list: &MemberList, absent: Absent, most: usize) -> Result<Change, RegistryError> {
    let mut change = Change::default();
    let keep = absent == Absent::KeepWhenAlone && list.alive <= 1;
    // What leaves makes room for what comes.
    for name in registry.names().filter(|name| !list.nodes.contains_key(name)).collect::<BTreeSet<_>>() {
        if keep && !list.gone.contains(&name) && registry.nodes().contains_key(&name) {
            change.kept.insert(name);
        } else if registry.remove(&name)? {
            change.removed.insert(name);
        }
    }
    let (known, new): (Vec<_>, Vec<_>) = list.nodes.values().partition(|node| registry.nodes().contains_key(&node.name));
    let room = most.saturating_sub(change.kept.len() + known.len());
    change.too_many = new.len().saturating_sub(room);
    for node in known.into_iter().chain(new.into_iter().take(room)) {
        let is_where_it_was = registry.nodes().get(&node.name).is_some_and(|old| old.address == node.address);
        if registry.put(node)? {
            change.put.insert(node.name.clone());
            if !is_where_it_was {
                change.came.insert(node.name.clone());
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

    #[test]
    fn the_registry_becomes_the_alive_members() {
        let (dir, _) = registry(&["s1 1.1.1.1", "s2 1.1.1.2", "s3 1.1.1.3"]);
        std::fs::write(dir.path().join("junk"), "").unwrap();
        let mut registry = Registry::read(dir.path()).unwrap();
        let list = list(&[("s1", "1.1.1.9", "alive"), ("s2", "1.1.1.2", "failed"), ("s4", "1.1.1.4", "alive")]);
        let change = reconcile(&mut registry, &list, Absent::KeepWhenAlone, 9).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.9", "s4 1.1.1.4"]);
        assert_eq!((change.put.len(), change.came.len(), change.removed.len()), (2, 2, 3));
        assert!(!dir.path().join("junk").exists());
        for mut registry in [registry, Registry::read(dir.path()).unwrap()] {
            assert_eq!(reconcile(&mut registry, &list, Absent::Remove, 9).unwrap(), Change::default());
        }
    }

    #[test]
    fn an_agent_that_is_alone_removes_only_who_left() {
        let (dir, mut registry) = registry(&["s1 1.1.1.1", "s2 1.1.1.2"]);
        let list = list(&[("ha", "1.1.1.7", "failed"), ("s2", "1.1.1.2", "left")]);
        let change = reconcile(&mut registry, &list, Absent::KeepWhenAlone, 9).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.1"]);
        assert_eq!(change.kept.len(), 1);
        reconcile(&mut registry, &list, Absent::Remove, 9).unwrap();
        assert!(nodes(&dir).is_empty());
    }

    #[test]
    fn of_too_many_nodes_those_that_are_there_stay() {
        let (dir, mut registry) = registry(&["s7 1.1.1.7", "s8 1.1.1.8"]);
        let all = ["s1", "s2", "s7", "s9"].map(|name| (name, "1.1.1.1", "alive"));
        let change = reconcile(&mut registry, &list(&all), Absent::Remove, 2).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.1", "s7 1.1.1.1"]);
        assert_eq!(change.too_many, 2);
        assert_eq!(
            reconcile(&mut registry, &list(&all), Absent::Remove, 2).unwrap(),
            Change { too_many: 2, ..Change::default() }
        );
    }
}
