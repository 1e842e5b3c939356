//! What processes take: processor time and memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lb_fixture::Background;
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::stage::START;
use crate::wait::soon;

/// Some processes of one program, without the `nsenter` that has started it.
#[derive(Debug, Clone)]
pub struct Processes(Vec<u32>);

impl Processes {
    /// Those of a program that `nsenter` has just started, once there are `count`.
    pub fn of(started: &Background, count: usize) -> Result<Self> {
        soon("the program starts", START, || {
            let found = descendants(started.pid());
            Ok((found.len() >= count).then_some(Self(found)))
        })
        .with_context(|| started.said())
    }

    /// Processor time of all threads so far.
    pub fn time(&self) -> Result<Duration> {
        self.0.iter().map(|pid| processor_time(*pid)).sum()
    }

    /// A figure from `/proc/<pid>/status` in kB, the sum of all.
    pub fn kilobytes(&self, key: &str) -> Result<u64> {
        let of = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).context("no such figure")?;
            line.trim().trim_end_matches(" kB").parse::<u64>().with_context(|| line.to_owned())
        };
        self.0.iter().map(of).sum()
    }

    /// Sends a signal to all.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.0.iter().try_for_each(|pid| Ok(kill(Pid::from_raw(i32::try_from(*pid)?), signal)?))
    }
}

fn processor_time(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).context("the process has ended")?;
    Ok(clock_gettime(clock)?.into())
}

/// The children of a process, and theirs, in the order of their start.
fn descendants(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    children.into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}
