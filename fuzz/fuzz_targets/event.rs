//! The lines of an event, as Serf or a person hands them to a handler.
#![no_main]

use std::collections::BTreeMap;
use std::io::BufReader;

use lb_core::members::event::{Line, LineError, parse_gone, parse_present, read_lines};
use lb_fuzz::{GATE, ROLES, check_message, check_name, check_node, check_rendered};
use libfuzzer_sys::fuzz_target;

type Lines = Vec<(usize, Result<String, LineError>)>;

/// All lines, read in pieces of `capacity` bytes.
fn lines(input: &[u8], capacity: usize) -> Lines {
    let mut lines = Lines::new();
    let reader = BufReader::with_capacity(capacity, input);
    read_lines(reader, |number, line| lines.push((number, line.map(str::to_owned)))).expect("memory can be read");
    lines
}

fuzz_target!(|input: &[u8]| {
    let lines = lines(input, 8192);
    assert_eq!(lines, self::lines(input, 7), "how the bytes come in does not matter");
    // The same by other means.
    let texts: Vec<&[u8]> = input.split(|&b| b == b'\n').collect();
    assert!(lines.is_sorted_by(|a, b| a.0 < b.0) && lines.len() <= texts.len());

    let mut nodes = BTreeMap::new();
    for (number, line) in &lines {
        let text = texts[number - 1];
        let Ok(line) = line else {
            assert_eq!(*line == Err(LineError::TooLong), text.len() > 16 * 1024);
            continue;
        };
        assert_eq!(line.as_bytes(), text.strip_suffix(b"\r").unwrap_or(text));
        match parse_present(line, &GATE) {
            Ok(Line::Node(node)) => {
                assert_eq!(parse_gone(line).as_ref(), Ok(&node.name));
                check_node(&node);
                nodes.insert(node.name.clone(), node);
            }
            Ok(Line::Other { role, .. }) => assert!(!ROLES.contains(&role.as_str())),
            Err(error) => check_message(&error),
        }
        match parse_gone(line) {
            Ok(name) => check_name(&name),
            Err(error) => check_message(&error),
        }
    }
    if !nodes.is_empty() {
        check_rendered(&nodes);
    }
});
