//! What the files of a large registry said when they were read last: to ask the system whether a file has changed takes a
//! third of the time that it takes to read it.
//!
//! The index is a hidden file in the registry, one line a node: `<inode> <seconds> <nanoseconds> <the file's line>`, the
//! time being that of the file's last change. Whatever is wrong with it, the nodes' own files are read instead.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::str::Lines;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use crate::node::Node;
use crate::read::read_text;

/// Name of the index.
pub(super) const NAME: &str = ".index";
/// A file that changed so shortly ago may change again without another time: the clock of file systems ticks every 4 to
/// 10 ms, on some every second or two.
const UNSETTLED: Duration = Duration::from_secs(3);
/// How many files must be new to it for a new index.
const WORTHWHILE: usize = 32;

/// What changes whenever a file is changed or replaced. Nobody can set the time (inode(7): `ctime`).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// That of the file `name`, not of what a link leads to.
    pub(super) fn of(directory: &File, name: &OsStr) -> Option<Self> {
        let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some(Self { inode: stat.st_ino, seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec })
    }

    /// Whether any further change shows.
    fn is_settled(self, now: Duration) -> bool {
        now.checked_sub(UNSETTLED).is_some_and(|before| u64::try_from(self.seconds).is_ok_and(|at| at < before.as_secs()))
    }
}

/// An index that was read; it is asked for the files in the order of their names.
#[derive(Debug)]
pub(super) struct Index<'a> {
    lines: Lines<'a>,
    next: Option<(Stamp, &'a str)>,
}

impl<'a> Index<'a> {
    /// The text of the index in this directory, empty if there is none.
    pub(super) fn load(directory: &Path) -> String {
        read_text(&directory.join(NAME)).unwrap_or_default()
    }

    /// Reads the text of an index.
    pub(super) fn of(text: &'a str) -> Self {
        // A line without an end is cut, perhaps in the middle of an address.
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        let mut index = Self { lines: whole.lines(), next: None };
        index.step();
        index
    }

    fn step(&mut self) {
        self.next = self.lines.by_ref().find_map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next();
            let stamp =
                Stamp { inode: word()?.parse().ok()?, seconds: word()?.parse().ok()?, nanoseconds: word()?.parse().ok()? };
            Some((stamp, word()?))
        });
    }

    /// What the file `name` says, if it has not changed.
    pub(super) fn line(&mut self, name: &OsStr, stamp: Stamp) -> Option<&'a str> {
        loop {
            let (known, line) = self.next?;
            let of = line.split(' ').next().unwrap_or_default();
            if OsStr::new(of) >= name {
                return (known == stamp && of == name).then_some(line);
            }
            self.step();
        }
    }
}

/// A node's file as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// What it says.
    pub(super) node: Node,
    /// As it was before it was read.
    pub(super) stamp: Stamp,
    /// It was not in the index, or not as it is.
    pub(super) is_new: bool,
}

/// The text of a new index, if that is worth it.
pub(super) fn text(files: &[Found]) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let settled = files.iter().filter(|file| file.stamp.is_settled(now));
    if settled.clone().filter(|file| file.is_new).count() < WORTHWHILE {
        return None;
    }
    let mut text = String::new();
    for Found { node, stamp, .. } in settled {
        // A string takes all that is written to it.
        let _ = writeln!(text, "{} {} {} {node}", stamp.inode, stamp.seconds, stamp.nanoseconds);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str, seconds: i64, is_new: bool) -> Found {
        Found { node: line.parse().unwrap(), stamp: Stamp { inode: 7, seconds, nanoseconds: 9 }, is_new }
    }

    #[test]
    fn an_index_knows_the_files_that_have_not_changed() {
        let files: Vec<_> = (10..50).map(|n| found(&format!("s{n} 10.0.0.1 weight={n}"), n, true)).collect();
        let text = text(&files).unwrap();
        let mut index = Index::of(&text);
        let mut line = |name: &str, seconds| index.line(OsStr::new(name), found("x 10.0.0.1", seconds, true).stamp);
        assert_eq!(line("a", 10), None);
        assert_eq!(line("s10", 10), Some("s10 10.0.0.1 weight=10"));
        assert_eq!(line("s11", 10), None, "it has changed");
        assert_eq!(line("s111", 10), None);
        assert_eq!(line("s49", 49), Some("s49 10.0.0.1 weight=49"));
        assert_eq!(line("t", 49), None);
    }

    #[test]
    fn there_is_a_new_index_when_enough_files_are_new_and_settled() {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        for (seconds, is_new, count, is_there) in [
            (now - 9, true, WORTHWHILE, true),
            (now - 9, true, WORTHWHILE - 1, false),
            (now - 9, false, 99, false),
            (now, true, 99, false),
        ] {
            let files: Vec<_> = (0..count).map(|n| found(&format!("s{n} 10.0.0.1"), seconds, is_new)).collect();
            assert_eq!(text(&files).map_or(0, |text| text.lines().count()), if is_there { count } else { 0 });
        }
    }

    #[test]
    fn what_is_no_line_of_an_index_is_passed_over() {
        let mut index = Index::of("\n1 2\nx 1 1 s1 10.0.0.1\n7 1 9 s1 10.0.0.1\n7 1");
        let stamp = found("s1 10.0.0.1", 1, true).stamp;
        assert_eq!(index.line(OsStr::new("s1"), stamp), Some("s1 10.0.0.1"));
        assert_eq!(index.line(OsStr::new("s2"), stamp), None);
    }
}
