//! Reading files whole that somebody else may have put there.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Largest file that is read, in bytes: the configuration of 10,000 servers has less than 2 MB.
const LARGEST: u64 = 16 << 20;

/// Reads a plain file, or what a link to one leads to. A fifo in its place does not block, and no device or sparse file
/// fills the memory: they are refused.
///
/// # Errors
/// Those of the file system, [`io::ErrorKind::InvalidInput`] when it is no plain file or larger than 16 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    let refused = |reason: &'static str| io::Error::new(io::ErrorKind::InvalidInput, reason);
    if metadata.is_dir() {
        return Err(nix::errno::Errno::EISDIR.into());
    }
    if !metadata.is_file() {
        return Err(refused("not a regular file"));
    }
    // Room for all of it: else it is read in pieces, from 32 bytes on.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(LARGEST)).unwrap_or(0) + 1);
    // One byte more tells a file that is too large, also one that grows while it is read.
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(refused("larger than 16 MiB")) } else { Ok(bytes) }
}

/// The same as text.
///
/// # Errors
/// Those of [`read`], [`io::ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn only_plain_files_of_a_sane_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("good"), "text").unwrap();
        std::os::unix::fs::symlink("good", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        File::create(path("sparse")).unwrap().set_len(20 << 30).unwrap();
        assert_eq!((read_text(&path("good")).unwrap(), read(&path("link")).unwrap()), ("text".to_owned(), b"text".to_vec()));
        for (name, reason) in [("fifo", "not a regular file"), ("sparse", "larger than 16 MiB")] {
            assert_eq!(read(&path(name)).unwrap_err().to_string(), reason);
        }
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().to_string(), "not a regular file");
        assert_eq!(read(dir.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }
}
