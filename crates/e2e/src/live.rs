//! The image's tools on this machine, in a world in which the image's HAProxy is running.
//!
//! This way a test can stop a tool anywhere, run fifty of them at once, and inspect everything they touch, with the HAProxy that
//! they are made for. If this machine has another HAProxy, that is only used to check files.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use assert_cmd::Command;
use lb_fixture::inject::Injection;
use lb_fixture::{TEMPLATE, World};

use crate::container::Container;
use crate::docker::docker;
use crate::wait::{eventually, same};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The desired content of registry, file and process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State<'a> {
    /// The registry's lines, sorted by name.
    pub nodes: &'a [&'a str],
    /// A word in the template that can be read back from the running HAProxy; changing it takes a reload.
    pub revision: &'a str,
}

/// A world in which HAProxy is running.
#[derive(Debug)]
pub struct Live {
    // Dropped first, because it uses the world's files.
    container: Container,
    /// Its files.
    pub world: World,
}

impl Live {
    /// Starts HAProxy in a world with this state.
    ///
    /// The tools come from the image. The variable `E2E_TOOLS` can name a directory with other ones, which must be static like
    /// those of the image: a dynamic one makes system calls before it starts.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(state: &State<'_>) -> Self {
        let world = World::new();
        let name = format!("e2e-{}-live-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = world.path("");
        let mount = format!("{0}:{0}", root.display());
        let (socket, config) = (world.master_socket(), world.config());
        let (socket, config) = (socket.display().to_string(), config.display().to_string());
        // A worker is identified by its process ID, so the tools must see the same IDs as the master.
        let here = ["create", "--name", &name, "--pid", "host", "--network", "none", "--user", "0", "-v", &mount];
        let run = ["--entrypoint", "haproxy", "softengheigvd/ha", "-W", "-db", "-S", &socket, "-f", &config];
        let _ = docker(&[&here[..], &run[..]].concat());
        let container = Container { name };
        if env::var_os("E2E_TOOLS").is_none() {
            let tools = world.path("bin");
            let _ = docker(&["cp", &format!("{}:/usr/local/bin", container.name), &tools.display().to_string()]);
        }
        let live = Self { container, world };
        live.set(state);
        live.container.start();
        eventually("HAProxy runs", 20, || same(&live.revision()?, &state.revision.to_owned()));
        // From here on, there is a record of what it is running.
        live.run("reload-ha");
        live
    }

    /// Path of a tool.
    #[must_use]
    pub fn tool(&self, name: &str) -> String {
        let folder = env::var_os("E2E_TOOLS").map_or_else(|| self.world.path("bin"), Into::into);
        folder.join(name).display().to_string()
    }

    /// One run of a tool.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        self.world.command(&self.tool(name))
    }

    /// One run of a tool under `strace`, with a fault or without.
    #[must_use]
    pub fn traced(&self, name: &str, fault: Option<&Injection>) -> Command {
        self.world.traced(&self.tool(name), fault)
    }

    /// The same for a process in the background.
    #[must_use]
    pub fn tracer(&self, name: &str, fault: &Injection) -> process::Command {
        self.world.tracer(&self.tool(name), Some(fault))
    }

    /// Makes registry, file and process match `state`.
    ///
    /// # Panics
    /// If that fails.
    pub fn set(&self, state: &State<'_>) {
        self.set_template(state.revision);
        self.command("sync-nodes").args(["--from", "-"]).write_stdin(member_list(state.nodes)).assert().success();
    }

    /// Writes the image's template with the paths of this world and this word, if it differs.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn set_template(&self, revision: &str) {
        let socket = |name: &str| format!("unix@{}", self.world.path("run").join(name).display());
        let template = TEMPLATE
            .replace("/run/haproxy/admin.sock", &self.world.admin_socket().display().to_string())
            .replace("ipv4@*:9999", &socket("user.sock"))
            .replace("bind *:80", &format!("bind {}", socket("http.sock")))
            .replace("bind *:1936", &format!("bind {}", socket("stats.sock")))
            .replacen("global\n", &format!("global\n    description {revision}\n"), 1);
        assert_eq!(template.matches(&self.world.path("run").display().to_string()).count(), 4, "the image's template");
        if fs::read_to_string(self.world.template()).unwrap() != template {
            self.world.set_template(&template);
        }
    }

    /// The servers of the running HAProxy that get requests, as `<name> <address>:<port> <weight>`.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn servers(&self) -> Result<BTreeSet<String>, String> {
        let answer = self.ask("@1 show servers state nodes")?;
        let server = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let in_maintenance = words[6].parse::<u32>().unwrap() & 0x01 != 0;
            (!in_maintenance).then(|| format!("{} {}:{} {}", words[3], words[4], words[18], words[7]))
        };
        // During a reload, the master answers instead of the worker.
        let (_, lines) = answer.split_once("\n# be_id ").ok_or_else(|| format!("no servers: {answer}"))?;
        Ok(lines.lines().skip(1).filter(|line| !line.is_empty()).filter_map(server).collect())
    }

    /// The word in the template that the running HAProxy was started with.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn revision(&self) -> Result<String, String> {
        let info = self.ask("@1 show info")?;
        let line = info.lines().find_map(|line| line.strip_prefix("description: "));
        line.map(str::to_owned).ok_or_else(|| format!("no description: {info}"))
    }

    /// Checks that the registry matches `state`.
    ///
    /// # Errors
    /// What differs.
    pub fn registry_is(&self, state: &State<'_>) -> Result<(), String> {
        same(&self.world.nodes(), &state.nodes.iter().map(|&node| node.to_owned()).collect())
            .map_err(|text| format!("registry: {text}"))
    }

    /// Checks that the file matches `state`.
    ///
    /// # Errors
    /// What differs.
    pub fn file_is(&self, state: &State<'_>) -> Result<(), String> {
        let servers = self.world.servers();
        let short = |line: &String| {
            let words: Vec<&str> = line.split(' ').collect();
            format!("{} {} {}", words[1], words[2], words[4])
        };
        same(&servers.iter().map(short).collect(), &expected(state)).map_err(|text| format!("file: {text}"))?;
        let revision = format!("\n    description {}\n", state.revision);
        if self.world.text().contains(&revision) { Ok(()) } else { Err(format!("file: not of revision {}", state.revision)) }
    }

    /// Checks that the process matches `state`.
    ///
    /// # Errors
    /// What differs.
    pub fn process_is(&self, state: &State<'_>) -> Result<(), String> {
        same(&self.servers()?, &expected(state)).map_err(|text| format!("process: {text}"))?;
        same(&self.revision()?, &state.revision.to_owned()).map_err(|text| format!("process: {text}"))
    }

    /// Checks that registry, file and process match `state`.
    ///
    /// # Errors
    /// What differs.
    pub fn is(&self, state: &State<'_>) -> Result<(), String> {
        self.registry_is(state).and_then(|()| self.file_is(state)).and_then(|()| self.process_is(state))
    }

    /// Temporary files in the directories that the tools write to.
    #[must_use]
    pub fn temporary_files(&self) -> Vec<String> {
        let folders = ["nodes", "haproxy", "run"].map(|name| self.world.path(name));
        let left = folders.map(|folder| folder.join(".new")).into_iter().filter(|path| path.symlink_metadata().is_ok());
        left.map(|path| path.display().to_string()).collect()
    }

    /// Runs a tool that has to succeed.
    fn run(&self, name: &str) {
        self.command(name).assert().success();
    }

    fn ask(&self, command: &str) -> Result<String, String> {
        ask(&self.world.master_socket(), command).map_err(|error| format!("master socket: {error}"))
    }
}

fn ask(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The servers of a state, in the format of [`Live::servers`].
fn expected(state: &State<'_>) -> BTreeSet<String> {
    let server = |node: &&str| {
        let mut words = node.split(' ');
        let (name, address) = (words.next().unwrap(), words.next().unwrap());
        let tag = |name: &str| node.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        format!("{name} {address}:{} {}", tag("port").unwrap_or("3000"), tag("weight").unwrap_or("100"))
    };
    state.nodes.iter().map(server).collect()
}

/// The member list in which these nodes are alive, as `serf members -format=json` prints it.
#[must_use]
pub fn member_list(nodes: &[&str]) -> String {
    let member = |node: &&str| {
        let mut words = node.split(' ');
        let (name, address) = (words.next().unwrap(), words.next().unwrap());
        let tags = words.filter_map(|tag| tag.split_once('='));
        let mut tags: serde_json::Map<_, _> = tags.map(|(key, value)| (key.to_owned(), value.into())).collect();
        tags.insert("role".to_owned(), "backend".into());
        serde_json::json!({ "name": name, "addr": format!("{address}:7946"), "tags": tags, "status": "alive" })
    };
    let balancer =
        serde_json::json!({ "name": "ha", "addr": "127.0.0.1:7946", "tags": { "role": "balancer" }, "status": "alive" });
    let members: Vec<_> = nodes.iter().map(member).chain([balancer]).collect();
    serde_json::json!({ "members": members }).to_string()
}
