//! The registry: a directory with one file per node.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::node::{Node, NodeName};
use crate::os::atomic_file::{remove_if_exists, remove_or_set_aside, replace};
use crate::os::escape::Quoted;
use crate::os::permissions::check_path;
use crate::service::Role;

mod files;
mod idle;
pub mod reconcile;
pub mod witness;

use files::{ReadError, entries, read_node};
use idle::LAST_OF;

/// Hidden file that marks a directory as a registry, in which other files may be replaced and removed.
const MARKER: &str = ".registry";

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory cannot be listed.
    #[error("read registry {path}", path = path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be read, so it is unknown whether it is a node's.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory is not a registry: it has other files, and no marker.
    #[error(
        "registry {path}: {other} is not a node file: is --nodes-dir (NODES_DIR) right? To use this directory as the registry, touch {path}/{MARKER}",
        path = path.display(),
        other = Quoted(other)
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files in it.
        other: String,
    },
    /// A node's file cannot be written or removed.
    #[error("write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The nodes in a directory with one file per node. Changes are written to the directory at once. To change it, hold the
/// [`Lock`](crate::publish::lock::Lock) from before it is read.
///
/// The first change marks the directory as a registry, which fails if it has files that are not a node's. In a marked
/// directory anything in the place of a node is replaced, and a non-empty directory is renamed.
///
/// When the last node of a service goes, its line is kept in a hidden file, so that the service is known until that file is
/// removed. The default service does not need one while there is no other.
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    nodes: BTreeMap<NodeName, Node>,
    /// The last nodes of services that have none now, by role.
    idle: BTreeMap<Role, Node>,
    skipped: Vec<(PathBuf, String)>,
    is_marked: bool,
}

impl Registry {
    /// Reads all nodes. An invalid file is skipped with a reason, and does not hide the others.
    ///
    /// # Errors
    /// [`RegistryError::List`] if the directory cannot be read, [`RegistryError::Read`] if a file cannot.
    pub fn read(directory: &Path) -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::List { path: directory.to_owned(), source };
        check_path(directory).map_err(failed)?;
        // Opening each file relative to this saves the system a path lookup.
        let opened = File::open(directory).map_err(failed)?;
        let mut registry = Self::empty(directory);
        registry.is_marked = directory.join(MARKER).symlink_metadata().is_ok();
        for entry in entries(directory).map_err(failed)? {
            let name = entry.file_name().to_string_lossy();
            let idle = name.strip_prefix(LAST_OF);
            let node = match entry.file_type().is_file() {
                true => read_node(&opened, entry.file_name(), idle),
                false => Err(ReadError::Content("not a regular file".to_owned())),
            };
            match node {
                Ok(node) if idle.is_some() => drop(registry.idle.insert(node.role.clone(), node)),
                Ok(node) => drop(registry.nodes.insert(node.name.clone(), node)),
                Err(ReadError::Content(reason)) => registry.skipped.push((entry.into_path(), reason)),
                // It was removed just now.
                Err(ReadError::System(source)) if source.kind() == io::ErrorKind::NotFound => {}
                // It may be a valid node, so a system error is not a reason to skip it.
                Err(ReadError::System(source)) => return Err(RegistryError::Read { path: entry.into_path(), source }),
            }
        }
        if !registry.idle.is_empty() {
            registry.nodes.values().for_each(|node| drop(registry.idle.remove(&node.role)));
        }
        Ok(registry)
    }

    /// A registry without nodes; the directory need not exist.
    #[must_use]
    pub fn empty(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            nodes: BTreeMap::new(),
            idle: BTreeMap::new(),
            skipped: Vec::new(),
            is_marked: false,
        }
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// Skipped files, with the reasons.
    #[must_use]
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        &self.skipped
    }

    /// Number of files, whether valid or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len() + self.skipped.len()
    }

    /// Whether the node has a file, valid or not.
    #[must_use]
    pub fn has(&self, name: &NodeName) -> bool {
        self.nodes.contains_key(name) || self.skipped.iter().any(|(path, _)| path.ends_with(name.as_str()))
    }

    /// Names of all files that a node could have, whether valid or not.
    pub fn names(&self) -> impl Iterator<Item = NodeName> {
        let skipped = self.skipped.iter().filter_map(|(path, _)| path.file_name()?.to_str()?.parse().ok());
        self.nodes.keys().cloned().chain(skipped)
    }

    /// Registers a node; returns whether that changed anything.
    ///
    /// # Errors
    /// [`RegistryError::Write`] or [`RegistryError::Foreign`]; the node's old file stays.
    pub fn put(&mut self, node: &Node) -> Result<bool, RegistryError> {
        if self.nodes.get(&node.name) == Some(node) {
            return Ok(false);
        }
        let path = self.directory.join(node.name.as_str());
        let line = format!("{node}\n");
        self.mark()?;
        if self.nodes.get(&node.name).is_some_and(|old| old.role != node.role) {
            self.note_idle(&node.name)?;
        }
        let written = replace(&path, line.as_bytes(), 0o644).or_else(|error| match error.kind() {
            io::ErrorKind::IsADirectory => remove_or_set_aside(&path).and_then(|()| replace(&path, line.as_bytes(), 0o644)),
            _ => Err(error),
        });
        written.map_err(|source| RegistryError::Write { path: path.clone(), source })?;
        self.skipped.retain(|(skipped, _)| *skipped != path);
        self.idle.remove(&node.role);
        self.nodes.insert(node.name.clone(), node.clone());
        Ok(true)
    }

    /// Unregisters a node; returns whether it was registered.
    ///
    /// # Errors
    /// [`RegistryError::Write`] or [`RegistryError::Foreign`]; the node stays registered.
    pub fn remove(&mut self, name: &NodeName) -> Result<bool, RegistryError> {
        let path = self.directory.join(name.as_str());
        if path.symlink_metadata().is_ok() {
            self.mark()?;
            self.note_idle(name)?;
        }
        let removed = remove_if_exists(&path).or_else(|error| match error.kind() {
            io::ErrorKind::IsADirectory => remove_or_set_aside(&path).map(|()| true),
            _ => Err(error),
        });
        let removed = removed.map_err(|source| RegistryError::Write { path: path.clone(), source })?;
        self.skipped.retain(|(skipped, _)| *skipped != path);
        self.nodes.remove(name);
        Ok(removed)
    }

    /// Marks the directory as a registry before the first change, unless it has files that could be lost. Files with a name
    /// that no node can have are never touched.
    fn mark(&mut self) -> Result<(), RegistryError> {
        if self.is_marked {
            return Ok(());
        }
        let mut others = self.skipped.iter().filter_map(|(path, _)| path.file_name()?.to_str());
        if let Some(other) = others.find(|name| name.parse::<NodeName>().is_ok()) {
            return Err(RegistryError::Foreign { path: self.directory.clone(), other: other.to_owned() });
        }
        let path = self.directory.join(MARKER);
        match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(RegistryError::Write { path, source }),
            _ => self.is_marked = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    pub(super) fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::read(dir.path()).unwrap();
        (dir, registry)
    }

    pub(super) fn node(line: &str) -> Node {
        line.parse().unwrap()
    }

    #[test]
    fn a_node_is_one_file_with_one_line() {
        let (dir, mut registry) = registry();
        assert!(registry.put(&node("s1 172.18.0.2")).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("s1")).unwrap(), "s1 172.18.0.2\n");
        assert_eq!((registry.nodes().len(), Registry::read(dir.path()).unwrap().nodes().len()), (1, 1));
    }

    #[test]
    fn putting_what_is_there_writes_nothing() {
        let (dir, mut registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        fs::set_permissions(dir.path().join("s1"), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        assert!(!registry.put(&node("s1 172.18.0.2")).unwrap());
        assert!(registry.put(&node("s1 172.18.0.3")).unwrap());
    }

    #[test]
    fn removing_an_unknown_node_is_ok() {
        let (_dir, mut registry) = registry();
        assert!(!registry.remove(&"s1".parse().unwrap()).unwrap());
    }

    #[test]
    fn a_file_that_was_skipped_can_be_removed_alone() {
        let (dir, mut registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        for name in ["s2", "s3"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let mut registry = Registry::read(dir.path()).unwrap();
        assert!(registry.remove(&"s2".parse().unwrap()).unwrap());
        let skipped: Vec<_> = registry.skipped().iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(skipped, [dir.path().join("s3")]);
        assert_eq!(registry.names().map(|name| name.to_string()).collect::<Vec<_>>(), ["s1", "s3"]);
    }

    #[test]
    fn what_is_no_node_file_is_passed_over_and_healed() {
        let (dir, mut registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("empty"), "").unwrap();
        fs::write(path("other"), "s9 172.18.0.2\n").unwrap();
        fs::write(path("binary"), b"\xff\xfe").unwrap();
        fs::write(path("long"), "x".repeat(5000)).unwrap();
        fs::write(path(".new"), "half a li").unwrap();
        fs::create_dir_all(path("folder/inside")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();

        let mut registry = Registry::read(dir.path()).unwrap();
        assert_eq!(registry.nodes().len(), 1);
        assert_eq!(registry.skipped().len(), 7, "{:?}", registry.skipped());
        assert_eq!((registry.names().count(), registry.count()), (8, 8));

        for name in ["empty", "other", "binary", "long", "folder", "link", "fifo"] {
            assert!(registry.put(&node(&format!("{name} 172.18.0.9"))).unwrap(), "{name}");
        }
        for registry in [registry, Registry::read(dir.path()).unwrap()] {
            assert_eq!((registry.nodes().len(), registry.skipped().len()), (8, 0), "{:?}", registry.skipped());
        }
    }

    #[test]
    fn a_file_that_is_gone_is_not_an_error_and_one_that_cannot_be_read_is() {
        // Among the files of this process are the directory that is being listed, which is closed before they are read, and
        // memory that cannot be read.
        assert!(Registry::read(Path::new("/proc/self/fdinfo")).unwrap().nodes().is_empty());
        let error = Registry::read(Path::new("/proc/self")).unwrap_err();
        assert!(matches!(error, RegistryError::Read { .. }), "{error:?}");
    }

    #[test]
    fn a_node_has_a_file_whether_it_is_valid_or_not() {
        let (dir, mut registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        fs::write(dir.path().join("s2"), "").unwrap();
        let registry = Registry::read(dir.path()).unwrap();
        assert_eq!(["s1", "s2", "s3"].map(|name| registry.has(&name.parse().unwrap())), [true, true, false]);
    }

    #[test]
    fn a_directory_that_is_marked_meanwhile_is_used_and_one_that_is_gone_is_not() {
        let (dir, mut registry) = registry();
        fs::write(dir.path().join(MARKER), "").unwrap();
        assert!(registry.put(&node("s1 172.18.0.2")).unwrap());

        let (dir, mut registry) = self::registry();
        drop(dir);
        let error = registry.put(&node("s1 172.18.0.2")).unwrap_err().to_string();
        assert!(error.ends_with("/.registry"), "{error}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let (dir, _) = registry();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("letters/old")).unwrap();
        fs::write(path("s1"), "s1 172.18.0.2\n").unwrap();
        let mut registry = Registry::read(dir.path()).unwrap();
        let error = registry.put(&node("s2 172.18.0.3")).unwrap_err().to_string();
        assert!(error.contains("'letters' is not a node file: is --nodes-dir"), "{error}");
        for name in ["s1", "letters"] {
            assert!(matches!(registry.remove(&name.parse().unwrap()), Err(RegistryError::Foreign { .. })), "{name}");
        }
        // There is nothing to do.
        assert!(!registry.put(&node("s1 172.18.0.2")).unwrap() && !registry.remove(&"s9".parse().unwrap()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        // What no node can be named is in nobody's way.
        fs::rename(path("letters"), path("lost+found")).unwrap();
        assert!(Registry::read(dir.path()).unwrap().put(&node("s2 172.18.0.3")).unwrap());
        assert!(path("lost+found/old").is_dir());
    }

    #[test]
    fn a_folder_with_something_in_it_is_set_aside() {
        let (dir, mut registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        fs::create_dir_all(dir.path().join("s2/in/side")).unwrap();
        let mut registry = Registry::read(dir.path()).unwrap();
        assert!(registry.remove(&"s2".parse().unwrap()).unwrap());
        assert!(dir.path().join(".s2.aside/in/side").is_dir() && !dir.path().join("s2").exists());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = Registry::read(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "read registry /nonexistent");
    }
}
