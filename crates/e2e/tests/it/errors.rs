//! A system that refuses a tool at any step: a full disk, a broken one, a read-only one, no more files, processes or
//! rights. The tool ends in time, says why, leaves files wholly old or wholly new, and the next run ends where it should.
//!
//! As in `crash.rs`, the steps are found by `strace`: each call of a kind fails once, until one run meets no more of them.

use std::collections::BTreeMap;

use crate::scenario::{Run, SCENARIOS, Scenario, Stage};
use lb_fixture::inject::Fault::{self, FromThenOn, Once};
use lb_fixture::inject::Injection;

/// What can happen to which call. A state that lasts fails all later calls of the kind too.
const FAULTS: [(&str, &[Fault]); 18] = [
    ("openat", &[FromThenOn("ENOSPC"), FromThenOn("EMFILE"), Once("EACCES"), Once("EIO")]),
    ("write", &[FromThenOn("ENOSPC"), Once("EIO")]),
    ("rename", &[FromThenOn("ENOSPC"), FromThenOn("EROFS"), Once("EIO")]),
    ("unlink", &[FromThenOn("EROFS"), Once("EACCES")]),
    ("fchmod", &[FromThenOn("EROFS"), Once("EIO")]),
    ("flock", &[Once("ENOLCK"), FromThenOn("EIO")]),
    // Any other error of this one the standard library takes for a mistake of the program, and ends it.
    ("close", &[Once("EINTR")]),
    ("read", &[Once("EIO"), Once("EINTR")]),
    ("getdents64", &[Once("EIO")]),
    ("socket", &[FromThenOn("EMFILE")]),
    ("setsockopt", &[Once("ENOMEM")]),
    ("connect", &[Once("EACCES"), Once("EAGAIN")]),
    ("sendto", &[Once("EPIPE"), Once("EIO")]),
    ("recvfrom", &[Once("ECONNRESET"), Once("EIO")]),
    ("shutdown", &[Once("ENOTCONN")]),
    ("memfd_create", &[FromThenOn("EMFILE")]),
    ("pipe2", &[FromThenOn("EMFILE")]),
    ("clone3", &[FromThenOn("EAGAIN")]),
];

/// A tool knows no other way to end than an exit code of its own, and a line that says why.
fn ends_well(tool: &str, run: &Run) -> Result<i32, String> {
    let code = run.code.ok_or_else(|| format!("ended by signal {:?}: {}", run.signal, run.said))?;
    let is_told = run.said.lines().all(|line| line.starts_with(&format!("{tool}: "))) && (code == 0 || !run.said.is_empty());
    // What cannot be written to standard error is lost.
    if [0, 1, 65].contains(&code) && (is_told || run.is_mute) { Ok(code) } else { Err(format!("exit code {code}: {}", run.said)) }
}

/// Lets each step fail, and returns how often that was met, by call and by exit code.
fn fail_everywhere(scenario: &'static Scenario) -> (BTreeMap<&'static str, usize>, BTreeMap<i32, usize>) {
    let stage = Stage::new(scenario);
    let calls = stage.calls();
    let (mut met, mut codes, mut failures) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (call, faults) in FAULTS.iter().filter(|(call, _)| calls.contains(*call)) {
        for &fault in *faults {
            for at in 1.. {
                assert!(at < 1000, "{call} without end");
                let injection = Injection { call: (*call).to_owned(), at, fault };
                let run = stage.run_with(&injection);
                if !run.hit {
                    assert_eq!(run.code, Some(0), "{injection}: {}", run.said);
                    break;
                }
                let end = ends_well(stage.tool(), &run).map(|code| *codes.entry(code).or_default() += 1);
                let failure = end.and_then(|()| stage.recovers());
                failures.extend(failure.err().map(|text| format!("{injection}: {text}")));
                *met.entry(*call).or_default() += 1;
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    (met, codes)
}

fn assert_survives(name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let (met, codes) = fail_everywhere(scenario);
    println!("{name}: {} faults: {met:?}; exit codes {codes:?}", met.values().sum::<usize>());
    for call in ["openat", "close", "read", "write", "rename"] {
        assert!(met.contains_key(call), "{name}: {call} never failed: {met:?}");
    }
    assert!(codes.contains_key(&0) && codes.contains_key(&1), "{name}: {codes:?}");
}

crate::scenario::tests_by!(assert_survives);
