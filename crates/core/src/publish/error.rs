//! Why a publish fails.

use std::io;
use std::path::PathBuf;

use super::lock::LockError;
use crate::config::template::RenderError;
use crate::haproxy::HaproxyError;
use crate::os::list_file::ListError;
use crate::registry::RegistryError;

/// Why publishing failed; file and process stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The registry cannot be read or changed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The template cannot be rendered.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The file of routes, or that of users, cannot be used.
    #[error(transparent)]
    List(#[from] ListError),
    /// HAProxy does not answer, or rejects the configuration.
    #[error(transparent)]
    Haproxy(#[from] HaproxyError),
    /// The configuration file cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The configuration file, or the record of what runs, cannot be written.
    #[error("write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
