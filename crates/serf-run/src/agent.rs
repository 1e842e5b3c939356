//! The configuration file of a Serf agent.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// File name in the agent's directory.
pub(crate) const FILE: &str = "agent.json";

/// The settings of the agent that are used here, by Serf's names
/// (Serf 0.10.1, `cmd/serf/command/agent/config.go`).
#[derive(Debug, Serialize)]
pub(crate) struct Agent {
    pub node_name: String,
    pub bind: String,
    /// The address that it announces; without it, that of the default route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    pub rpc_addr: String,
    /// Password for its commands.
    pub rpc_auth: String,
    /// `local`, `lan` or `wan`: how often it gossips, and how patient it is with others.
    pub profile: String,
    pub tags: BTreeMap<String, String>,
    /// Joined at start, and retried until one of them answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_join: Vec<String>,
    pub retry_interval: &'static str,
    /// How long a failed member is tried and listed.
    pub reconnect_timeout: &'static str,
    /// How long a member that has left is listed.
    pub tombstone_timeout: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_handlers: Vec<String>,
    /// With it, an agent that was killed finds the others again.
    pub snapshot_path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt_key: Option<String>,
}

/// The configuration of the running agent, as far as it matters to `join`.
#[derive(Debug, Deserialize)]
pub(crate) struct Configured {
    pub node_name: String,
    bind: String,
}

impl Configured {
    /// Reads it from the agent's directory.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let what = || format!("read {}", path.display());
        serde_json::from_slice(&fs::read(&path).with_context(what)?).with_context(what)
    }

    /// Whether the agent chooses at its start which of this host's addresses it announces.
    pub(crate) fn chooses_address(&self) -> bool {
        is_unspecified(&self.bind)
    }
}

/// Whether an address to bind to stands for all of this host's.
pub(crate) fn is_unspecified(bind: &str) -> bool {
    let address = bind.parse::<SocketAddr>().map(|bind| bind.ip()).or_else(|_| bind.parse::<IpAddr>());
    address.is_ok_and(|address| address.is_unspecified())
}
