//! Places that everybody on the machine may write to: whoever can change the template, the registry or a socket's folder
//! controls HAProxy, so nothing there is used.

use std::fs::metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

/// Permission of everybody to write (inode(7)).
const WRITABLE: u32 = 0o002;
/// In such a folder only a file's owner can rename or remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// Refuses a folder in which everybody may replace the files of others.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] with the way out. That there is no such folder is for others to tell.
pub(crate) fn refuse_folder(folder: &Path) -> io::Result<()> {
    refuse(folder, |mode| mode & WRITABLE != 0 && mode & STICKY == 0)
}

/// Refuses a folder, a file or a socket that everybody may write to.
///
/// # Errors
/// Those of [`refuse_folder`].
pub(crate) fn refuse_any(path: &Path) -> io::Result<()> {
    refuse(path, |mode| mode & WRITABLE != 0)
}

/// Refuses a file that everybody may write to or replace.
///
/// # Errors
/// Those of [`refuse_folder`].
pub(crate) fn refuse_file(path: &Path) -> io::Result<()> {
    refuse_any(path)?;
    refuse_folder(directory(path))
}

fn refuse(path: &Path, is_public: impl Fn(u32) -> bool) -> io::Result<()> {
    let is_refused = metadata(path).is_ok_and(|metadata| is_public(metadata.mode()));
    // What is mounted read-only nobody here can write to, whatever its mode: as a folder of Windows in a container.
    if !is_refused || statvfs(path).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY)) {
        return Ok(());
    }
    let reason = "anyone can write to it, and so control HAProxy";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{reason}: chmod o-w {}", path.display())))
}

/// The directory that a file is in, as it can be opened.
#[must_use]
pub(crate) fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_everybody_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("template");
        fs::write(&file, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for (folder_mode, file_mode, folder, any, of_file) in [
            (0o755, 0o644, true, true, true),
            (0o775, 0o664, true, true, true),
            (0o777, 0o644, false, false, false),
            (0o1777, 0o644, true, false, true),
            (0o755, 0o666, true, true, false),
        ] {
            set(dir.path(), folder_mode);
            set(&file, file_mode);
            let found = (refuse_folder(dir.path()).is_ok(), refuse_any(dir.path()).is_ok(), refuse_file(&file).is_ok());
            assert_eq!(found, (folder, any, of_file), "{folder_mode:o} {file_mode:o}");
        }
        assert!(refuse_file(&dir.path().join("none")).is_ok());
    }
}
