//! Reading whole files whose type and size are not known.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// Maximum size of a file in bytes; the configuration of 10,000 servers has less than 2 MB.
const MAX_SIZE: u64 = 16 << 20;

/// Reads a regular file, following links. A fifo does not block, and a device or a sparse file does not fill the memory.
///
/// # Errors
/// I/O errors, and [`io::ErrorKind::InvalidInput`] if it is not a regular file or larger than 16 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    let invalid = |reason: &'static str| io::Error::new(io::ErrorKind::InvalidInput, reason);
    if metadata.is_dir() {
        return Err(nix::errno::Errno::EISDIR.into());
    }
    if !metadata.is_file() {
        return Err(invalid("not a regular file"));
    }
    // Without this capacity, `read_to_end` would start with pieces of 32 bytes.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_SIZE)).unwrap_or(0) + 1);
    // One byte more shows that the file is too large, even if it grows while it is read.
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE { Err(invalid("larger than 16 MiB")) } else { Ok(bytes) }
}

/// Reads a regular file as text.
///
/// # Errors
/// As for [`read`], and [`io::ErrorKind::InvalidData`] if it is not UTF-8.
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
