//! The lines that are appended to the log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::history::{Entry, entries};

/// Maximum number of bytes that are read at once; of more than that, the last ones.
const MAX_BYTES: u64 = 64 * 1024;

/// A log file, and how far it has been read.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    inode: u64,
    position: u64,
}

impl Tail {
    /// At the beginning of the file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: 0, position: 0 }
    }

    /// The lines since the last call. A file that cannot be read has none. When the log is rotated, the last lines of the old
    /// file may be missed.
    pub fn more(&mut self) -> Vec<Entry> {
        self.read().map_or_else(Vec::new, |text| entries(&text))
    }

    fn read(&mut self) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let metadata = file.metadata().ok().filter(|metadata| metadata.is_file())?;
        if metadata.ino() != self.inode || metadata.len() < self.position {
            (self.inode, self.position) = (metadata.ino(), 0);
        }
        let begin = self.position.max(metadata.len().saturating_sub(MAX_BYTES));
        file.seek(SeekFrom::Start(begin)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        // A line that is being written is read when it is whole.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        let is_cut = begin > self.position;
        self.position = begin + bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(if is_cut { text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned()) } else { text })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn messages(tail: &mut Tail) -> Vec<String> {
        tail.more().into_iter().map(|entry| entry.message).collect()
    }

    fn append(path: &Path, text: &str) {
        fs::write(path, fs::read_to_string(path).unwrap_or_default() + text).unwrap();
    }

    #[test]
    fn whole_lines_are_read_once_and_a_rotated_log_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serf.log");
        let mut tail = Tail::new(&path);
        assert_eq!(messages(&mut tail), [""; 0]);
        append(&path, "2026-01-01T00:00:01Z t: one\n2026-01-01T00:00:02Z t: t");
        assert_eq!(messages(&mut tail), ["one"]);
        append(&path, "wo\n");
        assert_eq!(messages(&mut tail), ["two"]);
        assert_eq!(messages(&mut tail), [""; 0]);
        fs::rename(&path, dir.path().join("serf.log.1")).unwrap();
        append(&path, "2026-01-01T00:00:03Z t: three\n");
        assert_eq!(messages(&mut tail), ["three"]);
    }

    #[test]
    fn of_a_long_log_the_end_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serf.log");
        let line = |number: usize| format!("2026-01-01T00:00:01Z t: line {number}\n");
        fs::write(&path, (0..10_000).map(line).collect::<String>()).unwrap();
        let messages = messages(&mut Tail::new(&path));
        assert_eq!(messages.last().unwrap(), "line 9999");
        assert!(messages.len() > 1000 && messages.len() < 3000 && messages[0].starts_with("line "), "{}", messages.len());
    }
}
