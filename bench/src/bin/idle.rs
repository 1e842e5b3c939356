//! `bench/idle`: what a lab costs in which nothing happens.
//!
//! A balancer and nodes of a lab of its own, without a client. For a minute, each process's processor time is taken from
//! `/proc/<pid>/stat`, with that of the children that it has waited for: a service that ends and starts again is counted
//! at its supervisor. The sum is the control group's: Docker's health checks, which are nobody's children there, are what
//! it has beside the processes.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bench::machine;
use clap::Parser;
use e2e::docker::docker;
use e2e::{Container, Lab, Look};

/// What a lab costs in which nothing happens.
#[derive(Debug, Parser)]
#[command(name = "bench/idle")]
struct Options {
    /// How many nodes the balancer has
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=50))]
    nodes: u32,
    /// How long is measured, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=3600))]
    seconds: u64,
}

/// What is done only at the start is over by then.
const SETTLED: Duration = Duration::from_secs(15);
/// Length of a clock tick in `/proc/<pid>/stat`: on Linux always the same for programs (proc(5), `USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// Share of a core that a container may cost.
const TARGET: f64 = 0.003;

fn main() -> Result<()> {
    let options = Options::parse();
    println!("idle: a balancer and {} nodes, for {} s; {}", options.nodes, options.seconds, machine());
    let lab = Lab::new(Look::Hardened);
    let balancer = lab.balancer("ha");
    let nodes: Vec<Container> = (1..=options.nodes).map(|number| lab.node(&format!("s{number}"))).collect();
    balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 30);
    sleep(SETTLED);

    let containers: Vec<&Container> = [&balancer.container].into_iter().chain(&nodes).collect();
    let look = || containers.iter().map(|container| Looked::at(container)).collect::<Result<Vec<_>>>();
    let began = Instant::now();
    let before = look()?;
    sleep(Duration::from_secs(options.seconds));
    let after = look()?;
    let took = began.elapsed();
    for (container, (before, after)) in containers.iter().zip(before.iter().zip(&after)) {
        print(container.name.trim_start_matches(lab.network()).trim_start_matches('-'), before, after, took);
    }
    Ok(())
}

/// A container at one moment.
struct Looked {
    /// Processor time of everything that ever ran in it.
    all: Duration,
    /// By process id.
    processes: BTreeMap<u32, Process>,
}

struct Process {
    name: String,
    /// Processor time, with that of the children that it has waited for.
    time: Duration,
    /// Resident memory, in kB.
    resident: u64,
}

impl Looked {
    fn at(container: &Container) -> Result<Self> {
        let all = control_group(&container.inspect("{{.State.Pid}}"))?;
        let listed = docker(&["top", &container.name, "-eo", "pid"]);
        let pids = listed.lines().filter_map(|line| line.trim().parse().ok());
        // One that has just ended is passed over.
        let processes = pids.filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
        Ok(Self { all, processes })
    }
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        // The name, in parentheses, may have spaces: utime, stime, cutime and cstime are the 12th to 15th field after it.
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks: u32 = fields.split(' ').skip(11).take(4).filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
        let status = read("status")?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().trim_end_matches(" kB").parse().ok()?;
        let command = read("cmdline")?;
        let mut words = command.split('\0');
        let program = words.next()?.rsplit('/').next()?.to_owned();
        let of_service = words.next().filter(|_| ["s6-supervise", "serf-run", "serf"].contains(&program.as_str()));
        let name = of_service.map_or(program.clone(), |word| format!("{program} {word}"));
        Some(Self { name, time: TICK * ticks, resident })
    }
}

/// The processor time that the control group of this process has had: version 2, or 1.
fn control_group(pid: &str) -> Result<Duration> {
    let path = format!("/proc/{pid}/cgroup");
    let groups = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let group = |controller: &str| {
        let mut groups = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        groups.find(|(controllers, _)| controllers.split(',').any(|one| one == controller)).map(|(_, group)| group)
    };
    let time = if let Some(group) = group("cpuacct") {
        let path = format!("/sys/fs/cgroup/cpuacct{group}/cpuacct.usage");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Duration::from_nanos(text.trim().parse().with_context(|| path)?)
    } else {
        let path = format!("/sys/fs/cgroup{}/cpu.stat", group("").context("no control group")?);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
        Duration::from_micros(usage.parse().with_context(|| path)?)
    };
    Ok(time)
}

fn print(name: &str, before: &Looked, after: &Looked, took: Duration) {
    println!("\n| {name} | ms a minute | % of a core | resident, MB |");
    println!("|---|---|---|---|");
    let row = |name: &str, time: Duration, resident: u64| {
        let share = time.as_secs_f64() / took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let resident = if resident == 0 { String::new() } else { format!("{:.1}", resident as f64 / 1024.0) };
        println!("| {name} | {:.0} | {:.2} | {resident} |", share * 60_000.0, share * 100.0);
        share
    };
    let spent = |pid: &u32, process: &Process| {
        let old = before.processes.get(pid).map_or(Duration::ZERO, |process| process.time);
        process.time.saturating_sub(old)
    };
    let mut rows: Vec<_> = after.processes.iter().map(|(pid, process)| (spent(pid, process), process)).collect();
    rows.sort_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.name.cmp(&right.name)));
    for (time, process) in &rows {
        row(&process.name, *time, process.resident);
    }
    let all = after.all.saturating_sub(before.all);
    let listed = rows.iter().map(|(time, _)| *time).sum();
    row("health checks, and what has ended", all.saturating_sub(listed), 0);
    let share = row("sum", all, rows.iter().map(|(_, process)| process.resident).sum());
    println!("\ntarget: {} %: {}", TARGET * 100.0, if share <= TARGET { "met" } else { "not met" });
}
