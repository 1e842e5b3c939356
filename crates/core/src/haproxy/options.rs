//! Options that say how to reach HAProxy.

use std::path::PathBuf;

use clap::Args;

/// HAProxy's configuration file and sockets.
#[derive(Debug, Clone, Args)]
pub struct ProcessOptions {
    /// HAProxy's configuration file
    #[arg(long, env = "HAPROXY_CFG", value_name = "FILE", default_value = "/usr/local/etc/haproxy/haproxy.cfg")]
    pub config: PathBuf,
    /// HAProxy's master socket, for commands and reloads
    #[arg(long, env = "HAPROXY_MASTER_SOCKET", value_name = "SOCKET", default_value = "/run/haproxy/master.sock")]
    pub master_socket: PathBuf,
    /// HAProxy's admin socket, for commands to a worker that is already known
    #[arg(long, env = "HAPROXY_ADMIN_SOCKET", value_name = "SOCKET", default_value = "/run/haproxy/admin.sock")]
    pub admin_socket: PathBuf,
}
