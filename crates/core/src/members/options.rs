//! Which members are nodes.

use clap::Args;

use super::admission::{Admission, NetworksError, NodeNetworks};

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
    pub fn admission(&self) -> Result<Admission, NetworksError> {
        Admission::new(&self.role, &self.node_networks)
    }
}
