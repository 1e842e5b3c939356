//! Differences between a state and the one it is derived from.

use std::collections::BTreeSet;
use std::path::Path;

use lb_core::config::{Config, ServerKey, ServerLine};
use lb_core::haproxy::command::Action;
use lb_core::haproxy::plan::Plan;
use lb_core::members::MemberList;
use lb_core::node::{NodeError, NodeName};
use lb_core::os::escape::Quoted;
use serde::Serialize;

use crate::nodes::Nodes;
use crate::states::States;

/// One difference between two states, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The node, unless the difference concerns all of them.
    pub node: Option<String>,
    /// The later of the two states: `registry`, `file` or `HAProxy`.
    pub state: &'static str,
    /// What differs.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Drift {
    /// What identifies it, however its wording changes.
    #[must_use]
    pub fn key(&self) -> (Option<&str>, &'static str) {
        (self.node.as_deref(), self.state)
    }
}

const SYNC: &str = "run sync-nodes";
const TEMPLATE: &str = "haproxy.cfg is not what the template gives";
const RELOAD: &str = "run reload-ha";

/// All differences between the states that could be read. The registry holds at most `most` nodes.
#[must_use]
pub fn drift(states: &States, list: Option<&MemberList>, nodes: &Nodes, most: usize) -> Vec<Drift> {
    let mut found = Found::default();
    if let Some(list) = list {
        found.registry(states, list, nodes, most);
    }
    for (path, reason) in states.registry.iter().flat_map(|registry| registry.skipped()) {
        found.add(
            None,
            "registry",
            format!("{} is skipped: {reason}", Quoted(&path.to_string_lossy())),
            "remove it, or run sync-nodes",
        );
    }
    if let (Ok(rendered), Ok(file)) = (&states.rendered, &states.file) {
        found.file(&Config::parse(rendered), &Config::parse(file), nodes);
    }
    if let Ok(plan) = &states.plan {
        found.process(plan, nodes);
    }
    found.0
}

/// If HAProxy rejects the rendered configuration with the message `words`, a sync does not help: says so where the file is
/// outdated.
pub fn explain_refusal(drift: &mut [Drift], words: &str, template: &Path) {
    for drift in drift.iter_mut().filter(|drift| drift.state == "file") {
        match &drift.node {
            None => {
                drift.what = format!("{TEMPLATE}, which HAProxy rejects: {words}");
                drift.remedy = format!("mend {}, the last good configuration stays in use", template.display());
            }
            Some(_) => "HAProxy rejects what the template gives, render-cfg --check tells why".clone_into(&mut drift.remedy),
        }
    }
}

/// How to fix a rejected member.
fn remedy(reason: &NodeError) -> &'static str {
    match reason {
        NodeError::Name(_) => "give it another by SERF_NODE_NAME",
        NodeError::Role { .. } => "give it another by ROLE",
        NodeError::Port(_)
        | NodeError::Weight(_)
        | NodeError::Drain(_)
        | NodeError::Host { .. }
        | NodeError::Path { .. }
        | NodeError::Cookie(_)
        | NodeError::Duplicate(_) => "on that node, serf tags -set NAME=VALUE or -delete NAME",
        NodeError::Elsewhere { .. } => "if it should be a node, NODE_NETWORKS at the balancer must admit it",
        _ => "it must join with an address of its own; what is no node of yours goes by serf force-leave -prune NAME",
    }
}

#[derive(Default)]
struct Found(Vec<Drift>);

impl Found {
    fn add(&mut self, node: Option<&str>, state: &'static str, what: String, remedy: &str) {
        self.0.push(Drift { node: node.map(str::to_owned), state, what, remedy: remedy.to_owned() });
    }

    fn registry(&mut self, states: &States, list: &MemberList, nodes: &Nodes, most: usize) {
        for (name, reason) in &list.rejected {
            self.add(Some(name), "registry", format!("the member is rejected: {reason}"), remedy(reason));
        }
        let Ok(registry) = &states.registry else { return };
        let full = registry.nodes().len() >= most;
        let is_kept = |name: &NodeName| nodes.rows.get(name.as_str()).is_some_and(|row| row.kept.is_some());
        let way_in = if full { format!("there may be {most} nodes at most, raise MAX_NODES") } else { SYNC.to_owned() };
        for node in list.nodes.values() {
            match registry.nodes().get(&node.name) {
                None => self.add(Some(node.name.as_str()), "registry", "alive, but not in the registry".to_owned(), &way_in),
                Some(old) if old != node && !is_kept(&node.name) => {
                    let what = format!("the registry has '{old}', the member is '{node}'");
                    self.add(Some(node.name.as_str()), "registry", what, SYNC);
                }
                Some(_) => {}
            }
        }
        for name in registry.nodes().keys().filter(|name| !list.nodes.contains_key(*name) && !is_kept(name)) {
            let row = nodes.rows.get(name.as_str());
            // The rejection was reported above.
            if row.is_some_and(|row| row.refused.is_some()) {
                continue;
            }
            let what = match row.and_then(|row| row.member.as_deref()) {
                Some(status) => format!("in the registry, but the member is {status}"),
                None => "in the registry, but no member".to_owned(),
            };
            self.add(Some(name.as_str()), "registry", what, SYNC);
        }
    }

    fn file(&mut self, rendered: &Config, file: &Config, nodes: &Nodes) {
        let keys: BTreeSet<&ServerKey> = rendered.servers.keys().chain(file.servers.keys()).collect();
        let mut others = rendered.rest != file.rest;
        for key in keys {
            let (wanted, found) = (rendered.servers.get(key), file.servers.get(key));
            let what = match (wanted, found) {
                (Some(_), None) => "registered, but not in the file".to_owned(),
                (None, Some(_)) => "in the file, but not registered".to_owned(),
                (Some(wanted), Some(found)) if wanted != found => format!("the file has {found}, the template gives {wanted}"),
                _ => continue,
            };
            let endpoint = wanted.or(found).map_or("", |line: &ServerLine| &line.address);
            match nodes.whose(&key.server, endpoint) {
                Some(name) => self.add(Some(&name), "file", what, &format!("{SYNC}; if it stays, show-nodes {name} tells why")),
                None => others = true,
            }
        }
        if others {
            self.add(None, "file", TEMPLATE.to_owned(), "see render-cfg --diff, and run sync-nodes");
        }
    }

    fn process(&mut self, plan: &Plan, nodes: &Nodes) {
        let commands = match plan {
            Plan::Reload(reason) => return self.add(None, "HAProxy", format!("it does not run the file: {reason}"), RELOAD),
            Plan::Commands(commands) => commands,
        };
        let mut told = BTreeSet::new();
        // A server in maintenance that is waiting for its last connections is as it should be.
        for command in commands.iter().filter(|command| command.action != Action::DeleteWhenIdle) {
            let (key, server) = (command.server.to_string(), &command.server.server);
            let mut owner = nodes.rows.values().filter(|row| row.servers.iter().any(|running| running.server == key));
            let name =
                owner.next().map_or_else(|| nodes.whose(server, "").unwrap_or_else(|| server.clone()), |row| row.name.clone());
            if told.insert(key) {
                let what = match command.action {
                    Action::Add(_) => "in the file, but not in HAProxy".to_owned(),
                    Action::Maintain => "in HAProxy, but not in the file".to_owned(),
                    _ => format!("HAProxy has it otherwise than the file; it lacks '{command}'"),
                };
                self.add(Some(&name), "HAProxy", what, RELOAD);
            }
        }
    }
}
