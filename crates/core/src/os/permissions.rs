//! Protection against world-writable paths: anyone who can change the template, the registry or the directory of a socket
//! controls HAProxy, so such paths are not used.

use std::fs::metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};

/// Permission bit: anyone may write (inode(7)).
const WORLD_WRITABLE: u32 = 0o002;
/// Permission bit of a directory: only the owner of a file may rename or remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// Checks that a directory is not one in which anyone may replace the files of others.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`], with a message that says how to fix it. A missing directory is reported when it is
/// opened.
pub(crate) fn check_directory(directory: &Path) -> io::Result<()> {
    check(directory, |mode| mode & WORLD_WRITABLE != 0 && mode & STICKY == 0)
}

/// Checks that a directory, file or socket is not world-writable.
///
/// # Errors
/// As for [`check_directory`].
pub(crate) fn check_path(path: &Path) -> io::Result<()> {
    check(path, |mode| mode & WORLD_WRITABLE != 0)
}

/// Checks that a file or socket is not one that anyone may write to or replace.
///
/// # Errors
/// As for [`check_directory`].
pub(crate) fn check_file(path: &Path) -> io::Result<()> {
    check_path(path)?;
    check_directory(parent_directory(path))
}

fn check(path: &Path, is_public: impl Fn(u32) -> bool) -> io::Result<()> {
    let is_rejected = metadata(path).is_ok_and(|metadata| is_public(metadata.mode()));
    // A read-only mount cannot be written to, whatever the mode, such as a Windows directory in a container.
    if !is_rejected || statvfs(path).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY)) {
        return Ok(());
    }
    let reason = "anyone can write to it, and so control HAProxy";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{reason}: chmod o-w {}", path.display())))
}

/// The directory of a file; `.` for a bare name.
#[must_use]
pub(crate) fn parent_directory(file: &Path) -> &Path {
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
            let found = (check_directory(dir.path()).is_ok(), check_path(dir.path()).is_ok(), check_file(&file).is_ok());
            assert_eq!(found, (folder, any, of_file), "{folder_mode:o} {file_mode:o}");
        }
        assert!(check_file(&dir.path().join("none")).is_ok());
    }
}
