//! One writer at a time.

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

/// How long a tool waits for another one to finish before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The directory cannot be opened or locked.
    #[error("lock {path}", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has held the lock all the time.
    #[error("{path} is still locked by another tool after {wait} s: look for a tool that hangs", path = path.display(), wait = PATIENCE.as_secs())]
    Held {
        /// The directory.
        path: PathBuf,
    },
}

/// The lock that everything holds which changes registry, file or process. It ends with the value, or with the process.
#[derive(Debug)]
pub struct Lock(ManuallyDrop<Flock<File>>);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file ends the lock, whatever happens; `Flock` would panic when it cannot be ended before that.
        let _ = nix::unistd::close(self.0.as_raw_fd());
    }
}

impl Lock {
    /// Locks the directory of the configuration file `config`, which every tool knows. No lock file is needed, so none
    /// can be left behind, nor belong to the wrong user.
    ///
    /// # Errors
    /// [`LockError`]; the wait for another tool is bounded.
    pub fn take(config: &Path) -> Result<Self, LockError> {
        let path = parent_directory(config);
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        check_directory(path).map_err(failed)?;
        let mut file = File::open(path).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
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
