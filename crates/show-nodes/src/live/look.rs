//! One look after another at the four states, and what can only be told from several of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lb_core::members::containers::Containers;
use lb_core::publish::stats::{Stats, stats_path};
use lb_core::publish::summary::Summary;
use serde::Serialize;
use serde_json::json;

use super::hub::Look;
use super::tail::Tail;
use crate::history::Entry;
use crate::nodes::Row;
use crate::{SETTLE_TIME, ShowNodes, View, text};

/// Maximum number of nodes that the page gets. Of more, it gets some that need attention, and the groups.
const MAX_NODES: usize = 300;
/// Number of nodes that need attention, if not all are shown.
const MAX_TROUBLED: usize = 100;
/// How long it is told that a node is gone: every viewer has got it by then.
const TOLD: Duration = Duration::from_secs(5);

/// Looks at the states, and remembers what it has seen.
pub struct Looker<'a> {
    tool: &'a ShowNodes,
    containers: Containers,
    tail: Tail,
    /// Since when the differences have been there.
    since: BTreeMap<(Option<String>, &'static str), Instant>,
    /// The members with their addresses, of which some may be containers.
    members: BTreeSet<(String, Option<String>)>,
    gone: Vec<(Instant, Gone)>,
    /// The text that HAProxy was asked about last, and what it says against it.
    checked: Option<(String, Option<String>)>,
}

/// A node that was there a moment ago.
#[derive(Debug, Clone, Serialize)]
struct Gone {
    name: String,
    why: &'static str,
}

/// The nodes with servers in one backend.
#[derive(Debug, Default, Serialize)]
struct Group {
    name: String,
    nodes: usize,
    /// Those that get new requests.
    up: usize,
    sessions: u64,
    /// Requests a second.
    rate: u64,
    /// Mean response time in milliseconds, weighted with the rate.
    latency_ms: f64,
}

impl<'a> Looker<'a> {
    /// One that has seen nothing yet.
    pub fn new(tool: &'a ShowNodes) -> Self {
        let tail = Tail::new(&tool.run_options.log_file);
        Self {
            tool,
            containers: Containers::for_service(),
            tail,
            since: BTreeMap::new(),
            members: BTreeSet::new(),
            gone: Vec::new(),
            checked: None,
        }
    }

    /// Forgets what was seen before nobody watched.
    pub fn begin(&mut self) {
        self.since.clear();
        self.members.clear();
        self.gone.clear();
    }

    /// Looks once.
    pub fn look(&mut self) -> Look {
        let mut view = self.tool.look(&mut self.containers);
        self.settle(&mut view);
        self.compare(&view);
        let generation = Stats::load(&stats_path(&self.tool.options.process.master_socket)).generation();
        let json = self.document(&view, generation);
        let lines = self.tail.more().iter().map(line).collect();
        Look { view, json, lines }
    }

    /// Leaves the differences that have lasted, and explains those of the file.
    fn settle(&mut self, view: &mut View) {
        let now = Instant::now();
        let owned = |(node, state): (Option<&str>, &'static str)| (node.map(str::to_owned), state);
        let keys: BTreeSet<_> = view.drift.iter().map(|drift| owned(drift.key())).collect();
        self.since.retain(|key, _| keys.contains(key));
        for key in keys {
            self.since.entry(key).or_insert(now);
        }
        view.drift.retain(|drift| self.since.get(&owned(drift.key())).is_some_and(|since| now - *since >= SETTLE_TIME));
        if !view.drift.iter().any(|drift| drift.state == "file") {
            return;
        }
        // HAProxy takes a while to check a large configuration, so it is asked once about each.
        let text = view.states.rendered.clone().unwrap_or_default();
        if self.checked.as_ref().is_none_or(|(checked, _)| *checked != text) {
            self.checked = Some((text, view.states.refusal(&self.tool.options.process)));
        }
        if let Some((_, Some(words))) = &self.checked {
            crate::explain_refusal(&mut view.drift, words, &self.tool.options.render.template);
        }
    }

    /// Finds out which nodes are gone since the look before, and why.
    fn compare(&mut self, view: &View) {
        self.gone.retain(|(since, _)| since.elapsed() < TOLD);
        let Ok(members) = &view.states.members else { return };
        let now: BTreeSet<_> = view.nodes.rows.values().map(|row| (row.name.clone(), row.address.clone())).collect();
        if now == self.members {
            return;
        }
        for (name, _) in self.members.iter().filter(|(name, _)| !view.nodes.rows.contains_key(name)) {
            let status = members.iter().find(|member| member.name == *name).map(|member| member.status.as_str());
            let why = match status {
                Some("left" | "leaving") => "left",
                Some("failed") => "failed",
                Some(_) => "not a node any more",
                None => "no member any more",
            };
            self.gone.push((Instant::now(), Gone { name: name.clone(), why }));
        }
        self.gone.retain(|(_, gone)| !view.nodes.rows.contains_key(&gone.name));
        self.members = now;
        // Another container may have the address of one that is gone.
        self.containers = Containers::for_service();
    }

    fn document(&self, view: &View, generation: u64) -> String {
        let rows = shown(view);
        let registered = view.nodes.rows.values().filter(|row| row.in_registry).count();
        let gone: Vec<&Gone> = self.gone.iter().map(|(_, gone)| gone).collect();
        json!({
            "nodes": rows, "total": view.nodes.rows.len(), "registered": registered, "groups": groups(view), "gone": gone,
            "drift": view.drift, "unreadable": text::unreadable(view), "generation": generation
        })
        .to_string()
    }
}

/// All nodes, or some that need attention.
fn shown(view: &View) -> Vec<&Row> {
    let rows = view.nodes.rows.values();
    if rows.len() <= MAX_NODES {
        return rows.collect();
    }
    let differs: BTreeSet<&str> = view.drift.iter().filter_map(|drift| drift.node.as_deref()).collect();
    let is_fine = |row: &&Row| row.is_alive() && row.is_up() && row.in_registry && row.in_file && row.kept.is_none();
    rows.filter(|row| differs.contains(row.name.as_str()) || !is_fine(row)).take(MAX_TROUBLED).collect()
}

fn groups(view: &View) -> Vec<Group> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for row in view.nodes.rows.values() {
        let backends: BTreeSet<&str> = row.servers.iter().filter_map(|server| Some(server.server.split_once('/')?.0)).collect();
        for backend in backends {
            let group = groups.entry(backend).or_insert_with(|| Group { name: backend.to_owned(), ..Group::default() });
            group.nodes += 1;
            group.up += usize::from(row.is_up());
        }
        for server in &row.servers {
            let Some(group) = server.server.split_once('/').and_then(|(backend, _)| groups.get_mut(backend)) else { continue };
            let rate = server.rate.unwrap_or(0);
            group.sessions += server.sessions;
            group.rate += rate;
            group.latency_ms += (rate * server.latency_ms.unwrap_or(0)) as f64;
        }
    }
    let mean = |mut group: Group| {
        group.latency_ms /= group.rate.max(1) as f64;
        group
    };
    groups.into_values().map(mean).collect()
}

/// A line of the log for the page, with the fields of a publish.
fn line(entry: &Entry) -> String {
    let publish = entry.message.parse::<Summary>().ok().map(|summary| summary.fields());
    json!({ "time": entry.time, "tool": entry.tool, "message": entry.message, "publish": publish }).to_string()
}
