//! The metrics in the Prometheus text format (see "Exposition formats" in its documentation).

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::time::Duration;

use lb_core::publish::stats::Stats;

use crate::View;
use crate::nodes::Row;

/// All metrics, except for those of states that cannot be read.
#[must_use]
pub fn metrics(view: &View, stats: &Stats, last_sync: Option<u64>) -> String {
    let mut text = Text::default();
    let (states, rows) = (&view.states, || view.nodes.rows.values());

    text.head("lb_state_readable", "gauge", "Whether a state can be read");
    let unreadable = view.states.unreadable();
    for state in ["members", "registry", "file", "HAProxy", "template"] {
        let readable = !unreadable.iter().any(|(name, _)| *name == state);
        text.sample("lb_state_readable", &[("state", state)], u8::from(readable));
    }

    text.head("lb_nodes", "gauge", "Nodes in each of the four states");
    let services: BTreeSet<_> = rows().map(Row::other_service).chain([None]).collect();
    let mut count = |state: &str, is: &dyn Fn(&Row) -> bool| {
        for service in &services {
            let labels = service.map(|service| ("service", service));
            let labels: Vec<_> = [("state", state)].into_iter().chain(labels).collect();
            text.sample("lb_nodes", &labels, rows().filter(|row| row.other_service() == *service && is(row)).count());
        }
    };
    if states.members.is_ok() {
        count("member_alive", &|row| row.member.as_deref() == Some("alive"));
        count("member_failed", &|row| row.member.as_deref() == Some("failed"));
    }
    if states.registry.is_ok() {
        count("registered", &|row| row.in_registry);
        count("kept", &|row| row.kept.is_some());
    }
    if states.file.is_ok() {
        count("in_file", &|row| row.in_file);
    }
    if states.servers.is_ok() {
        let is = |row: &Row, begin: &str| row.servers.iter().any(|server| server.state.starts_with(begin));
        // HAProxy considers a server with weight 0 to be up, but sends it no new sessions.
        let drains = |row: &Row| is(row, "DRAIN") || (row.drains && is(row, "UP"));
        count("up", &|row| is(row, "UP") && !drains(row));
        count("down", &|row| is(row, "DOWN"));
        count("drain", &drains);
        count("maintenance", &|row| is(row, "MAINT"));
    }
    if states.members.is_ok() {
        text.head("lb_members_refused", "gauge", "Alive members with the role that cannot be registered");
        text.sample("lb_members_refused", &[], rows().filter(|row| row.refused.is_some()).count());
    }
    if states.known.is_ok() {
        text.head("lb_route_conflicts", "gauge", "Claims of services that are void, because another service has the place");
        text.sample("lb_route_conflicts", &[], view.conflicts().len());
    }
    text.head("lb_drift", "gauge", "Differences between a state and the one before it");
    for state in ["registry", "file", "HAProxy"] {
        text.sample("lb_drift", &[("state", state)], view.drift.iter().filter(|drift| drift.state == state).count());
    }

    text.head("lb_publishes_total", "counter", "Publishes that changed something, by how they were applied");
    for (applied, count) in [("run-time", stats.run_time), ("reload", stats.reload), ("file", stats.file)] {
        text.sample("lb_publishes_total", &[("applied", applied)], count);
    }
    text.head("lb_publish_failures_total", "counter", "Publishes that failed");
    text.sample("lb_publish_failures_total", &[], stats.failed);
    text.head("lb_publish_duration_seconds", "summary", "Duration of publishes that changed something");
    text.sample("lb_publish_duration_seconds_sum", &[], Duration::from_micros(stats.micros).as_secs_f64());
    text.sample("lb_publish_duration_seconds_count", &[], stats.generation());
    if let Some(synced) = last_sync {
        text.head("lb_last_sync_timestamp_seconds", "gauge", "Unix time at which everything last matched the member list");
        text.sample("lb_last_sync_timestamp_seconds", &[], synced);
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    /// Label values are fixed words or names of services, so they need no escaping.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
