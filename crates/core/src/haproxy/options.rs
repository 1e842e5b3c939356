//! Where HAProxy is.

use std::path::PathBuf;

use clap::Args;

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
