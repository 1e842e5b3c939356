//! Options for rendering the configuration.

use std::path::PathBuf;

use clap::Args;

use crate::node::Port;

/// Registry, template, certificates, routes, users of the statistics, and default port.
#[derive(Debug, Clone, Args)]
pub struct RenderOptions {
    /// Directory with one file per node
    #[arg(long, env = "NODES_DIR", value_name = "DIR", default_value = "/nodes")]
    pub nodes_dir: PathBuf,
    /// Handlebars template of the configuration
    #[arg(long, env = "HAPROXY_TEMPLATE", value_name = "FILE", default_value = "/config/haproxy.cfg.hb")]
    pub template: PathBuf,
    /// Directory of the certificates, *.pem, each with its private key
    #[arg(long, env = "CERTS_DIR", value_name = "DIR", default_value = "/certs")]
    pub certs_dir: PathBuf,
    /// File that says which service answers where, one line each, such as 'shop.example/api api'; the tags host and path then
    /// do not count
    #[arg(long, env = "ROUTES", value_name = "FILE")]
    pub routes_file: Option<PathBuf>,
    /// File of those who may see the statistics and the live page, one USER:HASH a line; without it, everybody may
    #[arg(long, env = "STATS_AUTH_FILE", value_name = "FILE")]
    pub stats_auth_file: Option<PathBuf>,
    /// Port of a node that has no tag `port`
    #[arg(long, env = "BACKEND_PORT", value_name = "PORT", default_value = "3000")]
    pub port: Port,
}
