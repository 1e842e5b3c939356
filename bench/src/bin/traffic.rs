//! `bench/traffic`: requests per second through the balancer, and what logging them costs.
//!
//! Compares this balancer, with each `HTTP_LOG`, to a minimal HAProxy configuration (`bench/config/minimal.cfg`): the same image,
//! the same two nodes and equal containers, all under load from wrk, with keep-alive, at the container's own address. They take
//! turns of a second, and the result is the median of the ratios within a round, so that other work on the machine slows both
//! sides of a ratio. The CPU time per request depends less on such work.
//!
//! `unsafe` is `off` with a template without `retry-on`, which loses the requests of a killed node: it shows what it costs that
//! HAProxy copies each request to be able to send it again.
//!
//! There are two kinds of nodes, because the slowest part determines the result:
//!
//! - HAProxy itself, answering at once, which measures the balancer. Load generator and nodes run on the same CPUs, so part of
//!   a difference between balancers is hidden even here.
//! - The sample application, which shows what a user of the lab would see. This mostly measures Node.js.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::{machine, percentile, shared_folder};
use clap::Parser;
use e2e::docker::{docker, text};
use e2e::{Balancer, Container, Lab, Look};
use tempfile::TempDir;

/// Measure requests per second through the balancer, and what logging them costs.
#[derive(Debug, Parser)]
#[command(name = "bench/traffic")]
struct Options {
    /// Number of turns of each balancer
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of a turn, in seconds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Number of connections of wrk
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
}

/// Target for the requests per second without request logs, relative to the minimal configuration.
const TARGET: f64 = 0.97;
/// If the quartiles of the ratios are further apart than this, their median means nothing.
const NOISE: f64 = 0.2;
/// Configuration of the minimal balancer and of the nodes that answer at once.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ha/config/haproxy.cfg.hb");
const IMAGE: &str = "softengheigvd/ha";
/// Clock ticks per second in `/proc/<pid>/stat`, which is fixed on Linux (proc(5), `USER_HZ`).
const TICKS: f64 = 100.0;

fn main() -> Result<()> {
    let options = Options::parse();
    println!(
        "traffic: {} rounds, {} s each, {} connections; {}",
        options.rounds,
        options.seconds,
        options.connections,
        machine()
    );
    let ratios = compare("nodes that answer at once", &options, instant_node)?;
    compare("nodes that are the sample application", &options, |lab, name| lab.node(name))?;
    let (ratio, spread) = (median(&ratios), percentile(&ratios, 0.75) - percentile(&ratios, 0.25));
    let verdict = if spread > NOISE {
        "not to be told: the rounds differ too much, other work is on this machine"
    } else if ratio >= TARGET {
        "met"
    } else {
        "not met"
    };
    println!("\ntarget: HTTP_LOG=off at {TARGET} of minimal, with nodes that answer at once: {ratio:.3}, {verdict}");
    Ok(())
}

/// Measures all balancers in front of two nodes and prints the table. Returns the ratios for `HTTP_LOG=off`.
fn compare(kind: &str, options: &Options, node: impl Fn(&Lab, &str) -> Container) -> Result<Vec<f64>> {
    let lab = Lab::new(Look::Plain);
    let nodes = [node(&lab, "s1"), node(&lab, "s2")];
    let mut turns = vec![Turns::new("minimal", minimal(&lab, &nodes), false)];
    let folder = unsafe_template()?;
    let volume = format!("{}:/config:ro", folder.path().display());
    for (name, log, options) in
        [("off", "off", &[][..]), ("errors", "errors", &[]), ("all", "all", &[]), ("unsafe", "off", &["-v", &volume])]
    {
        let balancer = lab.balancer_with(name, &[&["-e", &format!("HTTP_LOG={log}")], options].concat());
        let _ = balancer.settled_worker(&nodes.each_ref());
        turns.push(Turns::new(name, balancer, true));
    }
    for one in &mut turns {
        one.take(options)?; // the first requests open the connections
        one.done.clear();
    }
    for _ in 0..options.rounds {
        for one in &mut turns {
            one.take(options)?;
        }
    }
    println!("\n{kind}:\n");
    println!("| HTTP_LOG | requests/s | of minimal | quartiles | processor µs a request | and Docker's | not logged |");
    println!("|---|---|---|---|---|---|---|");
    for one in &turns {
        println!("{}", one.row(&turns[0]));
    }
    Ok(turns[1].ratios(&turns[0]))
}

/// A directory with the image's template without `retry-on`.
fn unsafe_template() -> Result<TempDir> {
    let template = fs::read_to_string(TEMPLATE).with_context(|| format!("read {TEMPLATE}"))?;
    let kept: Vec<&str> = template.lines().filter(|line| !line.contains("retry-on") && !line.contains("l7-retry")).collect();
    ensure!(kept.len() + 2 == template.lines().count(), "{TEMPLATE} has other retries");
    let folder = shared_folder()?;
    fs::write(folder.path().join("haproxy.cfg.hb"), kept.join("\n") + "\n")?;
    Ok(folder)
}

/// A node that is HAProxy itself, and a member of the cluster like any other.
fn instant_node(lab: &Lab, name: &str) -> Container {
    let volume = format!("{CONFIG}/instant:/config:ro");
    let environment = ["-e", "ROLE=backend", "-e", "BACKEND_ROLE=none", "-e", "SERF_READY=http://127.0.0.1:3000/"];
    start(lab, name, &[&["-v", &volume], &environment[..], &[IMAGE]].concat())
}

fn minimal(lab: &Lab, nodes: &[Container; 2]) -> Balancer {
    let volume = format!("{CONFIG}:/config:ro");
    let [s1, s2] = nodes.each_ref().map(Container::address);
    let (s1, s2) = (format!("S1={s1}"), format!("S2={s2}"));
    let options = ["-v", &volume, "-e", &s1, "-e", &s2, "--entrypoint", "haproxy"];
    let command = [IMAGE, "-W", "-db", "-f", "/config/minimal.cfg"];
    Balancer { container: start(lab, "minimal", &[&options[..], &command].concat()) }
}

/// Starts a container like the lab does, with a command.
fn start(lab: &Lab, name: &str, arguments: &[&str]) -> Container {
    let name = format!("{}-{name}", lab.network());
    let _ = docker(&[&["run", "-d", "--network", lab.network(), "--name", &name], arguments].concat());
    Container { name }
}

/// One balancer and the results of its turns.
struct Turns {
    name: &'static str,
    balancer: Balancer,
    url: String,
    /// Whether it writes request logs that may be lost.
    logs: bool,
    done: Vec<Turn>,
}

/// The result of one turn.
struct Turn {
    rate: f64,
    requests: u64,
    /// CPU time of the balancer's container.
    container: Duration,
    /// CPU time of Docker for all containers.
    docker: Duration,
    /// Requests that HAProxy could not log because its output was full.
    unlogged: u64,
}

impl Turns {
    fn new(name: &'static str, balancer: Balancer, logs: bool) -> Self {
        let url = format!("http://{}/", balancer.address());
        Self { name, balancer, url, logs, done: Vec::new() }
    }

    /// One turn of wrk.
    fn take(&mut self, options: &Options) -> Result<()> {
        let top = docker(&["top", &self.balancer.name, "-eo", "pid"]);
        let container: Vec<String> = top.lines().skip(1).map(|pid| pid.trim().to_owned()).collect();
        let engine = engine()?;
        let before = (processor_time(&container), processor_time(&engine), self.unlogged()?);
        let output = Command::new("wrk")
            .args(["-t", "1", "-c", &options.connections.to_string(), "-d", &options.seconds.to_string(), &self.url])
            .output()
            .context("wrk")?;
        let said = text(&output.stdout);
        ensure!(output.status.success(), "wrk: {}", text(&output.stderr));
        ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{}: requests failed: {said}", self.name);
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
        self.done.push(Turn {
            rate: rate.with_context(|| format!("wrk says no rate: {said}"))?,
            requests: requests.with_context(|| format!("wrk says no number of requests: {said}"))?,
            container: processor_time(&container).saturating_sub(before.0),
            docker: processor_time(&engine).saturating_sub(before.1),
            unlogged: self.unlogged()?.saturating_sub(before.2),
        });
        Ok(())
    }

    /// Number of log lines dropped by the running HAProxy.
    fn unlogged(&self) -> Result<u64> {
        if !self.logs {
            return Ok(0);
        }
        let info = self.balancer.statistics("show info").map_err(anyhow::Error::msg)?;
        let dropped = info.lines().find_map(|line| line.strip_prefix("DroppedLogs: "));
        dropped.and_then(|count| count.parse().ok()).context("no DroppedLogs in `show info`")
    }

    /// Ratios of the requests per second to those of `base` in the same round.
    fn ratios(&self, base: &Self) -> Vec<f64> {
        self.done.iter().zip(&base.done).map(|(ours, base)| ours.rate / base.rate).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    fn row(&self, base: &Self) -> String {
        let ratios = self.ratios(base);
        let requests = self.done.iter().map(|turn| turn.requests).sum::<u64>() as f64;
        let each =
            |time: fn(&Turn) -> Duration| self.done.iter().map(time).sum::<Duration>().as_secs_f64() * 1_000_000.0 / requests;
        let unlogged = self.done.iter().map(|turn| turn.unlogged).sum::<u64>() as f64;
        format!(
            "| {} | {:.0} | {:.3} | {:.3} to {:.3} | {:.1} | {:.1} | {:.2} % |",
            self.name,
            median(&self.done.iter().map(|turn| turn.rate).collect::<Vec<_>>()),
            median(&ratios),
            percentile(&ratios, 0.25),
            percentile(&ratios, 0.75),
            each(|turn| turn.container),
            each(|turn| turn.docker),
            100.0 * unlogged / requests
        )
    }
}

/// The processes through which a container's output goes.
fn engine() -> Result<Vec<String>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let path = entry.context("read /proc")?.path();
        // A process that has just ended has no name.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if ["dockerd", "containerd-shim"].contains(&name.trim()) {
            pids.extend(path.file_name().and_then(|pid| pid.to_str()).map(str::to_owned));
        }
    }
    Ok(pids)
}

/// Total CPU time of these processes, user and system (proc(5): fields 14 and 15).
fn processor_time(pids: &[String]) -> Duration {
    let ticks = |pid: &String| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, in parentheses, may contain spaces.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?)
    };
    Duration::from_secs_f64(f64::from(pids.iter().filter_map(ticks).sum::<u32>()) / TICKS)
}

fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}
