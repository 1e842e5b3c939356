//! Files with one entry a line, as a person has written them.

use std::io;
use std::path::{Path, PathBuf};

use crate::os::permissions::check_file;
use crate::os::read_file::read_text;

/// Why such a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("read {what} {path}", path = path.display())]
    Read {
        /// What is in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line of it is not an entry.
    #[error("{what} {path}: line {line}: {reason}", path = path.display())]
    Line {
        /// What is in the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its number, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a file with `what` in it. `parse` gives the number of the first line that is not an entry, and the reason.
///
/// # Errors
/// [`ListError`] if the file cannot be read, or a line is not an entry.
pub fn load<T>(what: &'static str, path: &Path, parse: fn(&str) -> Result<T, (usize, String)>) -> Result<T, ListError> {
    parse(&read(what, path)?).map_err(|(line, reason)| ListError::Line { what, path: path.to_owned(), line, reason })
}

fn read(what: &'static str, path: &Path) -> Result<String, ListError> {
    let text = check_file(path).and_then(|()| read_text(path));
    text.map_err(|source| ListError::Read { what, path: path.to_owned(), source })
}

/// The lines that are neither blank nor comments, which begin with `#`, with their numbers.
pub fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}
