//! A model of HAProxy's servers: how they start from a file, and what a command does to them.
//!
//! It is written from HAProxy 3.0's manuals (configuration, sections 4.2 and 5.2; management, section 9.3) and knows the
//! few server options that are needed to tell a good plan from a bad one. Fuzz targets use it as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::mem;
use std::net::IpAddr;

use lb_core::config::{Config, ServerKey, ServerLine};
use lb_core::haproxy::command::Action;
use lb_core::haproxy::last_applied::LastApplied;
use lb_core::haproxy::parse_servers;
use lb_core::haproxy::plan::{Plan, plan};

/// Whether HAProxy takes this value of an option that makes no difference here beside being there; `None` for another
/// option.
fn takes(option: &str, value: &str) -> Option<bool> {
    match option {
        "cookie" | "redir" => Some(true),
        "inter" | "fall" | "rise" | "error-limit" => Some(value.starts_with(|c: char| c.is_ascii_digit())),
        "observe" => Some(matches!(value, "layer4" | "layer7")),
        "on-error" => Some(matches!(value, "fastinter" | "fail-check" | "sudden-death" | "mark-down")),
        _ => None,
    }
}

/// What a server line, or a `default-server` line before it, says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    weight: u32,
    check: bool,
    disabled: bool,
    others: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { weight: 1, check: false, disabled: false, others: BTreeMap::new() }
    }
}

impl Options {
    /// Adds what `words` say; `None` when HAProxy would refuse them, or the model does not know them.
    fn read<'a>(mut self, mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        while let Some(word) = words.next() {
            match word {
                "weight" => self.weight = words.next()?.parse().ok().filter(|weight| *weight <= 256)?,
                "check" => self.check = true,
                "disabled" => self.disabled = true,
                "backup" => drop(self.others.insert(word.to_owned(), String::new())),
                _ => {
                    let value = words.next()?;
                    takes(word, value)?.then(|| self.others.insert(word.to_owned(), value.to_owned()))?;
                }
            }
        }
        Some(self)
    }
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    options: Options,
    address: IpAddr,
    port: u16,
    weight: u32,
    maintenance: bool,
    drain: bool,
    checked: bool,
    /// Whether its health checks fail.
    down: bool,
}

impl Server {
    /// A server of the file, as it is after the start.
    fn started(mut options: Options, address: &str) -> Option<Self> {
        let (address, port) = resolve(address)?;
        // The weight of the file is no more than that at the start.
        let (weight, maintenance, checked) = (mem::take(&mut options.weight), options.disabled, options.check);
        Some(Self { options, address, port, weight, maintenance, drain: false, checked, down: false })
    }
}

/// Address and port of a server. A name is looked up at the start; here all have one address.
fn resolve(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let is_name = !ip.is_empty() && ip.bytes().all(|b| b.is_ascii_lowercase());
    let address = if is_name { IpAddr::from([127, 0, 0, 53]) } else { ip.parse().ok()? };
    let is_number = port.bytes().all(|b| b.is_ascii_digit());
    Some((address, port.parse().ok().filter(|port| is_number && *port > 0)?))
}

/// Whether HAProxy takes this as the name of a section or server.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// All servers of a running HAProxy, by `<backend>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haproxy {
    servers: BTreeMap<String, Server>,
    /// Servers with connections: they cannot be deleted.
    busy: BTreeSet<String>,
}

impl Haproxy {
    /// HAProxy, just started with this file; `None` when it would refuse it, or the model does not know what is there.
    pub fn start(text: &str) -> Option<Self> {
        // Which of them separate words is not worth knowing here.
        if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            return None;
        }
        let mut servers = BTreeMap::new();
        let (mut section, mut name, mut names, mut conditions) = ("global", "", BTreeSet::new(), 0_u32);
        let (mut inherited, mut defaults) = (Options::default(), Options::default());
        for line in text.split('\n') {
            let line = line.split_once('#').map_or(line, |(line, _)| line);
            let mut words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
            let Some(first) = words.next() else { continue };
            match first {
                ".if" => conditions += 1,
                ".endif" => conditions = conditions.checked_sub(1)?,
                "server" | "default-server" | "backend" | "listen" | "defaults" if conditions > 0 => return None,
                "global" | "defaults" | "frontend" | "backend" | "listen" | "peers" => {
                    (section, name) = (first, words.next().unwrap_or(""));
                    if first == "defaults" {
                        inherited = Options::default();
                    }
                    // A frontend and a backend may have one name.
                    let sides: &[&str] = match first {
                        "frontend" => &["frontend"],
                        "backend" => &["backend"],
                        "listen" => &["frontend", "backend"],
                        _ => &[],
                    };
                    for side in sides {
                        (is_name(name) && names.insert((side, name))).then_some(())?;
                    }
                    defaults = inherited.clone();
                }
                "default-server" if section == "defaults" => inherited = inherited.read(words)?,
                "default-server" => defaults = defaults.read(words)?,
                "server" if matches!(section, "backend" | "listen") => {
                    let key = format!("{name}/{}", words.next().filter(|name| is_name(name))?);
                    let address = words.next()?;
                    let server = Server::started(defaults.clone().read(words)?, address)?;
                    if servers.insert(key, server).is_some() {
                        return None;
                    }
                }
                "server-template" => return None,
                _ => {}
            }
        }
        Some(Self { servers, busy: BTreeSet::new() })
    }

    /// Gives a server connections, or ends them.
    pub fn set_busy(&mut self, server: &str, busy: bool) {
        self.busy.remove(server);
        if busy {
            self.busy.insert(server.to_owned());
        }
    }

    /// Lets the health checks of a server fail, or pass again.
    pub fn set_down(&mut self, server: &str, down: bool) {
        self.servers.get_mut(server).expect("a server").down = down;
    }

    /// The answer to `show servers state`, with the columns that are read.
    pub fn show(&self) -> String {
        let mut answer = "1\n# be_name srv_name srv_op_state srv_addr srv_port srv_uweight srv_admin_state srv_check_status \
            srv_check_state"
            .to_owned();
        for (key, server) in &self.servers {
            let (backend, name) = key.split_once('/').expect("a key");
            let admin = u8::from(server.maintenance) | (u8::from(server.drain) << 3);
            let check = 2 | (u8::from(server.checked) << 2);
            let Server { address, port, weight, .. } = server;
            // Up or stopped; the last check has passed on layer 7, or has found nobody.
            let (state, status) = if server.down { (0, 8) } else { (if server.maintenance { 0 } else { 2 }, 15) };
            write!(answer, "\n{backend} {name} {state} {address} {port} {weight} {admin} {status} {check}").expect("memory");
        }
        answer
    }

    /// Carries a command out, and gives HAProxy's answer; `None` for one that it refuses.
    pub fn command(&mut self, command: &str) -> Option<&'static str> {
        let words: Vec<&str> = command.split(' ').collect();
        if let ["add", "server", key, address, arguments @ ..] = &words[..] {
            let (backend, name) = key.split_once('/')?;
            if !is_name(backend) || !is_name(name) || self.servers.contains_key(*key) {
                return None;
            }
            let options = Options::default().read(arguments.iter().copied())?;
            let server = Server { maintenance: true, checked: false, ..Server::started(options, address)? };
            self.servers.insert((*key).to_owned(), server);
            return Some("New server registered.");
        }
        if let ["del", "server", key] = words[..] {
            let idle = self.servers.get(key)?.maintenance && !self.busy.contains(key);
            return idle.then(|| self.servers.remove(key)).map(|_| "Server deleted.");
        }
        let server = self.servers.get_mut(*words.get(2)?)?;
        match words[..] {
            ["enable", "health", _] if server.options.check => server.checked = true,
            ["disable", "health", _] => server.checked = false,
            ["set", "server", _, "state", "ready"] => (server.maintenance, server.drain) = (false, false),
            ["set", "server", _, "state", "maint"] => (server.maintenance, server.drain) = (true, false),
            ["set", "server", _, "state", "drain"] => (server.maintenance, server.drain) = (false, true),
            ["set", "server", _, "weight", weight] => server.weight = weight.parse().ok().filter(|weight| *weight <= 256)?,
            ["set", "server", _, "addr", address, "port", port] => {
                (server.address, server.port) = (address.parse().ok()?, port.parse().ok().filter(|port| *port > 0)?);
                return Some("IP changed from one to another, port changed by 'stats socket command'");
            }
            _ => return None,
        }
        Some("")
    }

    /// The servers other than those that wait for their last connections; these must get no new ones.
    fn without(&self, leaving: &BTreeSet<String>) -> BTreeMap<&String, &Server> {
        let gets_none = |key| self.servers.get(key).is_some_and(|server| server.maintenance);
        assert!(leaving.iter().all(gets_none), "{leaving:?} get requests");
        self.servers.iter().filter(|(key, _)| !leaving.contains(*key)).collect()
    }
}

/// HAProxy, and the record of what it runs.
#[derive(Debug, Clone)]
pub struct Process {
    /// HAProxy, which somebody may change by hand.
    pub haproxy: Haproxy,
    record: LastApplied,
    /// Servers that wait for their last connections; of those that somebody added by hand there is no record.
    leaving: BTreeSet<String>,
}

impl Process {
    /// HAProxy, just started with this file, if the model knows what is there.
    pub fn start(text: &str) -> Option<Self> {
        let record = LastApplied { text: text.to_owned(), ..LastApplied::default() };
        Some(Self { haproxy: Haproxy::start(text)?, record, leaving: BTreeSet::new() })
    }

    /// Makes the process equal to this file, as publishing does, and shows that it is what a fresh start would be. Tells
    /// what was done, or `None` when the model does not know what is in the file.
    ///
    /// # Panics
    /// When it is not equal afterwards, or a command is refused that should not be.
    pub fn publish(&mut self, text: &str) -> Option<Plan> {
        let fresh = Self::start(text)?;
        let servers = self.haproxy.show();
        let plan = plan(text, Some(&self.record), &parse_servers(&servers).expect("the model's servers"));
        match self.follow(&plan) {
            Some(kept) => {
                self.record = LastApplied { text: text.to_owned(), leaving: self.lines(&kept), ..LastApplied::default() };
                self.leaving = kept;
            }
            None => self.clone_from(&fresh),
        }
        assert_eq!(self.haproxy.without(&self.leaving), fresh.haproxy.without(&fresh.leaving), "{plan:?} leads elsewhere");
        Some(plan)
    }

    /// Does what a plan says. Tells which servers wait for their last connections, or `None` when HAProxy must read the
    /// file anew.
    fn follow(&mut self, plan: &Plan) -> Option<BTreeSet<String>> {
        let Plan::Commands(commands) = plan else { return None };
        let mut kept = BTreeSet::new();
        for command in commands {
            let answer = self.haproxy.command(&command.to_string());
            if answer.is_some_and(|answer| command.action.is_done(answer)) {
                continue;
            }
            let server = command.server.to_string();
            assert!(self.haproxy.busy.contains(&server), "refused: {command} in {plan:?}");
            if command.action != Action::DeleteWhenIdle {
                return None;
            }
            kept.insert(server);
        }
        Some(kept)
    }

    /// The lines of these servers in the record.
    fn lines(&self, kept: &BTreeSet<String>) -> BTreeMap<ServerKey, ServerLine> {
        let mut lines = Config::parse(&self.record.text).servers;
        lines.extend(self.record.leaving.clone());
        lines.retain(|key, _| kept.contains(&key.to_string()));
        lines
    }
}
