//! Making the registry equal to the member list.

use std::collections::BTreeSet;

use crate::members::MemberList;
use crate::node::NodeName;
use crate::registry::{Registry, RegistryError};

/// What to do with nodes that are missing from the member list.
///
/// An agent that has just started knows only itself until it has joined the others. Until then, a missing node means
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Unregister them.
    Remove,
    /// Keep them if the agent is the only alive member.
    KeepWhenAlone,
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
    /// Nodes that are kept although they are missing from the list.
    pub kept: BTreeSet<NodeName>,
    /// Number of nodes that were rejected because of the limit.
    pub over_limit: usize,
}

/// Makes the registry equal to the alive nodes of the list, up to `max_nodes`; those that are already registered take
/// precedence. Members that left or failed are always unregistered. A node that does not differ is not written. The caller
/// holds the lock.
///
/// # Errors
/// [`RegistryError`]. The next sync completes what was not done.
pub fn reconcile(registry: &mut Registry, list: &MemberList, absent: Absent, max_nodes: usize) -> Result<Change, RegistryError> {
    let mut change = Change::default();
    let keep = absent == Absent::KeepWhenAlone && list.alive <= 1;
    // Unregister first, which makes room for new nodes.
    for name in registry.names().filter(|name| !list.nodes.contains_key(name)).collect::<BTreeSet<_>>() {
        if keep && !list.gone.contains(&name) && registry.nodes().contains_key(&name) {
            change.kept.insert(name);
        } else if registry.remove(&name)? {
            change.unregistered.insert(name);
        }
    }
    let (known, new): (Vec<_>, Vec<_>) = list.nodes.values().partition(|node| registry.nodes().contains_key(&node.name));
    let room = max_nodes.saturating_sub(change.kept.len() + known.len());
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

    #[test]
    fn the_registry_becomes_the_alive_members() {
        let (dir, _) = registry(&["s1 1.1.1.1", "s2 1.1.1.2", "s3 1.1.1.3"]);
        std::fs::write(dir.path().join("junk"), "").unwrap();
        let mut registry = Registry::read(dir.path()).unwrap();
        let list = list(&[("s1", "1.1.1.9", "alive"), ("s2", "1.1.1.2", "failed"), ("s4", "1.1.1.4", "alive")]);
        let change = reconcile(&mut registry, &list, Absent::KeepWhenAlone, 9).unwrap();
        assert_eq!(nodes(&dir), ["s1 1.1.1.9", "s4 1.1.1.4"]);
        assert_eq!((change.registered.len(), change.arrived.len(), change.unregistered.len()), (2, 2, 3));
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
        assert_eq!(change.over_limit, 2);
        assert_eq!(
            reconcile(&mut registry, &list(&all), Absent::Remove, 2).unwrap(),
            Change { over_limit: 2, ..Change::default() }
        );
    }
}
