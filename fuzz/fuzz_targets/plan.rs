//! The difference of two files: what is done at run time must end where a fresh start from the second would.
//!
//! The input is a row of files between lines `--`. A line that begins with `!` is a command that somebody gives by hand
//! while the file before it runs; `+ <server>` and `- <server>` say that a server has connections, or none.
#![no_main]

use std::collections::BTreeMap;

use lb_core::config::Config;
use lb_core::haproxy::plan::{Plan, plan};
use lb_core::haproxy::last_applied::LastApplied;
use lb_fuzz::model::Process;
use libfuzzer_sys::fuzz_target;

/// Splits a file from what happens while it runs.
fn split(part: &str) -> (String, Vec<&str>) {
    let is_event = |line: &&str| ["!", "+ ", "- "].iter().any(|sign| line.starts_with(sign));
    let (events, lines): (Vec<_>, Vec<_>) = part.split('\n').partition(is_event);
    (lines.join("\n"), events)
}

/// Whether all that somebody does by hand can be seen: what a line takes from `default-server`, and the address of a
/// name, cannot.
fn can_be_repaired(text: &str) -> bool {
    let config = Config::parse(text);
    config.irregular.is_none() && config.with_defaults.is_empty() && !text.contains("localhost")
}

/// No text is a reason to panic, and a command is one line.
fn check_any(known: &str, wanted: &str) {
    let record = LastApplied { text: known.to_owned(), ..LastApplied::default() };
    if let Plan::Commands(commands) = plan(wanted, Some(&record), &BTreeMap::new()) {
        assert!(commands.iter().all(|command| !command.to_string().contains(['\n', ';'])), "{commands:?}");
    }
}

fuzz_target!(|input: &str| {
    let parts: Vec<_> = input.split("\n--\n").map(split).collect();
    for pair in parts.windows(2) {
        check_any(&pair[0].0, &pair[1].0);
    }
    let Some(mut process) = Process::start(&parts[0].0) else { return };
    for (text, events) in &parts {
        if process.publish(text).is_none() {
            return;
        }
        let before = process.haproxy.clone();
        process.publish(text);
        assert_eq!(process.haproxy, before, "once is enough");

        let by_hand = can_be_repaired(text);
        for event in events {
            match event.split_at(1) {
                ("+", server) => process.haproxy.set_busy(server.trim(), true),
                ("-", server) => process.haproxy.set_busy(server.trim(), false),
                (_, command) if by_hand => drop(process.haproxy.command(command.trim())),
                _ => {}
            }
        }
    }
});
