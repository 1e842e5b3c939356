//! How a handler tells a live `sync-nodes --follow` to look at once: a named pipe.
//!
//! A pipe can only be opened for writing while somebody reads it, so it also tells whether there is such a process;
//! nothing is left over when that process is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Where the pipe is: beside HAProxy's master socket.
#[must_use]
pub fn pipe_path(master: &Path) -> PathBuf {
    master.with_file_name("sync.wake")
}

/// Wakes the process that reads the pipe; says whether there is one.
#[must_use]
pub fn wake(pipe: &Path) -> bool {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let Ok(mut file) = OpenOptions::new().write(true).custom_flags(flags.bits()).open(pipe) else { return false };
    let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    // A full pipe means that it is about to look anyway.
    is_pipe && file.write(b"\n").map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |_| true)
}

/// Makes the pipe and opens its reading end, which does not block.
///
/// # Errors
/// Those of the file system.
pub fn listen(pipe: &Path) -> io::Result<File> {
    crate::os::atomic_file::remove_if_exists(pipe)?;
    nix::unistd::mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Open for writing too, so that it never reads as ended when a handler closes it.
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
