//! `serf-run`: starts the Serf agent once the application next to it answers.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use lb_core::members::agent::PASSWORD_FILE;
use lb_core::os::atomic_file::replace;
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

mod advertise;
mod agent;
mod join;
mod name;
mod ready;
mod seek;

use advertise::Advertise;
use agent::{Agent, FILE};
use ready::Ready;

/// Docker's secret with the key.
const SECRET: &str = "/run/secrets/serf_encrypt_key";
/// The key that the images were built with.
const IMAGE_KEY: &str = "/etc/serf/encrypt_key";

/// How long the agent lists members that have failed or left; with Serf's own day they pile up. It is long enough to see what
/// became of a node, and not less than the 5 min for which Serf remembers a leave. Members that come back later are found by
/// the names of `--join`.
const FORGET_AFTER: &str = "10m";

const EXAMPLES: &str = "  serf-run                                          # in a run script, with the environment of the image
  serf-run --role balancer --ready none
  serf-run --role backend --tag weight=50 --ready http://127.0.0.1:8080/health
  serf-run join                                     # in the run script of the service join
  serf-run join --once 3s                           # in that of the service ha
  docker exec s1 serf-run check-ready";

/// Start the Serf agent once the application next to it answers.
///
/// Waits until the URL of --ready answers with 2xx, so that no request is sent to a node that is not ready; writes the
/// agent's configuration, readable only by its user; then becomes the agent. The gossip key (32 bytes in base64, as
/// serf keygen prints) is taken from --encrypt-key-file, else from the Docker secret /run/secrets/serf_encrypt_key, else
/// from the environment variable SERF_ENCRYPT_KEY, else from the image, /etc/serf/encrypt_key; never from the command line.
#[derive(Debug, Parser)]
#[command(name = "serf-run", version, after_help = after_help(EXAMPLES))]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct SerfRun {
    #[command(subcommand)]
    command: Option<Command>,
    /// Role of this container: backend or balancer
    #[arg(long, env = "ROLE", default_value = "backend", value_parser = NonEmptyStringValueParser::new())]
    role: String,
    /// Name of this member in the cluster; without it, the container's hostname
    #[arg(long, env = "SERF_NODE_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Names or addresses to join through, separated by spaces
    #[arg(long, env = "SERF_JOIN", value_name = "NAMES", default_value = "serf-cluster ha")]
    join: String,
    /// A tag of this member, such as port=8080, weight=50 or drain=yes; may be given several times
    #[arg(long, env = "SERF_TAGS", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = tag)]
    tag: Vec<Tag>,
    /// URL that answers with 2xx when the application is ready, or none
    #[arg(long, env = "SERF_READY", value_name = "URL", default_value = "none")]
    ready: Ready,
    /// Time without an answer after which that is logged; it keeps waiting
    #[arg(long, env = "SERF_READY_TIMEOUT", value_name = "TIME", default_value = "30s")]
    ready_timeout: humantime::Duration,
    /// A Serf event handler, EVENT[,EVENT]=COMMAND; several are separated by semicolons
    #[arg(long, env = "SERF_EVENT_HANDLERS", value_name = "HANDLER", value_delimiter = ';')]
    event_handler: Vec<String>,
    /// Address and port of the gossip
    #[arg(long, env = "SERF_BIND", value_name = "ADDRESS", default_value = "0.0.0.0:7946")]
    bind: String,
    /// Address to announce to the other members, for a host that they reach by another one than its own
    #[arg(long, env = "SERF_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<Advertise>,
    /// Network interface whose address to announce; by default, of several addresses, the one that the names lead to, or that
    /// is on the way to another member
    #[arg(long, env = "SERF_INTERFACE", value_name = "NAME", conflicts_with = "advertise")]
    interface: Option<String>,
    /// Address and port on which the agent takes commands, with the password in DIR/rpc-auth
    #[arg(long, env = "SERF_RPC_ADDR", value_name = "ADDRESS", default_value = "127.0.0.1:7373")]
    rpc: String,
    /// File with the gossip key
    #[arg(long, env = "SERF_ENCRYPT_KEY_FILE", value_name = "FILE")]
    encrypt_key_file: Option<PathBuf>,
    /// Directory for the agent's configuration and its snapshot of the cluster
    #[arg(long, env = "SERF_DIR", value_name = "DIR", default_value = "/run/serf")]
    dir: PathBuf,
    /// Timing of the gossip: local, lan or wan. With local, a leave is known within 0.1 s and a death in 4 to 7 s; lan,
    /// with 0.2 s and 8 s, tolerates more delay between hosts
    #[arg(long, env = "SERF_PROFILE", value_name = "PROFILE", default_value = "local", value_parser = ["local", "lan", "wan"])]
    profile: String,
    #[command(flatten)]
    run_options: RunOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    Join(Join),
    CheckReady(CheckReady),
    TellAddress(TellAddress),
}

/// Find the other members for as long as the agent runs, and restart the agent if its name or address is wrong.
///
/// Every two seconds, looks up the names and makes the agent join those that are not members yet. If the cluster knows this
/// member's name under another address, the agent is restarted with a number appended to its name; if this host has got
/// another address, it is restarted to announce that one. To restart the agent, it is told to leave, and its supervisor
/// starts it again. While no agent is running, it waits.
///
/// With --once, it only waits until the agent has the whole member list, as a balancer does before it accepts requests.
#[derive(Debug, Args)]
struct Join {
    /// Names or addresses to join through, separated by spaces
    #[arg(long, env = "SERF_JOIN", value_name = "NAMES", default_value = "serf-cluster ha")]
    join: String,
    /// Directory of the agent that serf-run has started
    #[arg(long, env = "SERF_DIR", value_name = "DIR", default_value = "/run/serf")]
    dir: PathBuf,
    /// Address that the agent announces, if it is not one of this host's that it may choose
    #[arg(long, env = "SERF_ADVERTISE", value_name = "ADDRESS", hide = true)]
    advertise: Option<Advertise>,
    /// Network interface whose address the agent announces
    #[arg(long, env = "SERF_INTERFACE", value_name = "NAME", hide = true)]
    interface: Option<String>,
    /// Only join once, and end as soon as another member has answered or the names lead to no other host; fail after TIME
    #[arg(long, value_name = "TIME")]
    once: Option<humantime::Duration>,
    #[command(flatten)]
    run_options: RunOptions,
}

/// Ask the application once whether it is ready.
#[derive(Debug, Args)]
struct CheckReady {
    /// URL that answers with 2xx when the application is ready, or none
    #[arg(long, env = "SERF_READY", value_name = "URL", default_value = "none")]
    ready: Ready,
    #[command(flatten)]
    run_options: RunOptions,
}

/// Print the address by which the agent knows the member named on standard input, and its state.
///
/// This is the handler of the query `address`, which members send to the balancers.
#[derive(Debug, Args)]
struct TellAddress {
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for SerfRun {
    const NAME: &'static str = "serf-run";
    /// An empty role is rejected, since the image's differs from the default; empty names join nobody.
    const ALLOW_EMPTY: &'static [&'static str] = &["role", "join"];

    fn run_options(&self) -> &RunOptions {
        match &self.command {
            None => &self.run_options,
            Some(Command::Join(join)) => &join.run_options,
            Some(Command::CheckReady(check)) => &check.run_options,
            Some(Command::TellAddress(tell)) => &tell.run_options,
        }
    }

    /// The application may take its time to start.
    fn is_unlimited(&self) -> bool {
        matches!(self.command, None | Some(Command::Join(_)))
    }
}

/// Name and value; `None` for an empty variable.
type Tag = Option<(String, String)>;

fn tag(text: &str) -> Result<Tag, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    if name.is_empty() || name == "role" {
        return Err("the name is empty, or role, which --role sets");
    }
    Ok(Some((name.to_owned(), value.to_owned())))
}

/// Runs the tool. Without a command, it only returns with an error: otherwise it becomes the agent.
///
/// # Errors
/// When the configuration cannot be written, or the agent cannot be started; when a command fails.
pub fn run(tool: &SerfRun, reporter: &Reporter) -> Result<Exit> {
    match &tool.command {
        None => start(tool, reporter),
        Some(Command::Join(join)) => join::run(join, reporter),
        Some(Command::CheckReady(check)) => check.ready.check().map(|()| Exit::Done),
        Some(Command::TellAddress(_)) => name::tell(),
    }
}

/// Becomes the agent.
fn start(tool: &SerfRun, reporter: &Reporter) -> Result<Exit> {
    let password = password()?;
    let mut agent = tool.agent(&password)?;
    tool.ready.wait(tool.ready_timeout.into(), reporter);
    agent.advertise = tool.advertise()?;
    let configuration = serde_json::to_vec_pretty(&agent).context("write the agent's configuration")?;
    fs::create_dir_all(&tool.dir).with_context(|| format!("make {}", tool.dir.display()))?;
    name::forget(&tool.dir).with_context(|| format!("write in {}", tool.dir.display()))?;
    let path = tool.dir.join(FILE);
    for (path, content) in [(&tool.dir.join(PASSWORD_FILE), password.as_bytes()), (&path, &configuration)] {
        replace(path, content, 0o600).with_context(|| format!("write {}", path.display()))?;
    }
    match become_agent(&path)? {}
}

/// A new password for the agent, 32 hexadecimal digits: on a host that others use, who gives it commands could read the
/// gossip key or make it leave.
fn password() -> Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).context("read /dev/urandom")?;
    Ok(random.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

impl SerfRun {
    fn agent(&self, password: &str) -> Result<Agent> {
        Ok(Agent {
            node_name: self.member_name()?,
            bind: self.bind.clone(),
            advertise: None,
            rpc_addr: self.rpc.clone(),
            rpc_auth: password.to_owned(),
            profile: self.profile.clone(),
            tags: self.tag.iter().flatten().cloned().chain([("role".to_owned(), self.role.clone())]).collect(),
            retry_join: self.join.split_whitespace().map(str::to_owned).collect(),
            retry_interval: "2s",
            reconnect_timeout: FORGET_AFTER,
            tombstone_timeout: FORGET_AFTER,
            event_handlers: self.event_handler.iter().filter(|handler| !handler.is_empty()).cloned().collect(),
            snapshot_path: self.dir.join("snapshot"),
            encrypt_key: self.encrypt_key()?,
        })
    }

    /// The address to announce, if it is not left to Serf.
    fn advertise(&self) -> Result<Option<String>> {
        match (&self.advertise, &self.interface) {
            (Some(address), _) => Ok(Some(address.as_str().to_owned())),
            (None, Some(interface)) => Ok(Some(Advertise::of_interface(interface)?.as_str().to_owned())),
            (None, None) if !agent::is_unspecified(&self.bind) => Ok(None),
            (None, None) => Ok(advertise::choose_now(&self.join)?.map(|address| address.to_string())),
        }
    }

    /// The key of the gossip, which no message may show.
    fn encrypt_key(&self) -> Result<Option<String>> {
        let existing = |path| Some(Path::new(path)).filter(|path| path.exists());
        let given = self.encrypt_key_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let variable = || env::var("SERF_ENCRYPT_KEY").ok().filter(|key| !key.is_empty());
        let path = match given.or_else(|| existing(SECRET)) {
            Some(path) => path,
            None => match (variable(), existing(IMAGE_KEY)) {
                (None, Some(path)) => path,
                (variable, _) => return Ok(variable),
            },
        };
        let key = fs::read_to_string(path).with_context(|| format!("read the gossip key {}", path.display()))?;
        let key = key.trim();
        ensure!(
            !key.is_empty() && !key.contains(char::is_whitespace),
            "{} has no gossip key: serf keygen makes one",
            path.display()
        );
        Ok(Some(key.to_owned()))
    }

    /// The name to join under.
    fn member_name(&self) -> Result<String> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname().context("ask for the hostname")?.to_string_lossy().into_owned(),
        };
        Ok(name::numbered(&name, &self.dir))
    }
}

fn become_agent(configuration: &Path) -> Result<Infallible> {
    let option = format!("-config-file={}", configuration.display());
    let arguments = ["serf", "agent", &option].map(CString::new);
    let arguments = arguments.into_iter().collect::<Result<Vec<_>, _>>().context("a path with a zero byte")?;
    let program = arguments.first().context("no program")?;
    nix::unistd::execvp(program, &arguments).context("start serf; is it installed?")
}
