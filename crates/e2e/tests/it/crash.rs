//! A tool that is killed at any moment: files are wholly old or wholly new, and the next run ends where it should.
//!
//! The moments are found, not chosen: a run is watched by `strace` for the system calls that it makes, and then killed
//! before the first of a kind, the second, and so on until one run ends by itself.

use std::collections::BTreeMap;

use crate::scenario::{SCENARIOS, Scenario, Stage};
use lb_fixture::inject::{Fault, Injection};

/// Kinds of calls before which every tool is killed at least once.
const KINDS: [&str; 8] = ["close", "connect", "flock", "openat", "read", "recvfrom", "sendto", "write"];
/// The same for those that replace files.
const WRITING: [&str; 3] = ["fchmod", "rename", "unlink"];

/// These touch the process's own memory, threads and signals alone, or wait.
fn is_private(call: &str) -> bool {
    let of_memory = ["brk", "mmap", "munmap", "mprotect", "madvise", "futex", "getrandom"];
    let of_the_process = ["arch_prctl", "execve", "gettid", "prlimit64", "rseq", "sched_getaffinity", "sigaltstack"];
    let of_time = ["clock_nanosleep", "restart_syscall"];
    of_memory.contains(&call)
        || of_time.contains(&call)
        || of_the_process.contains(&call)
        || call.starts_with("rt_sig")
        || call.starts_with("set_")
}

/// Kills the tool at each of its steps, and returns how often, by the call.
fn kill_everywhere(scenario: &'static Scenario) -> BTreeMap<String, usize> {
    let stage = Stage::new(scenario);
    let calls: Vec<String> = stage.calls().into_iter().filter(|call| !is_private(call)).collect();
    let (mut killed, mut failures) = (BTreeMap::new(), Vec::new());
    for call in calls {
        for at in 1.. {
            assert!(at < 1000, "{call} without end");
            let injection = Injection { call: call.clone(), at, fault: Fault::Kill };
            let run = stage.run_with(&injection);
            if !run.hit {
                assert_eq!(run.code, Some(0), "{injection}: {}", run.said);
                break;
            }
            failures.extend(stage.recovers().err().map(|text| format!("{injection}: {text}")));
            killed.insert(call.clone(), at);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    killed
}

fn assert_survives(name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let killed = kill_everywhere(scenario);
    println!("{name}: killed at {} points: {killed:?}", killed.values().sum::<usize>());
    let writing = WRITING.iter().filter(|_| scenario.writes);
    for kind in KINDS.iter().filter(|kind| scenario.talks || !["connect", "sendto", "recvfrom"].contains(kind)).chain(writing) {
        // On a socket the standard library of Rust 1.85 writes where a newer one sends.
        let hit = killed.contains_key(*kind) || *kind == "sendto" && killed.contains_key("write");
        assert!(hit, "{name} was never killed at {kind}: {killed:?}");
    }
}

crate::scenario::tests_by!(assert_survives);
