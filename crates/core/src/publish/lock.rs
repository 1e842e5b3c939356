//! The lock that lets one tool write at a time.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::os::permissions::{check_directory, parent_directory};

/// Time limit for waiting until another tool has finished.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The directory cannot be opened or locked.
    #[error("lock {path}", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has held the lock for too long.
    #[error("{path} is still locked by another tool after {wait} s: look for a tool that hangs", path = path.display(), wait = LOCK_TIMEOUT.as_secs())]
    Held {
        /// The directory.
        path: PathBuf,
    },
}

/// The lock needed to change registry, file or process. It is released when the value is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(ManuallyDrop<Flock<File>>);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file always releases the lock, while `Flock` would panic if unlocking fails.
        let _ = nix::unistd::close(self.0.as_raw_fd());
    }
}

impl Lock {
    /// Locks the directory of the configuration file `config`, which every tool knows. There is no lock file that could be left
    /// behind or belong to the wrong user.
    ///
    /// # Errors
    /// [`LockError::Held`] after waiting 5 s for another tool, [`LockError::Io`] if the directory cannot be locked.
    pub fn take(config: &Path) -> Result<Self, LockError> {
        let path = parent_directory(config);
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        check_directory(path).map_err(failed)?;
        let mut file = File::open(path).map_err(failed)?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let mut pause = Duration::from_micros(200);
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(ManuallyDrop::new(lock))),
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() > deadline => {
                    return Err(LockError::Held { path: path.to_owned() });
                }
                Err((unlocked, Errno::EWOULDBLOCK | Errno::EINTR)) => file = unlocked,
                Err((_, errno)) => return Err(failed(errno.into())),
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_waits_for_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("haproxy.cfg");
        let first = Lock::take(&config).unwrap();
        let other = config.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let second = thread::spawn(move || {
            let _lock = Lock::take(&other).unwrap();
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err(), "the lock was not exclusive");
        drop(first);
        second.join().unwrap();
        receiver.recv().unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Lock::take(Path::new("/nonexistent/haproxy.cfg")).unwrap_err();
        assert_eq!(error.to_string(), "lock /nonexistent");
    }
}
