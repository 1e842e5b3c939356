//! Options that say which members are nodes.

use clap::Args;

use super::admission::{Admission, NetworksError, NodeNetworks};
use crate::service::Roles;

/// Which members are nodes.
#[derive(Debug, Clone, Args)]
pub struct RoleOptions {
    /// Role of the members that take traffic, or several, separated by spaces, or * for all but balancer; others are
    /// ignored
    #[arg(long, env = "BACKEND_ROLE", value_name = "ROLE", default_value = "backend")]
    pub role: Roles,
    /// Maximum number of registered nodes; further ones are rejected
    #[arg(long, env = "MAX_NODES", value_name = "N", default_value = "10000")]
    pub max_nodes: usize,
    /// Networks that nodes may be on, such as '172.18.0.0/16 fd00::/8'; own means those of this host's interfaces, any
    /// means anywhere, loopback included. Addresses of this host are always rejected
    #[arg(long, env = "NODE_NETWORKS", value_name = "NETWORKS", default_value = "own")]
    pub node_networks: NodeNetworks,
}

impl RoleOptions {
    /// The admission of nodes, given the current addresses of this host.
    ///
    /// # Errors
    /// [`NetworksError`] if there are no networks that nodes may be on.
    pub fn admission(&self) -> Result<Admission, NetworksError> {
        Admission::new(&self.role, &self.node_networks)
    }
}
