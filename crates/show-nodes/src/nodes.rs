//! The four states combined: one row per node.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::config::Config;
use lb_core::members::containers::Containers;
use lb_core::members::{Member, MemberList};
use lb_core::node::{Node, NodeName, Port};
use lb_core::registry::reconcile::Kept;
use lb_core::service::{Role, Roles};
use serde::Serialize;

use crate::states::{Server, States};

/// One node, as far as the states could be read.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    /// Its name, which may be any text if the member was rejected.
    pub name: String,
    /// Name of its container, while its member is alive.
    pub container: Option<String>,
    /// Its service, which is its role; `backend` for the only one.
    pub service: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<String>,
    /// Its weight; 0 while it drains.
    pub weight: Option<String>,
    /// Whether it is draining: it gets no new sessions.
    pub drains: bool,
    /// `alive`, `leaving`, `left`, `failed`, or `None` if it is not a member.
    pub member: Option<String>,
    /// Why a member is not registered.
    pub refused: Option<String>,
    /// Why it stays registered although the member list says otherwise.
    pub kept: Option<String>,
    /// Whether it is in the registry.
    pub in_registry: bool,
    /// Whether the file has a server for it.
    pub in_file: bool,
    /// Its servers in the running HAProxy.
    pub servers: Vec<RunningServer>,
}

/// A server of the running HAProxy.
#[derive(Debug, Serialize)]
pub struct RunningServer {
    /// `<backend>/<name>`
    pub server: String,
    /// As HAProxy reports it: `UP`, `DOWN`, `MAINT`, `DRAIN` …
    pub state: String,
    /// Seconds since the state changed.
    pub since: Option<u64>,
    /// Current requests and connections.
    pub sessions: u64,
    /// Requests in the last second.
    pub rate: Option<u64>,
    /// Mean response time of the last 1,024 requests, in milliseconds.
    pub latency_ms: Option<u64>,
    /// The last check as HAProxy reports it, and how long it took.
    pub last_check: Option<String>,
    /// Why it failed, if it did.
    pub trouble: Option<String>,
}

impl Row {
    /// Whether it is gone from the file and the registry but still finishing its requests.
    #[must_use]
    pub fn leaves(&self) -> bool {
        !self.in_file && !self.in_registry && self.servers.iter().any(|server| server.state.starts_with("MAINT"))
    }

    /// Its service, unless that is the default one or not known.
    #[must_use]
    pub fn other_service(&self) -> Option<&str> {
        self.service.as_deref().filter(|service| *service != Role::default_ref().as_str())
    }

    /// Whether its member is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.member.as_deref() == Some("alive")
    }

    /// Whether it is a member that has failed, and nothing else.
    #[must_use]
    pub fn is_only_failed(&self) -> bool {
        self.member.as_deref() == Some("failed") && !self.in_registry && !self.in_file && self.servers.is_empty()
    }

    /// Whether HAProxy sends it new requests.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.drains && self.servers.iter().any(|server| server.state.starts_with("UP") || server.state == "no check")
    }

    /// Current requests and connections of all its servers.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.servers.iter().map(|server| server.sessions).sum()
    }

    fn describe(&mut self, node: &Node, default: Port) {
        self.service = Some(node.role.to_string());
        self.address = Some(node.address.to_string());
        self.port = Some(node.port(default).to_string());
        (self.weight, self.drains) = (Some(node.weight().to_string()), node.tags.drain);
    }
}

/// All nodes, and what it takes to map servers to nodes.
#[derive(Debug, Default)]
pub struct Nodes {
    /// By name.
    pub rows: BTreeMap<String, Row>,
    /// Name of the node at `<address>:<port>`, for templates that give servers other names.
    endpoints: BTreeMap<String, String>,
    /// Fixed servers in the template, which are not nodes.
    fixed: BTreeSet<String>,
}

impl Nodes {
    /// Combines the states. `list` is the member list as the tools interpret it, and `kept` are the nodes that stay
    /// registered although it says otherwise.
    #[must_use]
    pub fn of(
        states: &States,
        list: Option<&MemberList>,
        kept: &BTreeMap<NodeName, Kept>,
        roles: &Roles,
        port: Port,
        containers: &mut Containers,
    ) -> Self {
        let mut nodes = Self::default();
        if let (Ok(members), Some(list)) = (&states.members, list) {
            nodes.add_members(members, list, roles, port);
        }
        for node in states.registry.iter().flat_map(|registry| registry.nodes().values()) {
            let row = nodes.row(node.name.as_str());
            row.in_registry = true;
            row.kept = kept.get(&node.name).map(ToString::to_string);
            row.describe(node, port);
        }
        nodes.name_endpoints();
        nodes.add_file(states);
        for server in states.servers.iter().flatten() {
            nodes.add_server(server);
        }
        // Hide members that have left, unless something of them remains.
        nodes
            .rows
            .retain(|_, row| row.member.as_deref() != Some("left") || row.in_registry || row.in_file || !row.servers.is_empty());
        nodes.name_containers(containers);
        nodes
    }

    /// Only for nodes that are alive: another container may have the address of a dead one by now.
    fn name_containers(&mut self, containers: &mut Containers) {
        let address = |row: &Row| row.address.as_deref().filter(|_| row.is_alive())?.parse().ok();
        containers.find(self.rows.values().filter_map(address));
        for row in self.rows.values_mut() {
            row.container = address(row).and_then(|address| containers.name(address)).map(str::to_owned);
        }
    }

    fn add_members(&mut self, members: &[Member], list: &MemberList, roles: &Roles, port: Port) {
        for member in members.iter().filter(|member| member.tags.get("role").is_some_and(|role| roles.has(role))) {
            let row = self.row(&member.name);
            row.member = Some(member.status.clone());
            row.address = Some(member.address.clone());
        }
        for node in list.nodes.values() {
            self.row(node.name.as_str()).describe(node, port);
        }
        for (name, reason) in &list.rejected {
            self.row(name).refused = Some(reason.to_string());
        }
    }

    fn name_endpoints(&mut self) {
        let endpoint = |row: &Row| {
            let (address, port) = (row.address.as_deref()?, row.port.as_deref()?);
            Some((format!("{address}:{port}"), row.name.clone()))
        };
        self.endpoints = self.rows.values().filter_map(endpoint).collect();
    }

    fn add_file(&mut self, states: &States) {
        let Ok(file) = &states.file else { return };
        let rendered = Config::parse(states.rendered.as_deref().unwrap_or(file));
        for (key, line) in &Config::parse(file).servers {
            match self.whose(&key.server, &line.address) {
                Some(name) => self.row(&name).in_file = true,
                // A server that is also in the rendered configuration is the template's own; any other is a leftover.
                None if rendered.servers.contains_key(key) => drop(self.fixed.insert(key.to_string())),
                None => {
                    let row = self.row(&key.server);
                    row.in_file = true;
                    row.address = line.address.rsplit_once(':').map(|(address, _)| address.to_owned());
                }
            }
        }
    }

    fn add_server(&mut self, server: &Server) {
        let key = format!("{}/{}", server.backend, server.name);
        let endpoint = server.addr.as_deref().unwrap_or_default();
        if self.fixed.contains(&key) {
            return;
        }
        let name = self.whose(&server.name, endpoint).unwrap_or_else(|| server.name.clone());
        let row = self.row(&name);
        if let (None, Some((address, port))) = (&row.port, endpoint.rsplit_once(':')) {
            row.address.get_or_insert_with(|| address.to_owned());
            row.port = Some(port.to_owned());
        }
        if row.weight.is_none() {
            row.weight = server.weight.map(|weight| weight.to_string());
        }
        row.servers.push(RunningServer {
            server: key,
            state: server.status.clone(),
            since: server.since,
            sessions: server.sessions,
            rate: server.rate,
            latency_ms: server.latency_ms,
            last_check: server.check(),
            trouble: server.trouble().map(str::to_owned),
        });
    }

    /// The node that a server belongs to, by name or otherwise by address.
    #[must_use]
    pub fn whose(&self, server: &str, endpoint: &str) -> Option<String> {
        self.rows.get_key_value(server).map(|(name, _)| name).or_else(|| self.endpoints.get(endpoint)).cloned()
    }

    fn row(&mut self, name: &str) -> &mut Row {
        self.rows.entry(name.to_owned()).or_insert_with(|| Row { name: name.to_owned(), ..Row::default() })
    }
}
