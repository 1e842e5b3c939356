//! A balancer: its world, its HAProxy, and `sync-nodes --follow`, all of the image.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_fixture::{Background, World};
use serde_json::Value;

use crate::processes::Processes;
use crate::stage::{START, Stage};
use crate::wait::soon;

/// Time for HAProxy to start, or for thousands of nodes to be published.
const LONG: Duration = Duration::from_secs(120);
/// How often the service `sync` looks without a hint.
const EVERY: &str = "10s";

pub struct Balancer<'a> {
    pub stage: &'a Stage,
    pub world: World,
    /// Address of its agent.
    agent: String,
    running: Option<Background>,
}

/// What the start from nothing takes.
pub struct Started {
    /// `sync-nodes`: the list becomes registry and file.
    pub sync: Duration,
    /// `render-cfg`, which finds the file as it should be.
    pub render: Duration,
    /// HAProxy, until its first answer from a node.
    pub haproxy: Duration,
}

impl<'a> Balancer<'a> {
    /// A balancer without nodes, whose HAProxy is not running. With a port, it takes requests there; otherwise on a socket.
    pub fn new(stage: &'a Stage, agent: &str, port: Option<u16>) -> Result<Self> {
        let balancer = Self { stage, world: World::self_contained(), agent: agent.to_owned(), running: None };
        if let Some(port) = port {
            let template = std::fs::read_to_string(balancer.world.template())?;
            let socket = format!("bind unix@{}", balancer.requests().display());
            ensure!(template.matches(&socket).count() == 1, "the image's template");
            balancer.world.set_template(&template.replace(&socket, &format!("bind *:{port}")));
        }
        Ok(balancer)
    }

    /// Where requests are sent to if there is no port.
    fn requests(&self) -> PathBuf {
        self.world.path("run/port-80.sock")
    }

    /// A command in this world.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.stage.inside(self.world.process("nsenter"), program, arguments);
        command.env("SERF_RPC_ADDR", &self.agent).env("PUBLISH_CAUSE", "start").env("MAX_NODES", "20000");
        command.env("HTTP_LOG", "off");
        command
    }

    /// Runs a tool that has to succeed, and returns how long that takes.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        let output = self.command(&format!("/usr/local/bin/{tool}"), arguments).output().context("nsenter")?;
        let time = start.elapsed();
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        ensure!(output.status.success(), "{tool} {arguments:?}: {}", said());
        Ok(time)
    }

    /// Does what the service `ha` does: the shell becomes HAProxy, so that `render-cfg` can record what it reads.
    pub fn start(&mut self) -> Result<Started> {
        let [synced, rendered] = ["synced", "rendered"].map(|name| self.world.path(name));
        let start = Instant::now();
        let started = Background::start(&mut self.command("/bin/sh", &["-ec", &self.script(&synced, &rendered)]));
        let made = |path: &Path| {
            let there = soon("a step of the start", LONG, || Ok(path.exists().then(|| start.elapsed())));
            there.with_context(|| started.said())
        };
        let (synced, rendered) = (made(&synced)?, made(&rendered)?);
        soon("HAProxy answers", LONG, || Ok(self.is_up().then_some(()))).with_context(|| started.said())?;
        let answered = start.elapsed();
        self.running = Some(started);
        Ok(Started { sync: synced, render: rendered.saturating_sub(synced), haproxy: answered.saturating_sub(rendered) })
    }

    /// The run script of the service `ha`, without its waiting for other members; it makes these files when a step is done.
    fn script(&self, synced: &Path, rendered: &Path) -> String {
        let (master, config) = (self.world.master_socket(), self.world.config());
        let [synced, rendered, master, config] = [synced, rendered, &master, &config].map(|path| path.display().to_string());
        let tools = "PATH=/usr/local/bin:$PATH; sync-nodes --wait 3s";
        format!("{tools}; : >{synced}; render-cfg; : >{rendered}; exec haproxy -W -db -S {master} -f {config}")
    }

    /// Whether a request is answered, by a node if requests come from a socket.
    fn is_up(&self) -> bool {
        let answer = |path: &Path| {
            let request = "GET / HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n";
            exchange(path, request).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        };
        answer(&self.requests()) || (!self.requests().exists() && self.ask("show info").is_ok())
    }

    /// HAProxy's master and worker, which is another one after a reload.
    pub fn haproxy(&self) -> Result<Processes> {
        Processes::of(self.running.as_ref().context("HAProxy is not running")?, 2)
    }

    /// Starts `sync-nodes --follow`.
    pub fn follow(&self) -> Result<(Background, Processes)> {
        let follower = Background::start(&mut self.command("/usr/local/bin/sync-nodes", &["--follow", "--every", EVERY]));
        let processes = Processes::of(&follower, 1)?;
        Ok((follower, processes))
    }

    /// HAProxy's answer to a command.
    pub fn ask(&self, command: &str) -> Result<String> {
        exchange(&self.world.admin_socket(), &format!("{command}\n"))
    }

    /// Number of servers of the running HAProxy that are not in maintenance.
    pub fn servers(&self) -> Result<usize> {
        let state = self.ask("show servers state nodes")?;
        let lines = state.lines().filter(|line| line.split(' ').nth(1) == Some("nodes"));
        let admin = |line: &str| line.split(' ').nth(6).and_then(|state| state.parse::<u32>().ok());
        Ok(lines.filter(|line| admin(line).is_some_and(|state| state & 1 == 0)).count())
    }

    /// Waits until HAProxy has this number of servers.
    pub fn has(&self, count: usize) -> Result<()> {
        soon(&format!("HAProxy has {count} servers"), LONG, || Ok((self.servers()? == count).then_some(())))
    }

    /// The counters of the publishes so far.
    pub fn counted(&self) -> Result<Counted> {
        let text = std::fs::read_to_string(self.world.path("run/stats.json")).context("the tools' counters")?;
        let counters: BTreeMap<String, Value> = serde_json::from_str(&text)?;
        let counter = |name: &str| counters.get(name).and_then(Value::as_u64).with_context(|| format!("{name}: {text}"));
        Ok(Counted { at_run_time: counter("run_time")?, reloads: counter("reload")?, failed: counter("failed")? })
    }
}

/// Counters of publishes.
pub struct Counted {
    pub at_run_time: u64,
    pub reloads: u64,
    pub failed: u64,
}

/// Sends a request to a socket and reads the answer to its end.
fn exchange(socket: &Path, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(START))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
