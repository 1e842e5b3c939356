//! The lines that Serf passes to an event handler on standard input.
//!
//! There is one line per member, `NAME\tADDRESS\tROLE\tTAGS\n`. Serf writes a tab or newline inside
//! a value as the two characters `\t`, `\n`, and `TAGS` as `key=value,key=value` in random order without escaping
//! `,` and `=` (Serf 0.10.1, `cmd/serf/command/agent/invoke.go`). A person may separate the columns with spaces.

use std::io::{self, BufRead};

use crate::members::admission::Admission;
use crate::node::{Node, NodeError, NodeName};

/// Maximum length of a line in bytes. Serf limits the tags of a member to 512 bytes together.
const MAX_LINE: usize = 16 * 1024;

/// Why a line was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Fewer than three columns.
    #[error("not '<name> <address> <role> [<tags>]' separated by tabs")]
    Columns,
    /// Longer than a line may be.
    #[error("longer than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not valid UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// The value of a column is invalid.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Reads all lines, and passes each that is not blank to `line` with its number, counted from 1. Only one line is in memory
/// at a time.
///
/// # Errors
/// I/O errors. An invalid line is passed to `line` as an error.
pub fn read_lines(mut input: impl BufRead, mut line: impl FnMut(usize, Result<&str, LineError>)) -> io::Result<()> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let mut limited = io::Read::take(&mut input, MAX_LINE as u64 + 1);
        if limited.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        } else if bytes.len() > MAX_LINE {
            skip_line(&mut input)?;
            line(number, Err(LineError::TooLong));
            continue;
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => line(number, Ok(text.strip_suffix('\r').unwrap_or(text))),
            Err(_) => line(number, Err(LineError::Encoding)),
        }
    }
    Ok(())
}

/// Discards the rest of a line.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let newline = buffer.iter().position(|&b| b == b'\n');
        let (used, done) = newline.map_or((buffer.len(), buffer.is_empty()), |at| (at + 1, true));
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// A member of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A node, which takes traffic.
    Node(Node),
    /// A member with another role.
    Other {
        /// Its name, unchecked.
        name: String,
        /// Its role, unchecked.
        role: String,
    },
}

/// Parses the line of a member that joined or was updated.
///
/// # Errors
/// [`LineError`] if the line is malformed, or if the member has the role of a node but cannot be one.
pub fn parse_present(line: &str, admission: &Admission) -> Result<Line, LineError> {
    let (name, address, its_role, tags) = columns(line)?;
    // Tags typed by hand may also be separated by spaces.
    let by_hand = !line.contains('\t');
    let tags = tags.split(|c: char| c == ',' || (by_hand && c.is_whitespace()));
    // A comma inside a value yields pieces without `=`, which are ignored.
    let tags = tags.filter_map(|tag| tag.split_once('='));
    let other = || Line::Other { name: name.to_owned(), role: its_role.to_owned() };
    Ok(admission.admit(name, address, its_role, tags)?.map_or_else(other, Line::Node))
}

/// Parses the line of a member that is gone; only its name is checked.
///
/// # Errors
/// [`LineError`] if the line is malformed or the name is invalid.
pub fn parse_gone(line: &str) -> Result<NodeName, LineError> {
    Ok(columns(line)?.0.parse()?)
}

/// Splits a line into name, address, role and tags. In Serf's lines an empty role is an empty column between two tabs, so
/// only a line without any tab is split at spaces.
fn columns(line: &str) -> Result<(&str, &str, &str, &str), LineError> {
    if line.contains('\t') {
        let mut columns = line.splitn(4, '\t');
        return match (columns.next(), columns.next(), columns.next()) {
            (Some(name), Some(address), Some(role)) => Ok((name, address, role, columns.next().unwrap_or(""))),
            _ => Err(LineError::Columns),
        };
    }
    let mut rest = line.trim();
    let mut word = || {
        let (word, left) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = left.trim_start();
        word
    };
    let (name, address, role) = (word(), word(), word());
    if role.is_empty() { Err(LineError::Columns) } else { Ok((name, address, role, rest)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(line: &str) -> String {
        match parse_present(line, &Admission::anywhere("backend")) {
            Ok(Line::Node(node)) => node.to_string(),
            Ok(Line::Other { name, role }) => format!("other {name} {role}"),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn a_member_of_the_role_is_a_node() {
        assert_eq!(node("s1\t172.18.0.3\tbackend\trole=backend"), "s1 172.18.0.3");
        assert_eq!(node("s1\t172.18.0.3\tbackend\tweight=50,role=backend,port=8080"), "s1 172.18.0.3 port=8080 weight=50");
        assert_eq!(node("s1\t172.18.0.3\tbackend\t"), "s1 172.18.0.3");
    }

    #[test]
    fn a_line_typed_with_spaces_is_understood() {
        assert_eq!(node("s1 172.18.0.3 backend role=backend,port=8080"), "s1 172.18.0.3 port=8080");
        assert_eq!(node("s1 172.18.0.3 backend"), "s1 172.18.0.3");
    }

    #[test]
    fn other_roles_are_passed_over() {
        assert_eq!(node("ha\t172.18.0.2\tbalancer\trole=balancer"), "other ha balancer");
        assert_eq!(node("x\t172.18.0.9\t\tx=1"), "other x ");
    }

    #[test]
    fn a_tag_cannot_forge_the_role() {
        assert_eq!(node("x\t172.18.0.9\t\tx=1,role=backend"), "other x ");
    }

    #[test]
    fn a_forged_second_value_of_a_tag_refuses_the_member() {
        assert_eq!(node("x\t172.18.0.9\tbackend\tx=1,port=81,port=80"), "refused: 'port' is given twice");
    }

    #[test]
    fn lines_with_too_few_columns_are_refused() {
        for bad in ["s1", "s1 172.18.0.3", "s1\t172.18.0.3"] {
            assert!(node(bad).starts_with("refused: not '<name>"), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_tag_refuses_the_member() {
        for bad in ["port=0", "port=http", "weight=-1", "weight=257", "drain=maybe"] {
            assert!(node(&format!("s1\t172.18.0.3\tbackend\t{bad}")).starts_with("refused: "), "{bad:?}");
        }
    }

    #[test]
    fn a_member_that_left_is_known_by_its_name_alone() {
        assert_eq!(parse_gone("s1\t\tbackend\t").unwrap().as_str(), "s1");
        assert!(parse_gone("../etc\t1.2.3.4\tbackend\t").is_err());
    }

    #[test]
    fn bad_lines_do_not_hide_good_ones() {
        let mut input = b"s1 a\n\xff\n".to_vec();
        input.extend(vec![b'x'; MAX_LINE * 3]);
        input.extend(b"\n\n  \ns2 b\r\ns3 c");
        let mut seen = Vec::new();
        read_lines(&input[..], |number, line| seen.push((number, line.map(str::to_owned)))).unwrap();
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(
            seen,
            [(1, ok("s1 a")), (2, Err(LineError::Encoding)), (3, Err(LineError::TooLong)), (6, ok("s2 b")), (7, ok("s3 c"))]
        );
    }

    #[test]
    fn the_longest_line_is_read_and_one_byte_more_is_refused() {
        for end in ["", "\n"] {
            for (length, expected) in [(MAX_LINE, Ok(MAX_LINE)), (MAX_LINE + 1, Err(LineError::TooLong))] {
                let input = format!("{}{end}s2", "x".repeat(length)).into_bytes();
                let input = if end.is_empty() { &input[..length] } else { &input };
                let mut seen = Vec::new();
                read_lines(input, |_, line| seen.push(line.map(str::len))).unwrap();
                assert_eq!(seen[0], expected, "{length} {end:?}");
                assert_eq!(seen.len(), 1 + end.len(), "{length} {end:?}");
            }
        }
    }

    #[test]
    fn a_long_line_without_an_end_is_refused_once() {
        let mut seen = 0;
        read_lines(&vec![b'x'; MAX_LINE * 2][..], |_, line| {
            assert_eq!(line, Err(LineError::TooLong));
            seen += 1;
        })
        .unwrap();
        assert_eq!(seen, 1);
    }
}
