//! Where everything runs: a container without a network, whose loopback has all nodes.
//!
//! Programs are started by `nsenter`, in the files, the network and the process numbers of the container, because `docker exec`
//! takes longer than what is measured. The container lives as long as the pipe to its first process. However the benchmark
//! ends, that closes, and nothing is left behind.

use std::env;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::Container;
use e2e::docker::try_docker;
use lb_fixture::Background;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, setrlimit};

use crate::wait::soon;

/// How many processes are the nodes. The kernel spreads connections over them. One would not have enough files for balancers
/// that keep a connection to each of ten thousand nodes, besides those of their health checks.
const LISTENERS: usize = 4;
/// The nodes: they answer at once.
const ANSWER: &str = include_str!("../../../config/answer.cfg");
/// What is compared is in this one.
pub const IMAGE: &str = "softengheigvd/ha";
/// Time for a program to start.
pub const START: Duration = Duration::from_secs(30);
static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Stage {
    docker: Child,
    /// Its first process, as this machine numbers it.
    pid: String,
    _container: Container,
}

impl Stage {
    /// Starts the container. This thread, and those that it starts from now on, are in its network, which has only loopback.
    pub fn start(image: &str) -> Result<Self> {
        let name = format!("e2e-{}-scale-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // The worlds are in this directory.
        let mount = format!("{0}:{0}", env::temp_dir().display());
        let options = ["--network", "none", "--no-healthcheck", "--user", "0", "--volume", &mount, "--entrypoint", "cat"];
        // As for the container tests, the variable can name a directory with other tools.
        let tools = env::var("E2E_TOOLS").map(|tools| format!("{tools}:/usr/local/bin:ro"));
        let tools = tools.iter().flat_map(|mount| ["--volume", mount]);
        let docker = Command::new("docker")
            .args(["run", "--rm", "--interactive", "--name", &name])
            .args(options)
            .args(tools)
            .arg(image)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("docker")?;
        let container = Container { name };
        let pid = soon("the container runs", START, || {
            let looked = try_docker(&["inspect", "--format", "{{.State.Pid}}", &container.name], "");
            let pid = String::from_utf8_lossy(&looked.stdout).trim().to_owned();
            Ok((looked.status.success() && pid != "0").then_some(pid))
        })?;
        let stage = Self { docker, pid, _container: container };
        stage.enter()?;
        Ok(stage)
    }

    fn enter(&self) -> Result<()> {
        let network = File::open(format!("/proc/{}/ns/net", self.pid)).context("the container's network")?;
        setns(network, CloneFlags::CLONE_NEWNET).context("only root may enter the container")?;
        // What is started here has as many files as in a container; HAProxy sizes its tables by that.
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid)).context("the container's limits")?;
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of files")?;
        let mut limits = files.split_whitespace().map(|limit| limit.parse().unwrap_or(u64::MAX));
        let (soft, hard) = limits.next().zip(limits.next()).context("no limit of files")?;
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).context("set the limit of files")
    }

    /// Makes a command run in the container: `command` is one of a world, and runs `nsenter`.
    pub fn inside<S: AsRef<std::ffi::OsStr>>(&self, mut command: Command, program: &str, arguments: &[S]) -> Command {
        command.args(["-t", &self.pid, "-m", "-n", "-p", "--", program]).args(arguments);
        command
    }

    /// A command in the container, without a world.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, program: &str, arguments: &[S]) -> Command {
        self.inside(Command::new("nsenter"), program, arguments)
    }

    /// Starts the nodes, at all addresses of loopback.
    pub fn start_nodes(&self, folder: &Path) -> Result<Vec<Background>> {
        let config = folder.join("answer.cfg");
        fs::write(&config, ANSWER)?;
        let start = |_| Background::start(&mut self.command("haproxy", &["-db".as_ref(), "-f".as_ref(), config.as_os_str()]));
        let nodes: Vec<Background> = (0..LISTENERS).map(start).collect();
        listens("127.1.0.0:3000", || nodes.iter().map(Background::said).collect())?;
        Ok(nodes)
    }

    /// What a program says about its version, in one line.
    pub fn version(&self, program: &str, argument: &str) -> Result<String> {
        let output = self.command(program, &[argument]).output().context("nsenter")?;
        ensure!(output.status.success() || !output.stdout.is_empty(), "{program}: {output:?}");
        // nginx says it on standard error.
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.docker.stdin.take());
        let _ = self.docker.wait();
    }
}

/// Waits until somebody listens at this address.
pub fn listens(address: &str, said: impl Fn() -> String) -> Result<()> {
    let looked = soon(&format!("{address} listens"), START, || Ok(TcpStream::connect(address).ok()));
    looked.map(drop).with_context(said)
}
