//! The registry: a directory with one file a node, as the lab has it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::OFlag;
use walkdir::{DirEntry, WalkDir};

use crate::node::{Node, NodeName};
use crate::public::refuse_any;
use crate::replace::{remove_if_there, replace};

/// Longest node file that is read, in bytes; the longest valid line has about 240.
const LONGEST: usize = 1024;
/// How many node files make a second thread worth its start.
const MANY: usize = 200;

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
    /// A node's file cannot be written or removed.
    #[error("write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What the registry holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The nodes by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Files that are no node, each with the reason why it was passed over.
    pub skipped: Vec<(PathBuf, String)>,
}

/// A directory with one file a node. Whoever changes it holds the [`Lock`](crate::lock::Lock).
#[derive(Debug, Clone)]
pub struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// The registry in `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Reads all nodes. What is no valid node file is passed over with a reason: one bad file does not hide the others.
    ///
    /// # Errors
    /// [`RegistryError::List`] when the directory itself cannot be read, [`RegistryError::Read`] when a file cannot.
    pub fn list(&self) -> Result<Listing, RegistryError> {
        refuse_any(&self.directory).map_err(|source| RegistryError::List { path: self.directory.clone(), source })?;
        let entries = WalkDir::new(&self.directory).min_depth(1).max_depth(1).into_iter();
        let visible = |entry: &DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
        let entries: Vec<DirEntry> =
            entries.filter(|entry| entry.as_ref().map_or(true, visible)).collect::<Result<_, _>>().map_err(|error| {
                RegistryError::List {
                    path: self.directory.clone(),
                    // The only error without one is a loop of links, and none is followed.
                    source: error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into()),
                }
            })?;
        let mut listing = Listing::default();
        for (entry, node) in entries.iter().zip(read_nodes(&entries)) {
            match node {
                Ok(node) => drop(listing.nodes.insert(node.name.clone(), node)),
                Err(ReadError::Content(reason)) => listing.skipped.push((entry.path().to_owned(), reason)),
                // A person has removed it just now.
                Err(ReadError::System(source)) if source.kind() == io::ErrorKind::NotFound => {}
                // It may be the best of nodes: that the system has no file or no disk for us is not its fault.
                Err(ReadError::System(source)) => return Err(RegistryError::Read { path: entry.path().to_owned(), source }),
            }
        }
        Ok(listing)
    }

    /// How many files there are, nodes or not.
    ///
    /// # Errors
    /// [`RegistryError::List`].
    pub fn count(&self) -> Result<usize, RegistryError> {
        let failed = |source| RegistryError::List { path: self.directory.clone(), source };
        let visible = |entry: &io::Result<fs::DirEntry>| {
            entry.as_ref().map_or(true, |entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        };
        let entries = fs::read_dir(&self.directory).map_err(failed)?;
        entries.filter(visible).try_fold(0, |count, entry| entry.map(|_| count + 1)).map_err(failed)
    }

    /// Whether there is a file for this node, valid or not.
    #[must_use]
    pub fn has(&self, name: &NodeName) -> bool {
        self.directory.join(name.as_str()).symlink_metadata().is_ok()
    }

    /// Registers a node; says whether that changed anything.
    ///
    /// # Errors
    /// [`RegistryError::Write`]; the node's old file stays then.
    pub fn put(&self, node: &Node) -> Result<bool, RegistryError> {
        let path = self.directory.join(node.name.as_str());
        if read_node(&path).is_ok_and(|old| old == *node) {
            return Ok(false);
        }
        let line = format!("{node}\n");
        let written = replace(&path, line.as_bytes(), 0o644).or_else(|error| match error.kind() {
            io::ErrorKind::IsADirectory => fs::remove_dir_all(&path).and_then(|()| replace(&path, line.as_bytes(), 0o644)),
            _ => Err(error),
        });
        written.map_err(|source| RegistryError::Write { path, source })?;
        Ok(true)
    }

    /// Unregisters a node; says whether it was there.
    ///
    /// # Errors
    /// [`RegistryError::Write`]; the node stays then.
    pub fn remove(&self, name: &NodeName) -> Result<bool, RegistryError> {
        let path = self.directory.join(name.as_str());
        let removed = remove_if_there(&path).or_else(|error| match error.kind() {
            io::ErrorKind::IsADirectory => fs::remove_dir_all(&path).map(|()| true),
            _ => Err(error),
        });
        removed.map_err(|source| RegistryError::Write { path, source })
    }
}

/// Reads node files. Of many, which take 3 µs each, a second thread reads the half.
fn read_nodes(entries: &[DirEntry]) -> Vec<Result<Node, ReadError>> {
    let read = |entry: &DirEntry| match entry.file_type().is_file() {
        true => read_node(entry.path()),
        false => Err(ReadError::Content("not a plain file".to_owned())),
    };
    let read_all = |entries: &[DirEntry]| entries.iter().map(read).collect::<Vec<_>>();
    let (here, there) = entries.split_at(if entries.len() < MANY { entries.len() } else { entries.len() / 2 });
    thread::scope(|scope| {
        let second = (!there.is_empty()).then(|| thread::Builder::new().spawn_scoped(scope, || read_all(there)));
        let mut nodes = read_all(here);
        nodes.extend(match second {
            Some(Ok(second)) => second.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // No thread can be had: what is left is read here.
            None | Some(Err(_)) => read_all(there),
        });
        nodes
    })
}

/// Why a file gives no node.
enum ReadError {
    /// The system did not let us read it.
    System(io::Error),
    /// It was read, and is no node's.
    Content(String),
}

/// Reads one node file. A link is not followed, a fifo does not block.
fn read_node(path: &Path) -> Result<Node, ReadError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(ReadError::System)?;
    // One read: a file that is not there whole, or is longer than the buffer, is no valid line.
    let mut buffer = [0; LONGEST];
    let length = loop {
        match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result.map_err(ReadError::System)?,
        }
    };
    parse_node(path, buffer.get(..length).unwrap_or_default()).map_err(ReadError::Content)
}

fn parse_node(path: &Path, line: &[u8]) -> Result<Node, String> {
    if line.len() >= LONGEST {
        return Err(format!("longer than {LONGEST} bytes"));
    }
    let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    let node: Node = line.parse().map_err(|error: crate::node::NodeError| error.to_string())?;
    if path.file_name().is_some_and(|name| name == node.name.as_str()) {
        Ok(node)
    } else {
        Err(format!("the file of another node, {}", node.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path());
        (dir, registry)
    }

    fn node(line: &str) -> Node {
        line.parse().unwrap()
    }

    #[test]
    fn a_node_is_one_file_with_one_line() {
        let (dir, registry) = registry();
        assert!(registry.put(&node("s1 172.18.0.2")).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("s1")).unwrap(), "s1 172.18.0.2\n");
        assert_eq!(registry.list().unwrap().nodes.len(), 1);
    }

    #[test]
    fn putting_what_is_there_writes_nothing() {
        let (dir, registry) = registry();
        registry.put(&node("s1 172.18.0.2")).unwrap();
        fs::set_permissions(dir.path().join("s1"), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        assert!(!registry.put(&node("s1 172.18.0.2")).unwrap());
        assert!(registry.put(&node("s1 172.18.0.3")).unwrap());
    }

    #[test]
    fn removing_an_unknown_node_is_ok() {
        let (_dir, registry) = registry();
        assert!(!registry.remove(&"s1".parse().unwrap()).unwrap());
    }

    #[test]
    fn what_is_no_node_file_is_passed_over_and_healed() {
        let (dir, registry) = registry();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("empty"), "").unwrap();
        fs::write(path("other"), "s9 172.18.0.2\n").unwrap();
        fs::write(path("binary"), b"\xff\xfe").unwrap();
        fs::write(path("long"), "x".repeat(5000)).unwrap();
        fs::write(path(".new"), "half a li").unwrap();
        fs::create_dir_all(path("folder/inside")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        registry.put(&node("s1 172.18.0.2")).unwrap();

        let listing = registry.list().unwrap();
        assert_eq!(listing.nodes.len(), 1);
        assert_eq!(listing.skipped.len(), 7, "{:?}", listing.skipped);

        for name in ["empty", "other", "binary", "long", "folder", "link", "fifo"] {
            assert!(registry.put(&node(&format!("{name} 172.18.0.9"))).unwrap(), "{name}");
        }
        let listing = registry.list().unwrap();
        assert_eq!((listing.nodes.len(), listing.skipped.len()), (8, 0), "{:?}", listing.skipped);
    }

    #[test]
    fn many_nodes_are_all_read() {
        let (dir, registry) = registry();
        for number in 0..2 * MANY {
            fs::write(dir.path().join(format!("s{number}")), format!("s{number} 172.18.0.2\n")).unwrap();
        }
        fs::write(dir.path().join("empty"), "").unwrap();
        let listing = registry.list().unwrap();
        assert_eq!((listing.nodes.len(), listing.skipped.len()), (2 * MANY, 1));
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let registry = Registry::new(Path::new("/nonexistent"));
        assert_eq!(registry.list().unwrap_err().to_string(), "read registry /nonexistent");
    }
}
