//! HAProxy's statistics, from its socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Time limit for each step of an answer from HAProxy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum length of an answer, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// HAProxy's statistics for a backend.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Requests in progress, including those waiting for a server.
    pub requests: u32,
    /// Its servers, by name.
    pub servers: BTreeMap<String, Server>,
}

/// HAProxy's statistics for a server.
#[derive(Debug, PartialEq, Eq)]
pub struct Server {
    /// Such as `UP`, `UP 1/2`, `DRAIN`, `MAINT` or `no check`.
    pub status: String,
    /// Its share of the new sessions, relative to the weights of the others.
    pub weight: u32,
    /// Result of the last health check, such as `L7OK` or `L4CON`; `INI` before the first one.
    pub check: String,
    /// Requests in progress.
    pub requests: u32,
    /// Number of requests since the worker was started.
    pub total: u64,
}

impl Backend {
    /// The servers of the node with this hostname: a number is appended to its name while the cluster holds that for an old
    /// address.
    pub fn servers_of<'a>(&'a self, hostname: &'a str) -> impl Iterator<Item = &'a Server> {
        let is_it = move |name: &str| {
            let rest = name.strip_prefix(hostname);
            rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<u32>().is_ok()))
        };
        self.servers.iter().filter(move |(name, _)| is_it(name)).map(|(_, server)| server)
    }
}

impl Server {
    /// Whether it gets requests. One that is `UP 1/2` is going down but still does; a draining one is finishing its requests.
    #[must_use]
    pub fn is_up(&self) -> bool {
        ["UP", "DRAIN", "no check"].iter().any(|up| self.status.starts_with(up))
    }

    /// Whether it gets no new sessions: the tag `drain=yes` makes its weight 0.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.weight == 0 || self.status.starts_with("DRAIN")
    }

    /// Whether it gets new sessions and its last health check has passed: before the first one, HAProxy takes it for up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let passed = self.status == "no check" || self.check.ends_with("OK");
        self.is_up() && !self.is_draining() && passed
    }
}

/// Asks the socket at `address`, HOST:PORT, about one backend; `None` if there is no such backend.
pub(crate) fn ask(address: &str, backend: &str) -> Result<Option<Backend>> {
    let answer = show_stat(address).with_context(|| format!("HAProxy socket {address}"))?;
    parse(&answer, backend).with_context(|| format!("HAProxy socket {address}"))
}

fn show_stat(address: &str) -> Result<String> {
    let first = address.to_socket_addrs()?.next().context("no address")?;
    let mut stream = TcpStream::connect_timeout(&first, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"show stat\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Reads the CSV of `show stat` (HAProxy 3.0 management guide, section 9.1), whose first line names the columns.
fn parse(csv: &str, backend: &str) -> Result<Option<Backend>> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().and_then(|line| line.strip_prefix("# ")).context("no statistics")?.split(',').collect();
    let column = |name: &str| names.iter().position(|column| *column == name).with_context(|| format!("no column {name}"));
    let (proxy, server, status) = (column("pxname")?, column("svname")?, column("status")?);
    let (current, total, weight, check) = (column("scur")?, column("stot")?, column("weight")?, column("check_status")?);
    let mut found = Backend { requests: 0, servers: BTreeMap::new() };
    let mut whole = false;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |column: usize| fields.get(column).copied().unwrap_or_default();
        let no_figures = || format!("backend {backend}: no figures");
        match field(server) {
            _ if field(proxy) != backend => {}
            "FRONTEND" => {}
            "BACKEND" => {
                found.requests = field(current).parse().with_context(no_figures)?;
                whole = true;
            }
            name => {
                let server = Server {
                    status: field(status).to_owned(),
                    weight: field(weight).parse().with_context(no_figures)?,
                    // An asterisk says that another check is in progress.
                    check: field(check).trim_start_matches("* ").to_owned(),
                    requests: field(current).parse().with_context(no_figures)?,
                    total: field(total).parse().with_context(no_figures)?,
                };
                found.servers.insert(name.to_owned(), server);
            }
        }
    }
    // An answer that was cut off has servers, but not the line of the backend, which is the last.
    ensure!(whole || found.servers.is_empty(), "backend {backend}: no figures");
    Ok(whole.then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,\
        wredis,status,weight,check_status\n";

    fn row(proxy: &str, server: &str, queued: &str, current: &str, status: &str, check: &str) -> String {
        let weight = if server == "s6" { 0 } else { 100 };
        format!("{proxy},{server},{queued},0,{current},9,,27,9,9,,0,,0,0,0,0,{status},{weight},{check}\n")
    }

    fn backend() -> Backend {
        let csv = HEAD.to_owned()
            + &row("http", "FRONTEND", "", "99", "OPEN", "")
            + &row("nodes", "s1", "0", "3", "UP", "L7OK")
            + &row("nodes", "s1-2", "0", "4", "UP 1/2", "* L7OK")
            + &row("nodes", "s1-blue", "0", "0", "DOWN", "L4CON")
            + &row("nodes", "s4", "0", "0", "MAINT", "L7OK")
            + &row("nodes", "s5", "0", "1", "no check", "")
            + &row("nodes", "s6", "0", "2", "UP", "L7OK")
            + &row("nodes", "s8", "0", "2", "DRAIN", "L7OK")
            + &row("nodes", "s7", "0", "0", "UP", "INI")
            + &row("nodes", "BACKEND", "2", "8", "UP", "")
            + &row("stats", "BACKEND", "0", "50", "UP", "");
        parse(&csv, "nodes").unwrap().unwrap()
    }

    #[test]
    fn requests_of_the_backend_and_of_its_servers_are_read() {
        let backend = backend();
        assert_eq!((backend.requests, backend.servers.len()), (8, 8));
        let server = Server { status: "UP 1/2".to_owned(), weight: 100, check: "L7OK".to_owned(), requests: 4, total: 27 };
        assert_eq!(backend.servers.get("s1-2"), Some(&server));
    }

    #[test]
    fn a_server_gets_requests_before_it_is_ready_and_after_it_drains() {
        let backend = backend();
        let are = |is: fn(&Server) -> bool| -> Vec<&str> {
            backend.servers.iter().filter(|(_, server)| is(server)).map(|(name, _)| name.as_str()).collect()
        };
        assert_eq!(are(Server::is_up), ["s1", "s1-2", "s5", "s6", "s7", "s8"]);
        assert_eq!(are(Server::is_ready), ["s1", "s1-2", "s5"]);
        assert_eq!(are(Server::is_draining), ["s6", "s8"]);
    }

    #[test]
    fn a_node_has_the_servers_with_its_hostname_and_a_number() {
        let backend = backend();
        let requests = |hostname: &str| backend.servers_of(hostname).map(|server| server.requests).collect::<Vec<_>>();
        assert_eq!((requests("s1"), requests("s"), requests("s1-blue")), (vec![3, 4], vec![], vec![0]));
    }

    #[test]
    fn an_answer_that_is_no_statistics_of_the_backend_is_an_error() {
        let half = HEAD.to_owned() + &row("nodes", "s1", "0", "3", "UP", "L7OK");
        let garbled = HEAD.to_owned() + &row("nodes", "BACKEND", "0", "many", "UP", "");
        for text in ["", "# ", "Permission denied\n", &half, &garbled] {
            assert!(parse(text, "nodes").is_err(), "{text}");
        }
        assert_eq!(parse(HEAD, "nodes").unwrap(), None);
    }
}
