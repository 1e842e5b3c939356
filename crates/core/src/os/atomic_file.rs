//! Atomic replacement of files: a reader sees the old or the new content, never a part of it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the temporary file in each directory.
pub(crate) const TEMP_NAME: &str = ".new";

/// New content of a file, written next to it and not yet in its place.
///
/// If dropped without [`Staged::commit`], the temporary file is removed. Only one process may write at a time, so the
/// caller holds the lock. The content is not synced to disk, because the cluster can rebuild all of it.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    temporary: PathBuf,
    committed: bool,
}

impl Staged {
    /// Writes the pieces of `content` to a temporary file in the directory of `target`, with permissions `mode` whatever
    /// the umask.
    ///
    /// The temporary file is always called `.new`, so that the next writer replaces what a killed one left behind. The
    /// leading dot keeps it from being taken for a node.
    ///
    /// # Errors
    /// I/O errors; no temporary file is left behind.
    pub fn write(target: &Path, content: &[&[u8]], mode: u32) -> io::Result<Self> {
        let temporary = target.with_file_name(TEMP_NAME);
        clear(&temporary)?;
        // `create_new` does not follow a link in its place.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let staged = Self { target: target.to_owned(), temporary, committed: false };
        content.iter().try_for_each(|piece| file.write_all(piece))?;
        File::set_permissions(&file, Permissions::from_mode(mode))?;
        Ok(staged)
    }

    /// Replaces the old content with the new in one step.
    ///
    /// # Errors
    /// I/O errors; the old content stays.
    pub fn commit(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: the next writer replaces the file.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes whatever is in the place of the temporary file.
fn clear(temporary: &Path) -> io::Result<()> {
    match remove_if_exists(temporary) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => remove_or_set_aside(temporary),
        result => result.map(drop),
    }
}

/// Removes an empty directory, and renames any other to `.<name>.aside`.
///
/// # Errors
/// I/O errors, including a non-empty `.<name>.aside` that exists already.
pub(crate) fn remove_or_set_aside(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            let mut aside = OsString::from(".");
            aside.push(directory.file_name().unwrap_or_default());
            aside.push(".aside");
            fs::rename(directory, directory.with_file_name(aside))
        }
        result => result,
    }
}

/// Replaces the content of `target` in one step.
///
/// # Errors
/// I/O errors; the old content stays.
pub fn replace(target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    Staged::write(target, &[content], mode)?.commit()
}

/// Removes a file; returns whether it existed.
///
/// # Errors
/// I/O errors, except for a missing file.
pub fn remove_if_exists(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_mode_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        fs::write(&target, "old").unwrap();
        replace(&target, b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_committed_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        drop(Staged::write(&target, &[b"new"], 0o644).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_killed_writer_s_temporary_is_replaced_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "precious").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(".new")).unwrap();
        replace(&dir.path().join("f"), b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
        assert!(!dir.path().join(".new").exists());
    }
}
