//! The output for all nodes, or for one.

use std::collections::BTreeSet;
use std::path::Path;

use lb_core::os::escape::Quoted;
use lb_core::service::Roles;
use lb_core::tool::Exit;
use serde_json::{Value, json};

use crate::View;
use crate::drift::Drift;
use crate::history::{History, Log};
use crate::nodes::{Row, RunningServer};
use crate::table::{Colour, Style, printable, table};

/// Maximum number of failed members that are named.
const MAX_NAMED: usize = 5;

/// The table of the nodes, followed by the differences. `failed`: whether members that are nothing but failed have rows too.
#[must_use]
pub fn all(view: &View, failed: bool, style: Style) -> String {
    let (hidden, mut rows): (Vec<&Row>, Vec<&Row>) = view.nodes.rows.values().partition(|row| !failed && row.is_only_failed());
    rows.sort_by_key(|row| row.other_service());
    let drifting: BTreeSet<&str> = view.drift.iter().filter_map(|drift| drift.node.as_deref()).collect();
    let marked = |row: &Row| drifting.contains(row.name.as_str());
    let mut text = if rows.is_empty() { "no node\n".to_owned() } else { table(&rows, marked, &unknown(view), style) };
    let leaving = rows.iter().filter(|row| row.leaves()).map(|row| {
        let sessions = row.sessions();
        format!("{}: has left, {sessions} session{} to finish\n", printable(&row.name), if sessions == 1 { "" } else { "s" })
    });
    let kept = rows.iter().filter_map(|row| Some(format!("{}: {}\n", printable(&row.name), row.kept.as_ref()?)));
    let mut notes: Vec<String> = leaving.chain(kept).chain(of_failed(&hidden)).collect();
    notes.extend(view.conflicts().iter().map(|conflict| style.paint(Colour::Yellow, &conflict.to_string()) + "\n"));
    notes.extend(view.drift.iter().map(|drift| style.paint(Colour::Red, &told(drift)) + "\n"));
    notes.extend(view.states.unreadable().iter().map(|state| style.paint(Colour::Red, &cannot_read(*state)) + "\n"));
    if !notes.is_empty() {
        text += "\n";
        text.extend(notes);
    }
    text
}

/// One line about members that have no row.
fn of_failed(members: &[&Row]) -> Option<String> {
    let names: Vec<String> = members.iter().take(MAX_NAMED).map(|row| printable(&row.name)).collect();
    let more = if members.len() > MAX_NAMED { " …" } else { "" };
    let s = if members.len() == 1 { "" } else { "s" };
    (!members.is_empty()).then(|| format!("{} failed member{s}: {}{more} (--all shows them)\n", members.len(), names.join(" ")))
}

/// The states that cannot be read.
fn unknown(view: &View) -> Vec<&'static str> {
    view.states.unreadable().into_iter().map(|(state, _)| state).collect()
}

/// One line about a difference.
fn told(drift: &Drift) -> String {
    let node = drift.node.as_ref().map_or_else(|| drift.state.to_owned(), |node| printable(node));
    format!("{node}: {}", what_to_do(drift))
}

/// The difference and how to fix it, without control characters: it may quote a file that somebody else wrote.
fn what_to_do(drift: &Drift) -> String {
    format!("{}: {}", drift.what, drift.remedy).replace(char::is_control, "?")
}

/// One line about a state that cannot be read.
fn cannot_read((state, reason): (&str, &str)) -> String {
    format!("cannot read {state}: {}", reason.replace(char::is_control, " "))
}

/// The same as JSON.
#[must_use]
pub fn json(view: &View, generation: u64) -> String {
    let rows: Vec<&Row> = view.nodes.rows.values().collect();
    let document = json!({ "nodes": rows, "drift": view.drift, "unreadable": unreadable(view), "generation": generation });
    format!("{document}\n")
}

/// The states that cannot be read, with the reasons.
pub fn unreadable(view: &View) -> Vec<Value> {
    let entry = |(state, reason): (&str, &str)| json!({ "state": state, "reason": reason });
    view.states.unreadable().into_iter().map(entry).collect()
}

/// The message for a name that no node has. `role` is the role of the member with that name, if there is one.
#[must_use]
pub fn no_node(asked: &str, role: Option<&str>, wanted: &Roles) -> String {
    let asked = Quoted(asked);
    match role {
        Some(role) => {
            let (role, roles) = (Quoted(role), wanted.to_string());
            let (roles, several) = (Quoted(&roles), matches!(wanted, Roles::These(roles) if roles.len() > 1));
            let (are, with) = if several { ("are", "one of these as ROLE".to_owned()) } else { ("is", format!("ROLE={roles}")) };
            format!("{asked}: a member of the role {role}, and only {roles} {are} load-balanced: start it with {with}\n")
        }
        None => format!(
            "{asked}: no node has this name, container or address, and the log tells of none: does it run (docker ps), on \
             this network, and is it ready (docker logs)?\n"
        ),
    }
}

/// One node: where it is, and how it got there; `None` if nothing is known about it.
#[must_use]
pub fn one(view: &View, asked: &str, log: &Path, as_json: bool, style: Style) -> Option<(String, Exit)> {
    let (rows, log) = (&view.nodes.rows, Log::read(log));
    // If a node is gone, only the log has its container's name.
    let row = rows.get(asked).or_else(|| in_container_or_at(view, asked)).or_else(|| rows.get(log.node(asked)?));
    let name = row.map_or_else(|| log.node(asked).unwrap_or(asked), |row| &row.name);
    let container = row.and_then(|row| row.container.as_deref()).or_else(|| log.container(name));
    let history = History::of(&log, name);
    let drift: Vec<&Drift> = view.drift.iter().filter(|drift| drift.node.as_deref() == Some(name)).collect();
    let known = row.is_some() || !history.lines.is_empty();
    let exit = if known && drift.is_empty() && view.states.unreadable().is_empty() { Exit::Done } else { Exit::Failed };
    if as_json {
        let document = json!({
            "name": name, "container": container, "node": row, "drift": drift, "unreadable": unreadable(view), "history": history
        });
        return Some((format!("{document}\n"), exit));
    }
    if !known {
        return None;
    }
    let mut text = String::new();
    let mut line = |head: &str, what: &str| text += &format!("{}{what}\n", style.paint(Colour::Bold, &format!("{head:10}")));
    line("node", &printable(name));
    line("container", &container.map_or_else(|| "-".to_owned(), printable));
    match row {
        Some(row) => where_it_is(row, &unknown(view), &mut line),
        None if view.states.has_left(name) => line("now", "in none of the four states: the member has left"),
        None => line("now", "in none of the four states"),
    }
    for (head, what) in [("last", &history.last), ("refused", &history.refused)] {
        if let Some(what) = what {
            line(head, what);
        }
    }
    for drift in &drift {
        line("drift", &style.paint(Colour::Red, &what_to_do(drift)));
    }
    for state in view.states.unreadable() {
        text += &format!("{}\n", style.paint(Colour::Red, &cannot_read(state)));
    }
    if !history.lines.is_empty() {
        text += "\n";
    }
    for entry in &history.lines {
        text += &format!("{} {}: {}\n", entry.time, entry.tool, entry.message);
    }
    Some((text, exit))
}

/// The node in the container with this name, or at this address; alive nodes come first, as a dead one may have had it earlier.
fn in_container_or_at<'a>(view: &'a View, asked: &str) -> Option<&'a Row> {
    let rows = || view.nodes.rows.values();
    let is_at = |row: &&Row| row.address.as_deref() == Some(asked);
    let in_container = rows().find(|row| row.container.as_deref() == Some(asked));
    in_container.or_else(|| rows().filter(|row| row.is_alive()).find(is_at)).or_else(|| rows().find(is_at))
}

fn where_it_is(row: &Row, unknown: &[&str], line: &mut impl FnMut(&str, &str)) {
    let dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    if let Some(service) = row.other_service() {
        line("service", service);
    }
    let drains = if row.drains { ", drains" } else { "" };
    line("address", &format!("{} port {} weight {}{drains}", dash(&row.address), dash(&row.port), dash(&row.weight)));
    let mut known = |head: &str, state: &str, what: &str| line(head, if unknown.contains(&state) { "not known" } else { what });
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    known("member", "members", row.member.as_deref().unwrap_or("no"));
    if let Some(kept) = &row.kept {
        known("", "members", kept);
    }
    known("registry", "registry", yes(row.in_registry));
    known("file", "file", yes(row.in_file));
    if row.servers.is_empty() {
        known("HAProxy", "HAProxy", "no");
    }
    for server in &row.servers {
        line("HAProxy", &state(server));
    }
    if row.leaves() {
        line("", "it has left, and finishes what it has");
    }
}

fn state(server: &RunningServer) -> String {
    let mut text = format!("{} {}", server.server, server.state);
    if let Some(seconds) = server.since {
        text += &format!(" for {}", humantime::format_duration(std::time::Duration::from_secs(seconds)));
    }
    text += &format!(", sessions: {}", server.sessions);
    if let Some(check) = &server.last_check {
        text += &format!(", last check: {check}");
    }
    server.trouble.iter().fold(text, |text, trouble| text + " " + &printable(trouble))
}
