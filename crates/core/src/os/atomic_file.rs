//! Files that are wholly old or wholly new, whatever happens.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the temporary file in each folder.
pub(crate) const TEMPORARY: &str = ".new";

/// New content of a file, written beside it and not yet in its place.
///
/// Dropped without [`Staged::commit`], it leaves no trace. One writer at a time: the caller holds the lock.
/// The content is not synced to the disk: the cluster can rebuild all state that is kept here.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    temporary: PathBuf,
    committed: bool,
}

impl Staged {
    /// Writes `content`, piece by piece, to a temporary file in the directory of `target`, with permissions `mode` whatever
    /// the umask.
    ///
    /// The temporary's name is `.new`, so that what a killed writer left behind is replaced by the next one and
    /// never adds up; a name that begins with a dot is never taken for a node.
    ///
    /// # Errors
    /// Those of the file system; no temporary file is left then.
    pub fn write(target: &Path, content: &[&[u8]], mode: u32) -> io::Result<Self> {
        let temporary = target.with_file_name(TEMPORARY);
        clear(&temporary)?;
        // `create_new` never follows a link that somebody put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let staged = Self { target: target.to_owned(), temporary, committed: false };
        content.iter().try_for_each(|piece| file.write_all(piece))?;
        File::set_permissions(&file, Permissions::from_mode(mode))?;
        Ok(staged)
    }

    /// Puts the new content in the place of the old in one step.
    ///
    /// # Errors
    /// Those of the file system; the old content stays then.
    pub fn commit(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing more can be done about it here, and the next writer replaces the file.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes way for a temporary file, whatever is there.
fn clear(temporary: &Path) -> io::Result<()> {
    match remove_if_there(temporary) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => make_way(temporary),
        result => result.map(drop),
    }
}

/// Makes way where a folder stands: an empty one is removed, one with anything in it becomes `.<name>.aside`.
///
/// # Errors
/// Those of the file system, also when there is such a folder with anything in it already.
pub(crate) fn make_way(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            let mut aside = OsString::from(".");
            aside.push(folder.file_name().unwrap_or_default());
            aside.push(".aside");
            fs::rename(folder, folder.with_file_name(aside))
        }
        result => result,
    }
}

/// Replaces the content of `target` in one step.
///
/// # Errors
/// Those of the file system; the old content stays then.
pub fn replace(target: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    Staged::write(target, &[content], mode)?.commit()
}

/// Removes a file, and says whether it was there.
///
/// # Errors
/// Those of the file system, except that there is no such file.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
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
