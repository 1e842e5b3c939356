//! The name under which a member joins, and whether the cluster accepts it.
//!
//! Serf keeps the name of a member that died from a newcomer with another address for more than half a minute, and does
//! not tell the newcomer, whose own list looks as if all were well (hashicorp/memberlist, issue 157). A container that
//! was killed and comes back under another address would be missing for so long. So the agents of the balancers answer
//! the query `address` with the address by which they know a name; a member that they know by another one takes the name
//! with a number.

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
/// Looks in a row at which the name is known of a member that has left, elsewhere, before it counts as refused.
const LEFT: u32 = 2;
/// Has a line for each refusal of the name; the service's finish script adds one when the agent quits by itself.
const REFUSED: &str = "name-refused";
/// Is there when a balancer knows the name by the right address.
const ACCEPTED: &str = "name-accepted";

/// The name with its number, if the cluster refused the plain one before.
pub(crate) fn numbered(name: &str, dir: &Path) -> String {
    match fs::read_to_string(dir.join(REFUSED)).map_or(0, |lines| lines.lines().count()) {
        0 => name.to_owned(),
        refused => format!("{name}-{}", refused + 1),
    }
}

/// The agent starts anew: whether its name is accepted is not known any more.
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
    /// How often in a row the name was known of a member that has left.
    left: u32,
}

impl Check {
    /// Asks the balancers by which address they know the member `name`, whose own agent says `own`; true if it is another
    /// one, which is noted for the next start. A cluster in which nobody answers says nothing.
    pub(crate) fn is_refused(&mut self, dir: &Path, name: &str, own: IpAddr, reporter: &Reporter) -> Result<bool> {
        if dir.join(ACCEPTED).exists() {
            return Ok(false);
        }
        let answers = query(QUERY, name)?;
        // Any member may answer, and anything.
        let known: Vec<(IpAddr, bool)> = answers.values().filter_map(|answer| address_and_left(answer)).collect();
        if known.iter().any(|(address, _)| *address == own) {
            fs::write(dir.join(ACCEPTED), "").with_context(|| format!("write in {}", dir.display()))?;
            return Ok(false);
        }
        let Some((other, left)) = known.iter().min_by_key(|(_, left)| *left) else { return Ok(false) };
        // The name is free when its member has left; but not when that was declared failed before, which does not show.
        // It may also be that the one who is asked has not heard of the new member yet.
        self.left = if *left { self.left + 1 } else { LEFT };
        if self.left < LEFT {
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

/// An answer: the address, and whether the member has left.
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
