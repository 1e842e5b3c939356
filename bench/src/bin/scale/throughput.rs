//! Requests a second, in turns: this balancer with few and with many servers, and the minimum of others.
//!
//! All are Debian's of the same release, run in the same container without Docker's filter of system calls, and balance nodes that
//! answer at once. wrk and the nodes share the cores with them. Who does not have the turn is stopped, because the health checks
//! of thousands of servers would slow down the others.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::percentile;
use e2e::docker::try_docker;
use lb_fixture::Background;
use lb_fixture::scripted::ScriptedCluster;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::Options;
use crate::balancer::Balancer;
use crate::changes::cluster;
use crate::processes::Processes;
use crate::stage::{IMAGE, Stage, listens};

/// The image with the other balancers and the load generator.
const WITH_OTHERS: &str = "softengheigvd/bench-scale";
const MINIMAL: &str = include_str!("../../../config/minimal.cfg");
const NGINX: &str = include_str!("../../../config/nginx.conf");
const CADDY: &str = include_str!("../../../config/Caddyfile");
/// The template's health checks, and seldom ones, which show what thousands of servers cost besides them.
const OFTEN: &str = " check inter 1s ";
const SELDOM: &str = " check inter 60s ";
/// Time before what counts of a turn, in seconds.
const CATCH_UP: &str = "4";
/// Number of servers of those that have few.
const FEW: u16 = 10;

/// One that takes turns.
pub struct Side {
    pub name: String,
    port: u16,
    processes: Processes,
    /// Stopped with what it has started, it would keep the container from ending.
    started: Option<Background>,
    /// Requests a second, and requests in the turns that count.
    pub rates: Vec<f64>,
    requests: u64,
    time: Duration,
}

/// Measures all; `most` is the number of servers of the one that has many. Returns them, and the versions that were compared.
pub fn measure(most: u16, options: &Options) -> Result<(Vec<Side>, Vec<String>)> {
    build()?;
    let stage = Stage::start(WITH_OTHERS)?;
    let folder = TempDir::new()?;
    let _answering = stage.start_nodes(folder.path())?;
    let clusters = [FEW, most].map(cluster);
    let [few, many] = clusters.each_ref().map(ScriptedCluster::address);
    let mut ours =
        [Balancer::new(&stage, few, Some(82))?, Balancer::new(&stage, many, Some(83))?, Balancer::new(&stage, many, Some(86))?];
    check_seldom(&ours[2])?;
    for one in &mut ours {
        one.start()?;
        // The others start without its health checks.
        one.haproxy()?.signal(Signal::SIGSTOP)?;
    }
    let cores = std::thread::available_parallelism()?.get();
    let mut sides = vec![
        Side::start(&stage, "minimal HAProxy", (81, 2), "haproxy", &["-W", "-db", "-f", &minimal(folder.path())?])?,
        Side::new(format!("this one, {FEW} servers"), 82, ours[0].haproxy()?, None),
        Side::new(format!("this one, {most} servers"), 83, ours[1].haproxy()?, None),
        Side::new("the same, each checked once a minute".to_owned(), 86, ours[2].haproxy()?, None),
        Side::start(&stage, "nginx", (84, 1 + cores), "nginx", &["-c", &written(folder.path(), "nginx.conf", NGINX)?])?,
        Side::start(&stage, "Caddy", (85, 1), "caddy", &["run", "--config", &written(folder.path(), "Caddyfile", CADDY)?])?,
    ];
    for side in &sides {
        side.processes.signal(Signal::SIGSTOP)?;
    }
    for round in 0..=options.rounds {
        for side in &mut sides {
            side.take(&stage, options.connections, round > 0)?;
        }
    }
    let versions = [("haproxy", "-v"), ("nginx", "-v"), ("caddy", "version"), ("wrk", "-v")];
    let versions = versions.map(|(program, argument)| stage.version(program, argument));
    let versions = versions.into_iter().collect::<Result<_>>()?;
    for side in &mut sides {
        side.started = None;
    }
    Ok((sides, versions))
}

/// Edits the template, so that a server is checked once a minute.
fn check_seldom(balancer: &Balancer) -> Result<()> {
    let template = fs::read_to_string(balancer.world.template())?;
    ensure!(template.contains(OFTEN), "the image's template");
    balancer.world.set_template(&template.replace(OFTEN, SELDOM));
    Ok(())
}

/// Builds the image, unless it is there.
fn build() -> Result<()> {
    let dockerfile = format!(
        "FROM {IMAGE}\nUSER root\nRUN apt-get update && apt-get install -y --no-install-recommends caddy nginx-light wrk && rm -rf \
         /var/lib/apt/lists/*\n"
    );
    eprintln!("==> building {WITH_OTHERS}");
    let built = try_docker(&["build", "--tag", WITH_OTHERS, "-"], &dockerfile);
    ensure!(built.status.success(), "docker build: {}{}", e2e::docker::text(&built.stdout), e2e::docker::text(&built.stderr));
    Ok(())
}

/// The minimal configuration, with as many servers as the others.
fn minimal(folder: &Path) -> Result<String> {
    let (start, _) = MINIMAL.split_once("    server ").context("a minimal configuration with servers")?;
    let servers: Vec<String> = (0..FEW).map(|number| format!("    server s{number} 127.1.0.{number}:3000\n")).collect();
    written(folder, "minimal.cfg", &(start.replace("bind *:80\n", "bind *:81\n") + &servers.concat()))
}

fn written(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

impl Side {
    fn new(name: String, port: u16, processes: Processes, started: Option<Background>) -> Self {
        Self { name, port, processes, started, rates: Vec::new(), requests: 0, time: Duration::ZERO }
    }

    /// Starts a program, which has `count` processes.
    fn start(stage: &Stage, name: &str, (port, count): (u16, usize), program: &str, arguments: &[&str]) -> Result<Self> {
        let started = Background::start(&mut stage.command(program, arguments));
        listens(&format!("127.0.0.1:{port}"), || started.said())?;
        let processes = Processes::of(&started, count)?;
        Ok(Self::new(name.to_owned(), port, processes, Some(started)))
    }

    /// One turn: some seconds to get going, in which thousands of health checks catch up, and one that counts.
    fn take(&mut self, stage: &Stage, connections: u16, counts: bool) -> Result<()> {
        self.processes.signal(Signal::SIGCONT)?;
        self.load(stage, connections, CATCH_UP)?;
        let before = self.processes.time()?;
        let (rate, requests) = self.load(stage, connections, "1")?;
        if counts {
            self.time += self.processes.time()?.saturating_sub(before);
            self.rates.push(rate);
            self.requests += requests;
        }
        self.processes.signal(Signal::SIGSTOP)
    }

    /// Requests a second, and requests, of so many seconds of wrk.
    fn load(&self, stage: &Stage, connections: u16, seconds: &str) -> Result<(f64, u64)> {
        let (connections, url) = (connections.to_string(), format!("http://127.0.0.1:{}/", self.port));
        let output = stage.command("wrk", &["-t", "1", "-c", &connections, "-d", seconds, &url]).output().context("nsenter")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{}: requests failed: {said}", self.name);
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
        let requests = said.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
        rate.zip(requests).with_context(|| format!("wrk says no rate: {said}"))
    }

    /// The median of the ratios to another one within a round.
    pub fn ratio(&self, base: &Self) -> f64 {
        let ratios: Vec<f64> = self.rates.iter().zip(&base.rates).map(|(ours, base)| ours / base).collect();
        percentile(&ratios, 0.5)
    }

    /// Processor time for a request, in microseconds, with the health checks of that time.
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    pub fn cost(&self) -> f64 {
        self.time.as_secs_f64() * 1_000_000.0 / self.requests as f64
    }
}
