//! The named pipe by which an event handler wakes a running `sync-nodes --follow`.
//!
//! Opening a pipe for writing without blocking fails unless it has a reader, so the pipe also shows whether `sync-nodes`
//! is running, even after it was killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Path of the pipe, next to HAProxy's master socket.
#[must_use]
pub fn pipe_path(master: &Path) -> PathBuf {
    master.with_file_name("sync.wake")
}

/// Wakes the reader of the pipe; returns whether there is one.
#[must_use]
pub fn wake(pipe: &Path) -> bool {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let Ok(mut file) = OpenOptions::new().write(true).custom_flags(flags.bits()).open(pipe) else { return false };
    let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    // If the pipe is full, the reader is about to look anyway.
    is_pipe && file.write(b"\n").map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true)
}

/// Creates the pipe and opens it for non-blocking reads.
///
/// # Errors
/// I/O errors.
pub fn listen(pipe: &Path) -> io::Result<File> {
    crate::os::atomic_file::remove_if_exists(pipe)?;
    nix::unistd::mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Also open for writing, so that there is no end of file when a handler closes its end.
    OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(pipe)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_a_live_reader_is_woken() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = pipe_path(&dir.path().join("master.sock"));
        assert!(!wake(&pipe), "there is no pipe");
        let mut reader = listen(&pipe).unwrap();
        assert!(wake(&pipe));
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
        drop(reader);
        assert!(!wake(&pipe), "nobody reads");
    }

    #[test]
    fn a_plain_file_in_its_place_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("sync.wake");
        std::fs::write(&pipe, "").unwrap();
        assert!(!wake(&pipe));
        assert_eq!(std::fs::read(&pipe).unwrap(), b"");
    }
}
