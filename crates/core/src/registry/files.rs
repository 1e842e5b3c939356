//! Reading the files of a registry.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use walkdir::{DirEntry, WalkDir};

use super::idle::LAST_OF;
use crate::node::Node;

/// Maximum size of a node file in bytes; the longest valid line has about 1,500.
const MAX_SIZE: usize = 2048;

/// The entries of a directory, sorted by name, except hidden ones that are not about a service.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let is_visible = |entry: &DirEntry| {
        let name = entry.file_name().as_encoded_bytes();
        !name.starts_with(b".") || name.starts_with(LAST_OF.as_bytes())
    };
    // Only the names differ, but extracting them costs more than comparing the whole paths.
    let order = |a: &DirEntry, b: &DirEntry| a.path().as_os_str().cmp(b.path().as_os_str());
    let entries = WalkDir::new(directory).min_depth(1).max_depth(1).sort_by(order).into_iter();
    let visible = entries.filter(|entry| entry.as_ref().map_or(true, is_visible)).collect::<Result<_, _>>();
    // Only a loop of links gives an error without an I/O error, and links are not followed.
    visible.map_err(|error| error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into()))
}

/// Why a file is not a node.
pub(super) enum ReadError {
    /// It cannot be read.
    System(io::Error),
    /// Its content is not that of a node.
    Content(String),
}

/// Reads one node file, or the one with the last node of the service `idle`.
pub(super) fn read_node(directory: &File, name: &OsStr, idle: Option<&str>) -> Result<Node, ReadError> {
    let mut file = open_node(directory, name).map_err(ReadError::System)?;
    // A single read: a file that is incomplete or longer than the buffer is not a valid line.
    let mut buffer = [0; MAX_SIZE];
    let length = read_once(&mut file, &mut buffer).map_err(ReadError::System)?;
    let node = parse_node(buffer.get(..length).unwrap_or_default()).map_err(ReadError::Content)?;
    match idle {
        None if name != node.name.as_str() => Err(ReadError::Content(format!("it names another node, {}", node.name))),
        Some(role) if role != node.role.as_str() => Err(ReadError::Content(format!("it names another service, {}", node.role))),
        _ => Ok(node),
    }
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

fn parse_node(line: &[u8]) -> Result<Node, String> {
    if line.len() >= MAX_SIZE {
        return Err(format!("longer than {MAX_SIZE} bytes"));
    }
    let line = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    line.parse().map_err(|error: crate::node::NodeError| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::super::tests::registry;
    use super::*;

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
}
