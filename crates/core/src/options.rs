//! Flags that several tools share. Every one has an environment variable, so that `docker exec`, run scripts and
//! event handlers say the same words.

use std::path::PathBuf;

use clap::Args;

use crate::log::Format;
use crate::networks::{Gate, NetworksError, NodeNetworks};
use crate::node::Port;

/// What holds for every run: where it logs, and how long it may take.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// File that says who joined, who left and what was done; kept below 2 MiB
    #[arg(long, env = "SERF_LOG", value_name = "FILE", default_value = "/var/log/serf.log")]
    pub log_file: PathBuf,
    /// How lines look on standard error: text, or one JSON object each; the log file stays text
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Second place for the lines of an event handler, whose standard error Serf keeps to itself
    #[arg(long, env = "LOG_CONSOLE", value_name = "FILE", hide = true)]
    pub console: Option<PathBuf>,
    /// Longest time of a whole run, in seconds; of --follow, of one round
    #[arg(long, env = "RUN_LIMIT", value_name = "SECONDS", default_value = "60", hide = true)]
    pub limit: u64,
    /// Why it is run, for the log; else it is the event of Serf, or somebody's hand
    #[arg(long, env = "PUBLISH_CAUSE", value_name = "WORD", hide = true)]
    pub cause: Option<String>,
}

impl RunOptions {
    /// Why a tool that is not told by anybody else is run.
    #[must_use]
    pub fn cause(&self) -> String {
        let event = || std::env::var("SERF_EVENT").ok();
        self.cause.clone().or_else(event).unwrap_or_else(|| "by-hand".to_owned())
    }
}

/// The socket and file by which a tool reaches HAProxy.
#[derive(Debug, Clone, Args)]
pub struct ProcessOptions {
    /// HAProxy's configuration file
    #[arg(long, env = "HAPROXY_CFG", value_name = "FILE", default_value = "/usr/local/etc/haproxy/haproxy.cfg")]
    pub config: PathBuf,
    /// HAProxy's master socket, by which it is changed and reloaded
    #[arg(long, env = "HAPROXY_MASTER_SOCKET", value_name = "SOCKET", default_value = "/run/haproxy/master.sock")]
    pub master_socket: PathBuf,
    /// HAProxy's admin socket, on which a worker that is known is asked and changed
    #[arg(long, env = "HAPROXY_ADMIN_SOCKET", value_name = "SOCKET", default_value = "/run/haproxy/admin.sock")]
    pub admin_socket: PathBuf,
}

/// What the configuration is made of.
#[derive(Debug, Clone, Args)]
pub struct RenderOptions {
    /// Directory with one file a node
    #[arg(long, env = "NODES_DIR", value_name = "DIR", default_value = "/nodes")]
    pub nodes_dir: PathBuf,
    /// Handlebars template of the configuration
    #[arg(long, env = "HAPROXY_TEMPLATE", value_name = "FILE", default_value = "/config/haproxy.cfg.hb")]
    pub template: PathBuf,
    /// Port of a node that has no tag `port`
    #[arg(long, env = "BACKEND_PORT", value_name = "PORT", default_value = "3000")]
    pub port: Port,
}

/// Everything from the registry to the running HAProxy.
#[derive(Debug, Clone, Args)]
pub struct PublishOptions {
    /// Registry and template.
    #[command(flatten)]
    pub render: RenderOptions,
    /// File and process.
    #[command(flatten)]
    pub process: ProcessOptions,
}

/// Which members are nodes.
#[derive(Debug, Clone, Args)]
pub struct RoleOptions {
    /// Role of the members that take traffic; others are passed over
    #[arg(long, env = "BACKEND_ROLE", value_name = "ROLE", default_value = "backend")]
    pub role: String,
    /// Most nodes that are registered; further ones are refused
    #[arg(long, env = "MAX_NODES", value_name = "N", default_value = "10000")]
    pub max_nodes: usize,
    /// Where nodes may be: networks such as '172.18.0.0/16 fd00::/8'; own for those of this host's interfaces, any for
    /// anywhere, loopback included. Addresses of this host are refused in any case
    #[arg(long, env = "NODE_NETWORKS", value_name = "NETWORKS", default_value = "own")]
    pub node_networks: NodeNetworks,
}

impl RoleOptions {
    /// What decides which members are nodes, with this host's addresses as they are now.
    ///
    /// # Errors
    /// [`NetworksError`].
    pub fn gate(&self) -> Result<Gate, NetworksError> {
        Gate::new(&self.role, &self.node_networks)
    }
}
