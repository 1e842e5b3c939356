//! The registry: a directory with one file per node.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use walkdir::{DirEntry, WalkDir};

use crate::node::{Node, NodeName};
use crate::os::atomic_file::{remove_if_exists, remove_or_set_aside, replace};
use crate::os::escape::Quoted;
use crate::os::permissions::check_path;

pub mod reconcile;
pub mod witness;

/// Maximum size of a node file in bytes; the longest valid line has about 240.
const MAX_SIZE: usize = 1024;
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
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    nodes: BTreeMap<NodeName, Node>,
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
            let node = match entry.file_type().is_file() {
                true => read_node(&opened, entry.file_name()),
                false => Err(ReadError::Content("not a regular file".to_owned())),
            };
            match node {
                Ok(node) => drop(registry.nodes.insert(node.name.clone(), node)),
                Err(ReadError::Content(reason)) => registry.skipped.push((entry.into_path(), reason)),
                // It was removed just now.
                Err(ReadError::System(source)) if source.kind() == io::ErrorKind::NotFound => {}
                // It may be a valid node, so a system error is not a reason to skip it.
                Err(ReadError::System(source)) => return Err(RegistryError::Read { path: entry.into_path(), source }),
            }
        }
        Ok(registry)
    }

    /// A registry without nodes; the directory need not exist.
    #[must_use]
    pub fn empty(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), nodes: BTreeMap::new(), skipped: Vec::new(), is_marked: false }
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
        let written = replace(&path, line.as_bytes(), 0o644).or_else(|error| match error.kind() {
            io::ErrorKind::IsADirectory => remove_or_set_aside(&path).and_then(|()| replace(&path, line.as_bytes(), 0o644)),
            _ => Err(error),
        });
        written.map_err(|source| RegistryError::Write { path: path.clone(), source })?;
        self.skipped.retain(|(skipped, _)| *skipped != path);
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

/// The entries of a directory except hidden ones, sorted by name.
fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let is_visible = |entry: &DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    // Only the names differ, but extracting them costs more than comparing the whole paths.
    let order = |a: &DirEntry, b: &DirEntry| a.path().as_os_str().cmp(b.path().as_os_str());
    let entries = WalkDir::new(directory).min_depth(1).max_depth(1).sort_by(order).into_iter();
    let visible = entries.filter(|entry| entry.as_ref().map_or(true, is_visible)).collect::<Result<_, _>>();
    // Only a loop of links gives an error without an I/O error, and links are not followed.
    visible.map_err(|error| error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into()))
}

/// Why a file is not a node.
enum ReadError {
    /// It cannot be read.
    System(io::Error),
    /// Its content is not that of a node.
    Content(String),
}

/// Reads one node file.
fn read_node(directory: &File, name: &OsStr) -> Result<Node, ReadError> {
    let mut file = open_node(directory, name).map_err(ReadError::System)?;
    // A single read: a file that is incomplete or longer than the buffer is not a valid line.
    let mut buffer = [0; MAX_SIZE];
    let length = read_once(&mut file, &mut buffer).map_err(ReadError::System)?;
    parse_node(name, buffer.get(..length).unwrap_or_default()).map_err(ReadError::Content)
}

/// Opens one node file. Links are not followed, and a fifo does not block.
fn open_node(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    Ok(File::from(openat(directory, name, flags, Mode::empty())?))
}

/// Reads once, and again only if a signal interrupted it.
fn read_once(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn parse_node(name: &OsStr, line: &[u8]) -> Result<Node, String> {
    if line.len() >= MAX_SIZE {
        return Err(format!("longer than {MAX_SIZE} bytes"));
    }
    let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let node: Node = line.parse().map_err(|error: crate::node::NodeError| error.to_string())?;
    if name == node.name.as_str() { Ok(node) } else { Err(format!("it names another node, {}", node.name)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::read(dir.path()).unwrap();
        (dir, registry)
    }

    fn node(line: &str) -> Node {
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
    fn what_takes_the_place_of_a_node_file_does_no_harm() {
        let (dir, _) = registry();
        let opened = File::open(dir.path()).unwrap();
        fs::write(dir.path().join("s1"), "s1 172.18.0.2\n").unwrap();
        std::os::unix::fs::symlink("s1", dir.path().join("link")).unwrap();
        let open = |name: &str| open_node(&opened, OsStr::new(name));
        assert_eq!(open("link").unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        let file = open("s1").unwrap();
        let flags = [FcntlArg::F_GETFL, FcntlArg::F_GETFD].map(|flags| fcntl(&file, flags).unwrap());
        assert!(OFlag::from_bits_retain(flags[0]).contains(OFlag::O_NONBLOCK), "a fifo would block");
        assert!(FdFlag::from_bits_retain(flags[1]).contains(FdFlag::FD_CLOEXEC), "haproxy -c would inherit it");
    }

    #[test]
    fn a_signal_does_not_end_a_read_and_an_error_does() {
        let failures = [io::ErrorKind::Interrupted, io::ErrorKind::Interrupted, io::ErrorKind::IsADirectory];
        let mut failures = failures.into_iter();
        assert_eq!(read_once(&mut Fails(&mut failures), &mut [0]).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read_once(&mut Fails(&mut failures), &mut [0; 9]).unwrap(), 9);
    }

    /// Fails with each of these, then reads anything.
    struct Fails<I>(I);

    impl<I: Iterator<Item = io::ErrorKind>> Read for Fails<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.next().map_or(Ok(buffer.len()), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = Registry::read(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "read registry /nonexistent");
    }
}
