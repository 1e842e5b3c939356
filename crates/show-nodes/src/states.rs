//! The four states as they are now. One that cannot be read does not hide the others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_core::config::template::{Context, Template};
use lb_core::haproxy::ProcessOptions;
use lb_core::haproxy::last_applied::ProcessId;
use lb_core::haproxy::plan::Plan;
use lb_core::haproxy::{self, HaproxyError};
use lb_core::members::Member;
use lb_core::members::agent;
use lb_core::members::containers::Containers;
use lb_core::os::read_file::read_text;
use lb_core::publish::PublishOptions;
use lb_core::publish::{Applied, known, plan_file};
use lb_core::registry::Registry;
use lb_core::registry::witness::Witness;
use lb_core::service::{Known, Services};
use serde::Deserialize;

/// What could be read, or why not.
pub type Read<T> = Result<T, String>;

/// The four states, and what two of them should contain.
#[derive(Debug)]
pub struct States {
    /// The member list.
    pub members: Read<Vec<Member>>,
    /// The registry.
    pub registry: Read<Registry>,
    /// What is known about services, besides their nodes.
    pub known: Read<Known>,
    /// The template rendered with the registry.
    pub rendered: Read<String>,
    /// The text of the file.
    pub file: Read<String>,
    /// The servers of the running HAProxy.
    pub servers: Read<Vec<Server>>,
    /// The worker that has them.
    pub worker: Option<ProcessId>,
    /// What its health checks say.
    pub witness: Read<Witness>,
    /// What it would take to make the running HAProxy match the file.
    pub plan: Read<Plan>,
}

/// One server of the running HAProxy, as `show stat` reports it.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// Its backend.
    #[serde(rename = "# pxname")]
    pub backend: String,
    /// Its name.
    #[serde(rename = "svname")]
    pub name: String,
    /// `UP`, `DOWN`, `MAINT`, `DRAIN`, `no check` or another HAProxy status.
    pub status: String,
    /// Its current requests and connections.
    #[serde(rename = "scur")]
    pub sessions: u64,
    /// Seconds since the status changed.
    #[serde(rename = "lastchg")]
    pub since: Option<u64>,
    /// Address and port.
    pub addr: Option<String>,
    /// Its current weight.
    #[serde(rename = "uweight")]
    pub weight: Option<u64>,
    /// Requests in the last second.
    pub rate: Option<u64>,
    /// Mean response time of the last 1,024 requests, in milliseconds.
    #[serde(rename = "rtime")]
    pub latency_ms: Option<u64>,
    check_status: String,
    check_code: String,
    check_duration: String,
    last_chk: String,
}

impl Server {
    /// The last check in short, such as `L7OK/200 1ms`, or `None` if there was none.
    #[must_use]
    pub fn check(&self) -> Option<String> {
        if self.check_status.is_empty() {
            return None;
        }
        let part = |before: &str, text: &str, after: &str| match text {
            "" => String::new(),
            text => format!("{before}{text}{after}"),
        };
        Some(format!("{}{}{}", self.check_status, part("/", &self.check_code, ""), part(" ", &self.check_duration, "ms")))
    }

    /// Why the last check failed, if it did.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        let found = self.last_chk.trim();
        (!found.is_empty() && !self.check_status.ends_with("OK")).then_some(found)
    }
}

impl States {
    /// Role of the alive member with this name, container or address.
    #[must_use]
    pub fn role_of(&self, asked: &str, containers: &mut Containers) -> Option<&str> {
        let alive = || self.members.iter().flatten().filter(|member| member.status == "alive");
        let address = |member: &Member| member.address.parse::<IpAddr>().ok();
        containers.find(alive().filter_map(address));
        let is = |member: &&Member| {
            let address = address(member);
            member.name == asked
                || address.is_some_and(|address| address.to_string() == asked || containers.name(address) == Some(asked))
        };
        alive().find(is).map(|member| member.tags.get("role").map_or("", String::as_str))
    }

    /// Whether the member with this name has left gracefully.
    #[must_use]
    pub fn has_left(&self, name: &str) -> bool {
        self.members.iter().flatten().any(|member| member.name == name && member.status == "left")
    }

    /// HAProxy's message, if it rejects the rendered configuration.
    #[must_use]
    pub fn refusal(&self, options: &ProcessOptions) -> Option<String> {
        match haproxy::check(self.rendered.as_ref().ok()?, &options.config) {
            Err(HaproxyError::Rejected(words)) => Some(words),
            _ => None,
        }
    }

    /// The services, and who answers where, unless that cannot be read.
    #[must_use]
    pub fn services(&self) -> Option<Services<'_>> {
        let nodes: Vec<_> = self.registry.as_ref().ok()?.nodes().values().collect();
        Some(Services::of(&nodes, self.known.as_ref().ok()?))
    }

    /// Reads all of them.
    #[must_use]
    pub fn read(options: &PublishOptions) -> Self {
        let registry = Registry::read(&options.render.nodes_dir).map_err(told);
        let known = registry.as_ref().map_err(Clone::clone).and_then(|registry| known(registry, &options.render).map_err(told));
        let rendered = registry.as_ref().map_err(Clone::clone).and_then(|registry| {
            let context = Context::load(&options.render, &options.process.master_socket).map_err(told)?;
            let template = Template::load(&options.render.template).map_err(told)?.with_context(context);
            let known = known.as_ref().map_err(Clone::clone)?;
            template.render(registry.nodes().values(), known, options.render.port, &BTreeMap::new()).map_err(told)
        });
        let config = &options.process.config;
        let mut worker = None;
        Self {
            members: agent::members().map_err(told),
            registry,
            known,
            rendered,
            file: read_text(config).map_err(|error| format!("read {}: {error}", config.display())),
            servers: servers(&options.process, &mut worker),
            worker,
            witness: haproxy::witness(&options.process).map_err(told),
            plan: plan_file(&options.process).map_err(told).and_then(|plan| plan.ok_or_else(|| Applied::NotRunning.to_string())),
        }
    }

    /// The states that cannot be read, with the reasons.
    #[must_use]
    pub fn unreadable(&self) -> Vec<(&'static str, &str)> {
        let mut reasons = vec![
            ("members", self.members.as_ref().err()),
            ("registry", self.registry.as_ref().err()),
            ("file", self.file.as_ref().err()),
            ("HAProxy", self.servers.as_ref().err()),
        ];
        // These are derived from other states; if those are missing, there is nothing more to say.
        if self.registry.is_ok() {
            reasons.push(("template", self.rendered.as_ref().err()));
        }
        if self.file.is_ok() && self.servers.is_ok() {
            reasons.push(("HAProxy", self.plan.as_ref().err()));
        }
        reasons.into_iter().filter_map(|(state, reason)| Some((state, reason?.as_str()))).collect()
    }
}

/// An error message including all its sources.
pub fn told(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn servers(options: &ProcessOptions, worker: &mut Option<ProcessId>) -> Read<Vec<Server>> {
    let session = haproxy::find(&options.master_socket, &options.admin_socket).map_err(told)?;
    let mut session = session.ok_or_else(|| Applied::NotRunning.to_string())?;
    *worker = Some(session.worker());
    // All proxies, only servers, every server (HAProxy's management guide, "show stat").
    let command = "show stat -1 4 -1";
    let answer = session.ask(command).map_err(told)?;
    parse(&answer).map_err(|_| told(session.unexpected(command)))
}

fn parse(answer: &str) -> Result<Vec<Server>, csv::Error> {
    csv::ReaderBuilder::new().flexible(true).from_reader(answer.trim_start().as_bytes()).deserialize().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str =
        "# pxname,svname,scur,status,lastchg,check_status,check_code,check_duration,last_chk,addr,uweight,rate,rtime,-,
nodes,s1,3,UP,12,L7OK,200,1,\"Layer7 check passed, \"\"OK\"\"\",172.18.0.2:3000,100,7,2,,
nodes,s2,0,DOWN,1,L4CON,,0,Connection refused,172.18.0.3:3000,50,0,0,,
other,s3,0,no check,99,,,,,172.18.0.4:80,1,,,,
";

    #[test]
    fn servers_are_read_with_their_last_check() {
        let servers = parse(ANSWER).unwrap();
        let checks: Vec<_> = servers.iter().map(Server::check).collect();
        assert_eq!(checks, [Some("L7OK/200 1ms".to_owned()), Some("L4CON 0ms".to_owned()), None]);
        let troubles: Vec<_> = servers.iter().map(Server::trouble).collect();
        assert_eq!(troubles, [None, Some("Connection refused"), None]);
        assert_eq!((servers[0].rate, servers[0].latency_ms, servers[2].rate), (Some(7), Some(2), None));
        assert_eq!((servers[0].sessions, servers[0].weight, servers[2].since), (3, Some(100), Some(99)));
    }

    #[test]
    fn no_server_is_no_error_but_another_answer_is() {
        let header = ANSWER.lines().next().unwrap();
        assert_eq!(parse(&format!("{header}\n")).unwrap().len(), 0);
        assert!(parse("Unknown command: 'show'\n try 'help'\n").is_err());
    }
}
