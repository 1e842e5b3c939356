//! HAProxy's statistics, from its socket.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Time limit for each step of an answer from HAProxy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum length of an answer, in bytes.
const MAX_ANSWER: u64 = 4 << 20;

/// HAProxy's statistics for a backend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Requests in progress, including those waiting for a server.
    pub(crate) requests: u32,
    /// The servers that are up.
    pub(crate) up: BTreeSet<String>,
}

/// Asks the socket at `address`, HOST:PORT, about one backend.
pub(crate) fn ask(address: &str, backend: &str) -> Result<Backend> {
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
fn parse(csv: &str, backend: &str) -> Result<Backend> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().and_then(|line| line.strip_prefix("# ")).context("no statistics")?.split(',').collect();
    let column = |name: &str| names.iter().position(|column| *column == name).with_context(|| format!("no column {name}"));
    let (proxy, server, status) = (column("pxname")?, column("svname")?, column("status")?);
    let current = column("scur")?;
    let mut found = Backend { requests: 0, up: BTreeSet::new() };
    let mut whole = false;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |column: usize| fields.get(column).copied().unwrap_or_default();
        if field(proxy) != backend {
            continue;
        }
        match field(server) {
            "BACKEND" => {
                found.requests = field(current).parse().with_context(|| format!("backend {backend}: no figures"))?;
                whole = true;
            }
            // "UP 1/2" is going down but still takes requests; a draining server is finishing its requests.
            name if ["UP", "DRAIN", "no check"].iter().any(|up| field(status).starts_with(up)) => {
                found.up.insert(name.to_owned());
            }
            _ => {}
        }
    }
    ensure!(whole, "no backend {backend}");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight\n";

    fn row(proxy: &str, server: &str, queued: &str, current: &str, status: &str) -> String {
        format!("{proxy},{server},{queued},0,{current},9,,9,9,9,,0,,0,0,0,0,{status},100\n")
    }

    #[test]
    fn requests_of_the_backend_and_servers_that_are_up_are_read() {
        let csv = HEAD.to_owned()
            + &row("http", "FRONTEND", "", "99", "OPEN")
            + &row("nodes", "s1", "0", "3", "UP")
            + &row("nodes", "s2", "0", "4", "UP 1/2")
            + &row("nodes", "s3", "0", "0", "DOWN")
            + &row("nodes", "s4", "0", "0", "MAINT")
            + &row("nodes", "s5", "0", "1", "no check")
            + &row("nodes", "BACKEND", "2", "8", "UP")
            + &row("stats", "BACKEND", "0", "50", "UP");
        let up = ["s1", "s2", "s5"].map(str::to_owned).into();
        assert_eq!(parse(&csv, "nodes").unwrap(), Backend { requests: 8, up });
    }

    #[test]
    fn an_answer_that_is_no_statistics_of_the_backend_is_an_error() {
        let half = HEAD.to_owned() + &row("nodes", "s1", "0", "3", "UP");
        let garbled = HEAD.to_owned() + &row("nodes", "BACKEND", "0", "many", "UP");
        for text in ["", "# ", "Permission denied\n", HEAD, &half, &garbled] {
            assert!(parse(text, "nodes").is_err(), "{text}");
        }
    }
}
