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
use lb_core::members::address_of;
use lb_core::members::agent::{members, query};
use lb_core::tool::Exit;
use lb_core::tool::reporter::Reporter;
use serde::Deserialize;

use crate::agent::FILE;

/// Name of the query.
const QUERY: &str = "address";
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

/// Answers the query: reads a name on standard input and prints the address by which the local agent knows it.
pub(crate) fn tell() -> Result<Exit> {
    let mut name = String::new();
    io::stdin().take(1024).read_to_string(&mut name).context("read standard input")?;
    if let Some(address) = address_of(&members()?, name.trim_end()) {
        writeln!(io::stdout(), "{address}").context("write standard output")?;
    }
    Ok(Exit::Done)
}

#[derive(Deserialize)]
struct Configuration {
    node_name: String,
}

/// Asks the balancers by which address they know this member. [`Exit::Rejected`] tells that it is another one; that is
/// noted for the next start. An agent that does not answer yet, or a cluster in which nobody answers, says nothing.
pub(crate) fn check(dir: &Path, reporter: &Reporter) -> Result<Exit> {
    if dir.join(ACCEPTED).exists() {
        return Ok(Exit::Done);
    }
    let Ok(members) = members() else { return Ok(Exit::Done) };
    let path = dir.join(FILE);
    let configuration = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let name =
        serde_json::from_slice::<Configuration>(&configuration).with_context(|| format!("read {}", path.display()))?.node_name;
    let Some(own) = address_of(&members, &name) else { return Ok(Exit::Done) };
    let answers = query(QUERY, &name)?;
    // Any member may answer, and anything.
    let is_address = |address: &&str| address.parse::<IpAddr>().is_ok();
    let known: Vec<&str> = answers.values().map(|address| address.trim()).filter(is_address).collect();
    if known.contains(&own) {
        fs::write(dir.join(ACCEPTED), "").with_context(|| format!("write in {}", dir.display()))?;
    } else if let Some(other) = known.first() {
        let path = dir.join(REFUSED);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(b"refused\n")).with_context(|| format!("write {}", path.display()))?;
        reporter
            .say(format_args!("the cluster knows {name} by its old address {other}, not by {own}: joining under another name"));
        return Ok(Exit::Rejected);
    }
    Ok(Exit::Done)
}
