//! The name under which a member joins, and whether the cluster accepts it.
//!
//! For more than half a minute, Serf does not let a newcomer with another address have the name of a member that died. The
//! newcomer does not hear of it: its own list looks as if all were well (hashicorp/memberlist, issue 157). A container that was
//! killed and comes back under another address would be missing for that long. Therefore the balancers' agents answer the query
//! `address` with the address by which they know a name; a member that they know by another one appends a number to its name.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use lb_core::members::agent::{members, query};
use lb_core::tool::Exit;
use lb_core::tool::reporter::Reporter;

/// Name of the query.
const QUERY: &str = "address";
/// Number of rounds in a row in which a member with this name has left from another address, before the name counts as refused.
const MAX_LEFT: u32 = 2;
/// File with one line for each refusal of the name; the service's finish script adds one when the agent quits on its own.
const REFUSED: &str = "name-refused";
/// File that exists once a balancer knows the name under the right address.
const ACCEPTED: &str = "name-accepted";

/// The name with its number, if the cluster refused the plain one before.
pub(crate) fn numbered(name: &str, dir: &Path) -> String {
    match fs::read_to_string(dir.join(REFUSED)).map_or(0, |lines| lines.lines().count()) {
        0 => name.to_owned(),
        refused => format!("{name}-{}", refused + 1),
    }
}

/// Forgets that the name is accepted, as the agent is about to start again.
pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    lb_core::os::atomic_file::remove_if_exists(&dir.join(ACCEPTED)).map(drop)
}

/// Answers the query: reads a name on standard input and prints the address by which the local agent knows it, and the
/// state in which it counts that member.
pub(crate) fn tell() -> Result<Exit> {
    let mut name = String::new();
    io::stdin().take(1024).read_to_string(&mut name).context("read standard input")?;
    if let Some(member) = members()?.iter().find(|member| member.name == name.trim_end()) {
        writeln!(io::stdout(), "{} {}", member.address, member.status).context("write standard output")?;
    }
    Ok(Exit::Done)
}

/// Whether the cluster lets this member have its name.
#[derive(Debug, Default)]
pub(crate) struct Check {
    /// Number of rounds in a row in which the name belonged to a member that has left.
    left: u32,
}

impl Check {
    /// Asks the balancers by which address they know the member `name`, whose own agent announces `own`. Returns true if it is
    /// another one, and records that for the next start. If nobody answers, nothing is known.
    pub(crate) fn is_refused(&mut self, dir: &Path, name: &str, own: IpAddr, reporter: &Reporter) -> Result<bool> {
        if dir.join(ACCEPTED).exists() {
            return Ok(false);
        }
        let answers = query(QUERY, name)?;
        // Any member may answer, with anything.
        let known: Vec<(IpAddr, bool)> = answers.values().filter_map(|answer| address_and_left(answer)).collect();
        if known.iter().any(|(address, _)| *address == own) {
            fs::write(dir.join(ACCEPTED), "").with_context(|| format!("write in {}", dir.display()))?;
            return Ok(false);
        }
        let Some((other, left)) = known.iter().min_by_key(|(_, left)| *left) else { return Ok(false) };
        // The name of a member that has left is free, unless it was declared failed before, which does not show. Or the
        // balancer has not heard of the new member yet.
        self.left = if *left { self.left + 1 } else { MAX_LEFT };
        if self.left < MAX_LEFT {
            return Ok(false);
        }
        self.left = 0;
        let path = dir.join(REFUSED);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(b"refused\n")).with_context(|| format!("write {}", path.display()))?;
        reporter
            .log(format_args!("the cluster knows {name} by its old address {other}, not by {own}: joining under another name"));
        Ok(true)
    }
}

/// Parses an answer: the address, and whether the member has left.
fn address_and_left(answer: &str) -> Option<(IpAddr, bool)> {
    let mut words = answer.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next() == Some("left")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_address_and_a_state() {
        let address = "172.18.0.3".parse().unwrap();
        for (answer, read) in [
            ("172.18.0.3 alive\n", Some((address, false))),
            ("172.18.0.3 failed", Some((address, false))),
            ("172.18.0.3 left\n", Some((address, true))),
            ("172.18.0.3", Some((address, false))),
            ("", None),
            ("?00 alive", None),
        ] {
            assert_eq!(address_and_left(answer), read, "{answer:?}");
        }
    }
}
