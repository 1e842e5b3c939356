//! Where two texts differ: of the thousands of lines of a configuration, an event changes one.

use std::iter::zip;

/// Bytes that are compared at once, many times as quick as one by one.
const BLOCK: usize = 256;

/// What two texts begin with alike, and the rest of each up to where they end alike; all are whole lines.
pub(crate) fn without_same_lines<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    if a == b {
        return Some((a, "", ""));
    }
    let same = same_at_begin(a.as_bytes(), b.as_bytes());
    let (before, a) = a.split_at_checked(a.as_bytes().get(..same)?.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1))?;
    let b = b.get(before.len()..)?;
    let mut same = same_at_end(a.as_bytes(), b.as_bytes());
    if !begins_line(a, same) || !begins_line(b, same) {
        let rest = a.as_bytes().get(a.len() - same..)?;
        same = rest.iter().position(|&b| b == b'\n').map_or(0, |end| same - end - 1);
    }
    Some((before, a.get(..a.len() - same)?, b.get(..b.len() - same)?))
}

/// Whether the last `length` bytes of a text begin with a line.
fn begins_line(text: &str, length: usize) -> bool {
    text.as_bytes().get(..text.len() - length).is_some_and(|before| before.last().is_none_or(|&b| b == b'\n'))
}

fn same_at_begin(a: &[u8], b: &[u8]) -> usize {
    let blocks = zip(a.chunks_exact(BLOCK), b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    blocks + zip(a.iter().skip(blocks), b.iter().skip(blocks)).take_while(|(a, b)| a == b).count()
}

fn same_at_end(a: &[u8], b: &[u8]) -> usize {
    let blocks = zip(a.rchunks_exact(BLOCK), b.rchunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    blocks + zip(a.iter().rev().skip(blocks), b.iter().rev().skip(blocks)).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_that_differ_are_left() {
        for (a, b, left) in [
            ("1\n2\n3\n", "1\nx\n3\n", ("1\n", "2\n", "x\n")),
            ("1\n2\n3\n", "1\n3\n", ("1\n", "2\n", "")),
            ("1\n1\n", "1\n1\n1\n", ("1\n1\n", "", "1\n")),
            ("12\n", "13\n", ("", "12\n", "13\n")),
            ("12\n", "32\n", ("", "12\n", "32\n")),
            ("1\n2", "1\n2\n", ("1\n", "2", "2\n")),
            ("1\n", "1\n", ("1\n", "", "")),
            ("", "", ("", "", "")),
        ] {
            assert_eq!(without_same_lines(a, b), Some(left), "{a:?} {b:?}");
        }
    }

    /// The same, line by line.
    fn slowly<'a>(a: &'a str, b: &'a str) -> (&'a str, &'a str, &'a str) {
        let lines = |text: &'a str| text.split_inclusive('\n');
        let before = zip(lines(a), lines(b)).take_while(|(a, b)| a == b).map(|(line, _)| line.len()).sum();
        let (before, a, b) = (&a[..before], &a[before..], &b[before..]);
        let after: usize = zip(lines(a).rev(), lines(b).rev()).take_while(|(a, b)| a == b).map(|(line, _)| line.len()).sum();
        (before, &a[..a.len() - after], &b[..b.len() - after])
    }

    #[test]
    fn blocks_and_lines_give_the_same() {
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            let longer = texts.iter().flat_map(|text| ["\n", "1", "2"].map(|more| format!("{text}{more}")));
            texts = longer.chain([String::new(), "1".to_owned()]).collect();
        }
        let long = "a line\n".repeat(BLOCK / 3);
        for a in &texts {
            for b in &texts {
                assert_eq!(without_same_lines(a, b), Some(slowly(a, b)), "{a:?} {b:?}");
            }
            let (a, b) = (format!("{long}{a}\n{long}"), format!("{long}1\n2{long}"));
            assert_eq!(without_same_lines(&a, &b), Some(slowly(&a, &b)), "{a:?} {b:?}");
        }
    }
}
