//! Planning how to make the running process match the configuration file.

use std::collections::BTreeMap;

use crate::config::{Config, ServerKey, ServerLine, Settings};
use crate::haproxy::Server;
use crate::haproxy::command::{Action, Command};
use crate::haproxy::last_applied::LastApplied;
use crate::os::escape::Quoted;

/// Maximum number of commands in a plan, or the number of servers if that is greater; beyond that, a reload is faster.
const MAX_COMMANDS: usize = 1000;

/// How to get from the running configuration to the wanted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Commands at run time, possibly none. Connections to other servers are not affected.
    Commands(Vec<Command>),
    /// A reload, for this reason.
    Reload(String),
}

/// Compares the wanted configuration with the running one: `running` is what the worker is known to have read, and `servers`
/// are those it has now, whoever changed them.
#[must_use]
pub fn plan(wanted: &str, running: Option<&LastApplied>, servers: &BTreeMap<ServerKey, Server>) -> Plan {
    let Some(running) = running else {
        return Plan::Reload("it is unknown which configuration this HAProxy process has read".to_owned());
    };
    let new = Config::parse(wanted);
    // At rest they are equal, and thousands of servers need not be parsed twice.
    let old = (running.text != wanted).then(|| Config::parse(&running.text));
    let (known, wanted) = (old.as_ref().unwrap_or(&new), &new);
    if known.rest != wanted.rest {
        return Plan::Reload(first_difference(&known.rest, &wanted.rest));
    }
    if let Some(reason) = &wanted.irregular {
        let same = known.servers == wanted.servers && known.irregular == wanted.irregular;
        return if same { Plan::Commands(Vec::new()) } else { Plan::Reload(reason.clone()) };
    }
    Comparison { wanted, known: &known.servers, leaving: &running.leaving, servers }.plan()
}

/// Describes the first difference. If a line was removed, that line is named instead of the one that took its place.
fn first_difference(known: &[&str], wanted: &[&str]) -> String {
    let has_more = |lines: &[&str], others: &[&str], line: &str| {
        let count = |lines: &[&str]| lines.iter().filter(|other| **other == line).count();
        count(lines) > count(others)
    };
    let differ = known.iter().zip(wanted).find(|(known, wanted)| known != wanted);
    let shared = known.len().min(wanted.len());
    let (old, new) = match differ {
        Some((old, new)) => (Some(old), Some(new)),
        None => (known.get(shared), wanted.get(shared)),
    };
    match (old, new) {
        (_, Some(new)) if has_more(wanted, known, new) => format!("line {} is new or changed", quoted(new)),
        (Some(old), _) if has_more(known, wanted, old) => format!("line {} is gone", quoted(old)),
        (Some(line), _) | (None, Some(line)) => format!("line {} is in another place", quoted(line)),
        (None, None) => "nothing differs".to_owned(),
    }
}

/// A line as a message may quote it: without a password and what follows it.
fn quoted(line: &str) -> Quoted<'_> {
    const PASSWORD: &str = "password ";
    Quoted(line.find(PASSWORD).and_then(|at| line.get(..at + PASSWORD.len())).map_or(line, str::trim_end))
}

struct Comparison<'a> {
    wanted: &'a Config<'a>,
    known: &'a BTreeMap<ServerKey, ServerLine>,
    leaving: &'a BTreeMap<ServerKey, ServerLine>,
    servers: &'a BTreeMap<ServerKey, Server>,
}

impl Comparison<'_> {
    fn plan(&self) -> Plan {
        let mut commands = Vec::new();
        for (key, line) in &self.wanted.servers {
            match self.server(key, line, self.servers.get(key)) {
                Ok(actions) => commands.extend(actions.into_iter().map(|action| Command { server: key.clone(), action })),
                Err(reason) => return Plan::Reload(reason),
            }
        }
        // New servers were added first, so that there is always one to take over.
        for (key, server) in self.servers.iter().filter(|(key, _)| !self.wanted.servers.contains_key(key)) {
            let maintain = (!server.is_in_maintenance()).then_some(Action::Maintain);
            commands.extend(
                maintain.into_iter().chain([Action::DeleteWhenIdle]).map(|action| Command { server: key.clone(), action }),
            );
        }
        if commands.len() > MAX_COMMANDS.max(self.wanted.servers.len()) {
            return Plan::Reload(format!("it would take {} commands at run time", commands.len()));
        }
        Plan::Commands(commands)
    }

    /// The actions for one server of the file; `server` is its state in the worker.
    fn server(&self, key: &ServerKey, line: &ServerLine, server: Option<&Server>) -> Result<Vec<Action>, String> {
        let Some(server) = server else {
            return self.add(key, line);
        };
        let known = self.known.get(key).or_else(|| self.leaving.get(key));
        let moved = match (known, line.endpoint) {
            (Some(known), _) if known.arguments != line.arguments && !known.fixed().eq(line.fixed()) => {
                return self.replace(key, line);
            }
            (None, _) => return self.replace(key, line),
            (Some(_), Some((address, port))) if (server.address, server.port) == (Some(address), port) => None,
            (Some(_), Some((address, port))) => Some(Action::Move { address, port }),
            (Some(known), None) if known.address != line.address => return self.replace(key, line),
            (Some(_), None) => None,
        };
        let settings = line.settings();
        let had_weight = || known.is_some_and(|known| known.settings().weight.is_some());
        if self.has_defaults(key) && settings.weight.is_none() && had_weight() {
            return Err(format!("server {key} now takes its weight from default-server"));
        }
        let state = match (settings.disabled, server.is_in_maintenance()) {
            (true, is_in_maintenance) => (!is_in_maintenance).then_some(Action::Maintain),
            (false, _) => server.is_forced().then_some(Action::Ready),
        };
        let check = (!server.is_checked() && settings.check).then_some(Action::Check);
        Ok([moved, self.weigh(key, settings, server), check, state].into_iter().flatten().collect())
    }

    fn weigh(&self, key: &ServerKey, settings: Settings<'_>, server: &Server) -> Option<Action> {
        let written = match settings.weight {
            Some(text) => text.parse().ok()?,
            None if self.has_defaults(key) => return None,
            None => 1,
        };
        (server.weight != written).then_some(Action::Weigh(written))
    }

    fn add(&self, key: &ServerKey, line: &ServerLine) -> Result<Vec<Action>, String> {
        if self.has_defaults(key) {
            return Err(format!("server {key} is new, and a server added at run time ignores default-server"));
        }
        let settings = line.settings();
        let check = settings.check.then_some(Action::Check);
        let ready = (!settings.disabled).then_some(Action::Ready);
        Ok([Some(Action::Add(line.to_string())), check, ready].into_iter().flatten().collect())
    }

    fn replace(&self, key: &ServerKey, line: &ServerLine) -> Result<Vec<Action>, String> {
        let mut actions = vec![Action::Maintain, Action::Delete];
        actions.extend(self.add(key, line)?);
        Ok(actions)
    }

    fn has_defaults(&self, key: &ServerKey) -> bool {
        self.wanted.with_defaults.contains(&key.backend.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::parse_servers;

    const HEAD: &str = "backend nodes\n  balance roundrobin\n";

    fn config(servers: &[&str]) -> String {
        servers.iter().fold(HEAD.to_owned(), |text, server| format!("{text}  server {server}\n"))
    }

    /// `name address port admin_state weight check_state`
    fn actual(servers: &[(&str, &str, u16, u32, u32, u32)]) -> String {
        let head =
            "1\n# be_name srv_name srv_addr srv_port srv_admin_state srv_uweight srv_check_state srv_op_state srv_check_status\n";
        let mut text = head.to_owned();
        for (name, address, port, admin, weight, check) in servers {
            text.push_str(&format!("nodes {name} {address} {port} {admin} {weight} {check} 2 15\n"));
        }
        text
    }

    fn run(wanted: &str, known: &str, leaving: &[&str], servers: &[(&str, &str, u16, u32, u32, u32)]) -> Vec<String> {
        let leaving = leaving.iter().map(|line| line.split_once(' ').unwrap());
        let leaving = leaving.map(|(server, line)| (ServerKey::new("nodes", server), line.parse().unwrap())).collect();
        let running = LastApplied { text: known.to_owned(), leaving, ..LastApplied::default() };
        match plan(wanted, Some(&running), &parse_servers(&actual(servers)).unwrap()) {
            Plan::Commands(commands) => commands.iter().map(ToString::to_string).collect(),
            Plan::Reload(reason) => vec![format!("reload: {reason}")],
        }
    }

    const S1: &str = "s1 172.18.0.2:3000 check";
    const UP: (&str, &str, u16, u32, u32, u32) = ("s1", "172.18.0.2", 3000, 0, 1, 6);

    #[test]
    fn nothing_differs_nothing_is_done() {
        assert!(run(&config(&[S1]), &config(&[S1]), &[], &[UP]).is_empty());
    }

    #[test]
    fn a_new_node_is_added_with_all_arguments() {
        let s2 = "s2 172.18.0.3:3000 check weight 5 cookie s2";
        assert_eq!(
            run(&config(&[S1, s2]), &config(&[S1]), &[], &[UP]),
            [
                "add server nodes/s2 172.18.0.3:3000 check weight 5 cookie s2",
                "enable health nodes/s2",
                "set server nodes/s2 state ready",
            ]
        );
    }

    #[test]
    fn a_node_that_is_named_disabled_is_made_ready() {
        let line = "disabled 172.18.0.3:3000 weight 5 cookie disabled check";
        let last = run(&config(&[S1, line]), &config(&[S1]), &[], &[UP]).pop();
        assert_eq!(last.as_deref(), Some("set server nodes/disabled state ready"));
    }

    #[test]
    fn a_leaving_node_is_put_to_maintenance_and_deleted_when_idle() {
        assert_eq!(run(&config(&[]), &config(&[S1]), &[], &[UP]), ["set server nodes/s1 state maint", "del server nodes/s1"]);
        assert_eq!(run(&config(&[]), &config(&[]), &[S1], &[("s1", "172.18.0.2", 3000, 1, 1, 6)]), ["del server nodes/s1"]);
    }

    #[test]
    fn a_leaving_node_that_returns_is_used_again() {
        let s1 = "s1 172.18.0.9:3000 check";
        assert_eq!(
            run(&config(&[s1]), &config(&[]), &[S1], &[("s1", "172.18.0.2", 3000, 1, 1, 6)]),
            ["set server nodes/s1 addr 172.18.0.9 port 3000", "set server nodes/s1 state ready",]
        );
    }

    #[test]
    fn address_and_weight_change_in_place() {
        let wanted = config(&["s1 [fd00::1]:8080 check weight 0"]);
        assert_eq!(
            run(&wanted, &config(&[S1]), &[], &[UP]),
            ["set server nodes/s1 addr fd00::1 port 8080", "set server nodes/s1 weight 0"]
        );
    }

    #[test]
    fn other_arguments_mean_a_new_server() {
        assert_eq!(
            run(&config(&["s1 172.18.0.2:3000 check inter 1s"]), &config(&[S1]), &[], &[UP]),
            [
                "set server nodes/s1 state maint",
                "del server nodes/s1",
                "add server nodes/s1 172.18.0.2:3000 check inter 1s",
                "enable health nodes/s1",
                "set server nodes/s1 state ready",
            ]
        );
    }

    #[test]
    fn what_somebody_changed_by_hand_is_repaired() {
        let same = config(&[S1]);
        assert_eq!(
            run(&same, &same, &[], &[("s1", "172.18.0.7", 3000, 0, 1, 6)]),
            ["set server nodes/s1 addr 172.18.0.2 port 3000"]
        );
        assert_eq!(run(&same, &same, &[], &[("s1", "172.18.0.2", 3000, 8, 1, 6)]), ["set server nodes/s1 state ready"]);
        assert_eq!(run(&same, &same, &[], &[("s1", "172.18.0.2", 3000, 0, 7, 6)]), ["set server nodes/s1 weight 1"]);
        assert_eq!(run(&same, &same, &[], &[("s1", "172.18.0.2", 3000, 0, 1, 2)]), ["enable health nodes/s1"]);
        let stranger = ("x", "172.18.0.8", 3000, 0, 1, 6);
        assert_eq!(run(&same, &same, &[], &[UP, stranger]), ["set server nodes/x state maint", "del server nodes/x"]);
        assert_eq!(run(&same, &same, &[], &[])[0], "add server nodes/s1 172.18.0.2:3000 check");
    }

    #[test]
    fn a_server_that_the_file_disables_goes_back_to_maintenance() {
        let same = config(&["s1 172.18.0.2:3000 check disabled"]);
        // What the file disables has one more bit in its state, which no command changes.
        assert!(run(&same, &same, &[], &[("s1", "172.18.0.2", 3000, 5, 1, 6)]).is_empty());
        for state in [4, 12] {
            let found = run(&same, &same, &[], &[("s1", "172.18.0.2", 3000, state, 1, 6)]);
            assert_eq!(found, ["set server nodes/s1 state maint"], "{state}");
        }
    }

    #[test]
    fn anything_else_needs_a_reload() {
        let known = config(&[S1]);
        let other = known.replace("roundrobin", "leastconn");
        assert_eq!(run(&other, &known, &[], &[UP]), ["reload: line 'balance leastconn' is new or changed"]);
        let defaults = known.replace("balance", "default-server inter 1s\n  balance");
        assert!(run(&config(&[S1]), &defaults, &[], &[UP])[0].starts_with("reload: "));
        let weighed = defaults.replace(S1, "s1 172.18.0.2:3000 check weight 5");
        assert!(run(&defaults, &weighed, &[], &[UP])[0].ends_with("weight from default-server"));
        let quoted = config(&["s1 172.18.0.2:3000 sni \"x\""]);
        assert!(run(&quoted, &known, &[], &[UP])[0].starts_with("reload: a server line"));
        assert!(run(&quoted, &quoted, &[], &[UP]).is_empty());
        let moved = quoted.replace("172.18.0.2", "172.18.0.9");
        assert!(run(&moved, &quoted, &[], &[UP])[0].starts_with("reload: a server line"));
    }

    #[test]
    fn a_changed_password_is_not_quoted() {
        let [old, new] = ["old", "new"].map(|secret| format!("{HEAD}userlist stats\n  user me password {secret} groups all\n"));
        assert_eq!(run(&new, &old, &[], &[]), ["reload: line 'user me password' is new or changed"]);
    }

    #[test]
    fn another_host_name_means_a_new_server() {
        let [one, other] = ["one", "other"].map(|name| config(&[&format!("s1 {name}.example:3000")]));
        // Where a name leads is for HAProxy to find out.
        assert!(run(&one, &one, &[], &[UP]).is_empty());
        let made = ["add server nodes/s1 other.example:3000", "set server nodes/s1 state ready"];
        let expected = [&["set server nodes/s1 state maint", "del server nodes/s1"], &made[..]].concat();
        assert_eq!(run(&other, &one, &[], &[UP]), expected);
    }

    #[test]
    fn the_line_that_differs_is_the_one_that_is_told() {
        let reason = |known: &str, wanted: &str| {
            let lines = |text: &str| text.split(' ').map(|line| format!(" {line}\n")).collect::<String>();
            run(&lines(wanted), &lines(known), &[], &[]).pop().unwrap()
        };
        for (known, wanted, told) in [
            ("a b c", "a c", "'b' is gone"),
            ("a b c", "b c", "'a' is gone"),
            ("a b c", "a b", "'c' is gone"),
            ("a b c", "a x b c", "'x' is new or changed"),
            ("a b c", "a x c", "'x' is new or changed"),
            ("a b c", "a b c x", "'x' is new or changed"),
            ("a b c", "a c b", "'b' is in another place"),
            // One of two lines that are the same is gone, and something else is changed.
            ("mode a mode b", "a mode x", "'mode' is gone"),
            ("mode a b", "mode mode a x", "'mode' is new or changed"),
        ] {
            assert_eq!(reason(known, wanted), format!("reload: line {told}"), "{known} -> {wanted}");
        }
    }

    #[test]
    fn more_servers_may_take_more_commands() {
        let lines: Vec<String> = (0..1500_u16).map(|number| format!("s{number} 10.0.0.1:{number} check")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let names: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        let servers: Vec<_> = (0_u16..).zip(&names).map(|(port, name)| (*name, "10.0.0.1", port, 0, 1, 6)).collect();
        let joined = |before: usize, all: usize| run(&config(&lines[..all]), &config(&lines[..before]), &[], &servers[..before]);
        assert_eq!(joined(1000, 1500).len(), 1500);
        assert_eq!(joined(0, 334), ["reload: it would take 1002 commands at run time"]);
    }

    #[test]
    fn a_new_server_under_default_server_needs_a_reload() {
        let head = "backend nodes\n  default-server inter 1s\n";
        let known = format!("{head}  server {S1}\n");
        let wanted = format!("{known}  server s2 172.18.0.3:3000 check\n");
        assert!(run(&wanted, &known, &[], &[UP])[0].contains("default-server"));
        assert_eq!(run(head, &known, &[], &[UP]).len(), 2);
    }

    #[test]
    fn an_unknown_process_is_reloaded() {
        assert!(matches!(plan("", None, &BTreeMap::new()), Plan::Reload(_)));
    }
}
