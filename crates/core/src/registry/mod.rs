//! The registry: a directory with one file a node, as the lab has it.

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

/// Longest node file that is read, in bytes; the longest valid line has about 240.
const LONGEST: usize = 1024;
/// A hidden file that says that the folder is a registry: what is no node file in there may be replaced and removed.
const MARK: &str = ".registry";

/// Why the registry could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory cannot be listed.
    #[error("read registry {path}", path = path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A node's file cannot be read, so that it is not known whether it is one.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder is somebody else's: it holds what is no node file, and was never a registry.
    #[error(
        "registry {path}: {other} is not a node file: is --nodes-dir (NODES_DIR) right? To use this directory as the registry, touch {path}/{MARK}",
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
        /// What the system said.
        source: io::Error,
    },
}

/// A directory with one file a node, as it was read. What is changed here is changed there. Whoever changes it holds the
/// [`Lock`](crate::publish::lock::Lock) since before it was read.
///
/// The first change marks the directory as a registry, for which it must have nothing but node files. What stands in the
/// way of a node in a marked one is replaced; no folder is removed with anything in it.
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    nodes: BTreeMap<NodeName, Node>,
    skipped: Vec<(PathBuf, String)>,
    is_marked: bool,
}

impl Registry {
    /// Reads all nodes. What is no valid node file is passed over with a reason: one bad file does not hide the others.
    ///
    /// # Errors
    /// [`RegistryError::List`] when the directory itself cannot be read, [`RegistryError::Read`] when a file cannot.
    pub fn read(directory: &Path) -> Result<Self, RegistryError> {
        let failed = |source| RegistryError::List { path: directory.to_owned(), source };
        check_path(directory).map_err(failed)?;
        // Each file is opened from here: the system need not find the way to the directory for each.
        let opened = File::open(directory).map_err(failed)?;
        let mut registry = Self::empty(directory);
        registry.is_marked = directory.join(MARK).symlink_metadata().is_ok();
        for entry in entries(directory).map_err(failed)? {
            let node = match entry.file_type().is_file() {
                true => read_node(&opened, entry.file_name()),
                false => Err(ReadError::Content("not a regular file".to_owned())),
            };
            match node {
                Ok(node) => drop(registry.nodes.insert(node.name.clone(), node)),
                Err(ReadError::Content(reason)) => registry.skipped.push((entry.into_path(), reason)),
                // A person has removed it just now.
                Err(ReadError::System(source)) if source.kind() == io::ErrorKind::NotFound => {}
                // It may be the best of nodes: that the system has no file or no disk for us is not its fault.
                Err(ReadError::System(source)) => return Err(RegistryError::Read { path: entry.into_path(), source }),
            }
        }
        Ok(registry)
    }

    /// A registry without any node, whose directory need not be there.
    #[must_use]
    pub fn empty(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), nodes: BTreeMap::new(), skipped: Vec::new(), is_marked: false }
    }

    /// The nodes by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// Files that are no node, each with the reason why it was passed over.
    #[must_use]
    pub fn skipped(&self) -> &[(PathBuf, String)] {
        &self.skipped
    }

    /// How many files there are, nodes or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len() + self.skipped.len()
    }

    /// Whether there is a file for this node, valid or not.
    #[must_use]
    pub fn has(&self, name: &NodeName) -> bool {
        self.nodes.contains_key(name) || self.skipped.iter().any(|(path, _)| path.ends_with(name.as_str()))
    }

    /// All names for which there is a file, a node's or not.
    pub fn names(&self) -> impl Iterator<Item = NodeName> {
        let skipped = self.skipped.iter().filter_map(|(path, _)| path.file_name()?.to_str()?.parse().ok());
        self.nodes.keys().cloned().chain(skipped)
    }

    /// Registers a node; says whether that changed anything.
    ///
    /// # Errors
    /// [`RegistryError::Write`], [`RegistryError::Foreign`]; the node's old file stays then.
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

    /// Unregisters a node; says whether it was there.
    ///
    /// # Errors
    /// [`RegistryError::Write`], [`RegistryError::Foreign`]; the node stays then.
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

    /// Before the first change: marks the directory as a registry, unless it has what could be lost by that. What has a
    /// name that no node has is never touched.
    fn mark(&mut self) -> Result<(), RegistryError> {
        if self.is_marked {
            return Ok(());
        }
        let mut others = self.skipped.iter().filter_map(|(path, _)| path.file_name()?.to_str());
        if let Some(other) = others.find(|name| name.parse::<NodeName>().is_ok()) {
            return Err(RegistryError::Foreign { path: self.directory.clone(), other: other.to_owned() });
        }
        let path = self.directory.join(MARK);
        match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(RegistryError::Write { path, source }),
            _ => self.is_marked = true,
        }
        Ok(())
    }
}

/// What is in a directory, by name, without hidden files.
fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let is_visible = |entry: &DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    // They differ in their names only; to take these out of the paths would cost more than to compare the whole.
    let order = |a: &DirEntry, b: &DirEntry| a.path().as_os_str().cmp(b.path().as_os_str());
    let entries = WalkDir::new(directory).min_depth(1).max_depth(1).sort_by(order).into_iter();
    let visible = entries.filter(|entry| entry.as_ref().map_or(true, is_visible)).collect::<Result<_, _>>();
    // The only error without one of the system is a loop of links, and none is followed.
    visible.map_err(|error| error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into()))
}

/// Why a file gives no node.
enum ReadError {
    /// The system did not let us read it.
    System(io::Error),
    /// It was read, and is no node's.
    Content(String),
}

/// Reads one node file.
fn read_node(directory: &File, name: &OsStr) -> Result<Node, ReadError> {
    let mut file = open_node(directory, name).map_err(ReadError::System)?;
    // One read: a file that is not there whole, or is longer than the buffer, is no valid line.
    let mut buffer = [0; LONGEST];
    let length = read_once(&mut file, &mut buffer).map_err(ReadError::System)?;
    parse_node(name, buffer.get(..length).unwrap_or_default()).map_err(ReadError::Content)
}

/// Opens one node file. A link is not followed, a fifo does not block.
fn open_node(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    Ok(File::from(openat(directory, name, flags, Mode::empty())?))
}

/// Reads what one read gives, again only when a signal came in between.
fn read_once(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn parse_node(name: &OsStr, line: &[u8]) -> Result<Node, String> {
    if line.len() >= LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
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
