//! The services whose last node is gone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Registry, RegistryError};
use crate::node::{Node, NodeName};
use crate::os::atomic_file::{remove_if_exists, replace};
use crate::service::Role;

/// Beginning of the name of the hidden file with the line of a service's last node; the role follows.
pub(super) const LAST_OF: &str = ".last-of-";
/// Maximum number of services without nodes: members come and go under any role.
const MAX_IDLE: usize = 100;

impl Registry {
    /// The last node of each known service that has none now.
    #[must_use]
    pub fn idle(&self) -> &BTreeMap<Role, Node> {
        &self.idle
    }

    /// Forgets the services without nodes for which `is_known` is false.
    ///
    /// # Errors
    /// [`RegistryError::Write`].
    pub fn forget_idle(&mut self, is_known: impl Fn(&Role) -> bool) -> Result<(), RegistryError> {
        for role in self.idle.keys().filter(|role| !is_known(role)).cloned().collect::<Vec<_>>() {
            let path = self.idle_path(&role);
            remove_if_exists(&path).map_err(|source| RegistryError::Write { path, source })?;
            self.idle.remove(&role);
        }
        Ok(())
    }

    fn idle_path(&self, role: &Role) -> PathBuf {
        self.directory.join(format!("{LAST_OF}{role}"))
    }

    /// Keeps the line of a node that is about to go, if it is the last one of its service.
    pub(super) fn note_idle(&mut self, name: &NodeName) -> Result<(), RegistryError> {
        let Some(node) = self.nodes.get(name) else { return Ok(()) };
        let others = || self.nodes.values().filter(|other| other.name != *name);
        let is_only_service = node.role.is_default() && self.idle.is_empty() && others().all(|other| other.role.is_default());
        if is_only_service || self.idle.len() >= MAX_IDLE || others().any(|other| other.role == node.role) {
            return Ok(());
        }
        let path = self.idle_path(&node.role);
        replace(&path, format!("{node}\n").as_bytes(), 0o644).map_err(|source| RegistryError::Write { path, source })?;
        self.idle.insert(node.role.clone(), node.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{node, registry};
    use super::*;

    #[test]
    fn a_service_is_known_after_its_last_node_is_gone() {
        let (dir, mut registry) = registry();
        let lines =
            ["s1 172.18.0.2", "a1 172.18.0.3 role=api host=a.example", "a2 172.18.0.4 role=api", "x 172.18.0.5 role=shop"];
        lines.iter().for_each(|line| assert!(registry.put(&node(line)).unwrap()));
        let read = || Registry::read(dir.path()).unwrap();
        let idle = |registry: &Registry| registry.idle().values().map(ToString::to_string).collect::<Vec<_>>();
        assert!(registry.remove(&"a2".parse().unwrap()).unwrap());
        assert!(idle(&registry).is_empty());
        // One goes, the other changes its role.
        assert!(registry.remove(&"a1".parse().unwrap()).unwrap() && registry.put(&node("x 172.18.0.5 role=blog")).unwrap());
        for registry in [&registry, &read()] {
            assert_eq!(idle(registry), ["a1 172.18.0.3 role=api host=a.example", "x 172.18.0.5 role=shop"]);
            assert_eq!((registry.nodes().len(), registry.count()), (2, 2));
        }
        // It is back.
        assert!(registry.put(&node("a3 172.18.0.6 role=api")).unwrap());
        for registry in [&registry, &read()] {
            assert_eq!(idle(registry), ["x 172.18.0.5 role=shop"]);
        }
        assert!(registry.remove(&"s1".parse().unwrap()).unwrap());
        assert_eq!(idle(&read()), ["s1 172.18.0.2", "x 172.18.0.5 role=shop"]);
        registry.forget_idle(Role::is_default).unwrap();
        assert_eq!(idle(&read()), ["s1 172.18.0.2"]);

        fs::write(dir.path().join(".last-of-shop"), "x 172.18.0.5 role=other\n").unwrap();
        fs::write(dir.path().join(".last-of-blog"), "x\n").unwrap();
        assert_eq!((idle(&read()).len(), read().skipped().len()), (1, 2), "{:?}", read().skipped());
    }

    #[test]
    fn the_only_service_leaves_nothing_behind() {
        let (dir, mut registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        registry.remove(&"s1".parse().unwrap()).unwrap();
        assert!(registry.idle().is_empty() && Registry::read(dir.path()).unwrap().idle().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the marker");
    }

    #[test]
    fn services_without_nodes_have_a_limit() {
        let (_dir, mut registry) = registry();
        for number in 0..MAX_IDLE + 5 {
            registry.put(&node(&format!("s1 172.18.0.2 role=r{number}"))).unwrap();
        }
        assert_eq!(registry.idle().len(), MAX_IDLE);
    }
}
