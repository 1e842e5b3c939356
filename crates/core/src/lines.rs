//! Where two texts differ: of the thousands of lines of a configuration, an event changes one.

/// What two texts begin with alike, and the rest of each up to where they end alike; all are whole lines.
pub(crate) fn without_same_lines<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, a) = a.split_at_checked(same(lines(a), lines(b)))?;
    let b = b.get(before.len()..)?;
    let after = same(lines(a).rev(), lines(b).rev());
    Some((before, a.get(..a.len() - after)?, b.get(..b.len() - after)?))
}

fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split_inclusive('\n')
}

/// How many bytes the lines have that are the same in both, up to the first that is not.
fn same<'a>(a: impl Iterator<Item = &'a str>, b: impl Iterator<Item = &'a str>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).map(|(line, _)| line.len()).sum()
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
            ("1\n2", "1\n2\n", ("1\n", "2", "2\n")),
            ("1\n", "1\n", ("1\n", "", "")),
            ("", "", ("", "", "")),
        ] {
            assert_eq!(without_same_lines(a, b), Some(left), "{a:?} {b:?}");
        }
    }
}
