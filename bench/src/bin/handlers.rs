//! What it costs to add one node to 10, 100 and 1,000, with the file written and applied to a live HAProxy.
//!
//! Compares, in turns: `/bin/true`, the cost of starting any program; `member-join`; and the lab's way, in bash and
//! Handlebars on Node.js (`bench/lab`), which returns once it has requested the reload, before that is done.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench::{machine, milliseconds, percentile};
use clap::Parser;
use e2e::docker::docker;
use e2e::{Container, eventually};
use tempfile::TempDir;

const TEMPLATE: &str = include_str!("../../../ha/config/haproxy.cfg.hb");
/// Where the images' tools are built.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release");
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/member-join.sh");
const EVENT: &str = "new\t127.0.0.1\tbackend\trole=backend\n";
/// Number of rounds of the others for each round of the lab's way, which takes a hundred times as long.
const SELDOM: u16 = 20;

/// Compare member-join with /bin/true and with the lab's way
#[derive(Parser)]
struct Options {
    /// Number of runs of each
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(SELDOM as i64..))]
    rounds: u16,
    /// Number of nodes to start with
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    nodes: Vec<usize>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    println!("{}; files in a tmpfs; median and 95th percentile of {} runs, in ms", machine(), options.rounds);
    println!();
    println!("| nodes | /bin/true | member-join | in /bin/true | peak memory | the lab's way | in member-join |");
    println!("|---|---|---|---|---|---|---|");
    for nodes in options.nodes {
        let machine = Machine::start(nodes)?;
        println!("{}", machine.compare(options.rounds)?);
    }
    Ok(())
}

/// A HAProxy with its nodes.
struct Machine {
    dir: TempDir,
    _haproxy: Container,
    nodes: usize,
    /// Port at which all nodes answer health checks.
    port: String,
}

impl Machine {
    /// The image's template, with sockets in a separate directory, and one answer for all health checks.
    fn start(nodes: usize) -> Result<Self> {
        // In memory, like everything that the tools write in a container.
        let dir = TempDir::new_in("/dev/shm")?;
        let place = dir.path().display().to_string();
        let port = "3000".to_owned();
        let template = TEMPLATE
            .replace("/run/haproxy/", &format!("{place}/"))
            .replace("ipv4@*:9999", &format!("{place}/port-9999.sock"))
            .replace("bind *:80", &format!("bind unix@{place}/port-80.sock"))
            .replace("bind *:1936", &format!("bind unix@{place}/port-1936.sock"));
        let health = format!("\nlisten health\n    bind 127.0.0.1:{port}\n    option dontlog-normal\n    http-request return\n");
        fs::write(dir.path().join("haproxy.cfg.hb"), template + &health)?;
        fs::create_dir(dir.path().join("nodes"))?;
        for number in 1..=nodes {
            let name = format!("s{number:04}");
            fs::write(dir.path().join("nodes").join(&name), format!("{name} 127.0.0.1\n"))?;
        }
        let tool = |name: &str| tool(dir.path(), &port, name);
        succeed(&mut tool("render-cfg"))?;
        let container = start_haproxy(&place);
        fs::write(dir.path().join("haproxy.pid"), container.inspect("{{.State.Pid}}"))?;
        eventually("HAProxy answers", 20, || {
            UnixStream::connect(dir.path().join("master.sock")).map_err(|error| error.to_string())
        });
        succeed(&mut tool("reload-ha"))?;
        Ok(Self { dir, _haproxy: container, nodes, port })
    }

    fn compare(&self, rounds: u16) -> Result<String> {
        // First: after a reload by the lab's way, member-join would let HAProxy check the file, and its memory would count.
        let memory = self.peak_memory()?;
        let (mut nothing, mut ours, mut lab) = (Vec::new(), Vec::new(), Vec::new());
        // The first round is not counted: the programs are not in memory yet.
        for round in 0..=rounds {
            nothing.push(timed(&mut Command::new("/bin/true"), "")?);
            ours.push(timed(&mut self.tool("member-join"), EVENT)?);
            self.is_known(true)?;
            let _ = timed(&mut self.tool("member-leave"), EVENT)?;
            self.is_known(false)?;
            if round % SELDOM == 0 {
                lab.push(self.by_the_lab()?);
            }
        }
        for times in [&mut nothing, &mut ours, &mut lab] {
            times.remove(0);
        }
        let [nothing_median, ours_median, lab_median] = [&nothing, &ours, &lab].map(|times| percentile(times, 0.5));
        let both =
            |times: &[Duration]| format!("{} / {}", milliseconds(percentile(times, 0.5)), milliseconds(percentile(times, 0.95)));
        let ratio = |of: Duration, to: Duration| format!("{:.1}", of.as_secs_f64() / to.as_secs_f64());
        Ok(format!(
            "| {} | {} | {} | {} × | {memory:.1} MB | {} | {} × |",
            self.nodes,
            both(&nothing),
            both(&ours),
            ratio(ours_median, nothing_median),
            both(&lab),
            ratio(lab_median, ours_median),
        ))
    }

    /// The lab's way, after which HAProxy and its tools are restored.
    fn by_the_lab(&self) -> Result<Duration> {
        let mut command = Command::new(LAB);
        command.env("DIR", self.dir.path()).env("BACKEND_PORT", &self.port).env("NODE_PATH", "/usr/share/nodejs");
        let time = timed(&mut command, EVENT)?;
        let _ = timed(&mut self.tool("member-leave"), EVENT)?;
        self.is_known(false)?;
        Ok(time)
    }

    fn tool(&self, name: &str) -> Command {
        tool(self.dir.path(), &self.port, name)
    }

    /// Ensures that file and process have the new node, or do not.
    fn is_known(&self, there: bool) -> Result<()> {
        let in_file = fs::read_to_string(self.dir.path().join("haproxy.cfg"))?.contains("\n    server new ");
        ensure!(in_file == there, "the file does not follow");
        // A server that left is deleted once its last health check is over.
        eventually("HAProxy follows", 20, || {
            let output = self.tool("reload-ha").output().map_err(|error| error.to_string())?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if said.contains("nothing to do") { Ok(()) } else { Err(said) }
        });
        Ok(())
    }

    /// Peak memory of one run in MB, as reported by GNU time.
    fn peak_memory(&self) -> Result<f64> {
        let file = self.dir.path().join("memory");
        let tool = self.tool("member-join");
        let mut command = Command::new("/usr/bin/time");
        command.args(["-f", "%M", "-o"]).arg(&file).arg(tool.get_program());
        command.envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let _ = timed(&mut command, EVENT)?;
        let _ = timed(&mut self.tool("member-leave"), EVENT)?;
        let kilobytes: f64 = fs::read_to_string(&file)?.trim().parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

/// The image's HAProxy, which sees this machine's processes and the directory `place`, like the tools outside.
fn start_haproxy(place: &str) -> Container {
    let name = format!("e2e-handlers-{}", std::process::id());
    let volume = format!("{place}:{place}");
    let (socket, file) = (format!("{place}/master.sock"), format!("{place}/haproxy.cfg"));
    let options = ["run", "-d", "--name", &name, "--pid", "host", "--network", "none", "--user", "0", "--volume", &volume];
    let haproxy =
        ["--log-driver", "none", "--entrypoint", "haproxy", "softengheigvd/ha", "-W", "-db", "-S", &socket, "-f", &file];
    let _ = docker(&[&options[..], &haproxy].concat());
    Container { name }
}

/// A tool of the images, working on the files and sockets in `dir`.
fn tool(dir: &Path, port: &str, name: &str) -> Command {
    let mut command = Command::new(PathBuf::from(TOOLS).join(name));
    command.env("NODES_DIR", dir.join("nodes")).env("HAPROXY_TEMPLATE", dir.join("haproxy.cfg.hb"));
    command.env("HAPROXY_CFG", dir.join("haproxy.cfg")).env("SERF_LOG", dir.join("serf.log"));
    command.env("HAPROXY_MASTER_SOCKET", dir.join("master.sock")).env("HAPROXY_ADMIN_SOCKET", dir.join("admin.sock"));
    command.env("BACKEND_PORT", port).env("NODE_NETWORKS", "any");
    command
}

/// Runs a tool that has to succeed, and discards its output.
fn succeed(tool: &mut Command) -> Result<()> {
    let output = tool.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The time that a program takes from start to end.
fn timed(command: &mut Command, input: &str) -> Result<Duration> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {}", command.get_program().to_string_lossy()))?;
    // A program does not have to read its input.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait()?;
    let time = start.elapsed();
    ensure!(status.success(), "{} failed: {status}", command.get_program().to_string_lossy());
    Ok(time)
}
