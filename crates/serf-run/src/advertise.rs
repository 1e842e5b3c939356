//! Which of this host's addresses the agent announces.
//!
//! Serf announces the address of the default route. On a host with several, such as a task of Docker Swarm, that need not be the
//! one by which the other members reach it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_core::members::admission::{address_of, addresses};

use crate::seek::lookup;

/// An address of the default route that nobody has (RFC 5737); nothing is sent there.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Time for the names of the cluster to be looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// An address to announce, as Serf takes it: with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertise(String);

impl Advertise {
    /// The first address of a network interface.
    pub(crate) fn of_interface(name: &str) -> Result<Self> {
        let address =
            address_of(name)?.with_context(|| format!("SERF_INTERFACE: there is no interface '{name}' with an address"))?;
        Ok(Self(address.to_string()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Advertise {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
        if is_address { Ok(Self(text.to_owned())) } else { Err("must be ADDRESS or ADDRESS:PORT") }
    }
}

/// The address to announce, if there is a choice: that of the default route, if others reach it. `here` are this host's addresses,
/// and `named` those that the names of the cluster lead to, this host's own among them or not.
pub(crate) fn choose(here: &[IpAddr], named: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let reached = reached(here, named);
    source_towards(NOBODY).filter(|address| reached.contains(address)).or_else(|| reached.iter().copied().min())
}

/// The same for this host and these names now. A name server that does not answer is not waited for: the service `join` looks
/// again.
pub(crate) fn choose_now(names: &str) -> Result<Option<IpAddr>> {
    let here = addresses()?;
    if here.len() < 2 {
        return Ok(None);
    }
    let (named, names) = (Arc::new(Mutex::new(BTreeSet::new())), names.to_owned());
    let found = Arc::clone(&named);
    let looking = thread::Builder::new().spawn(move || {
        for name in names.split_whitespace() {
            let addresses = lookup(name).unwrap_or_default();
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(addresses);
        }
    });
    let (looking, deadline) = (looking.context("start a thread")?, Instant::now() + LOOKUP_TIMEOUT);
    while !looking.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let named = named.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(choose(&here, &named))
}

/// Whether others reach this host by other addresses than the `announced` one.
pub(crate) fn is_wrong(announced: IpAddr, here: &[IpAddr], named: &BTreeSet<IpAddr>) -> bool {
    let reached = reached(here, named);
    !reached.is_empty() && !reached.contains(&announced)
}

/// The addresses by which others reach this host, as far as there is a choice: those that the names lead to, or else those from
/// which packets to other members leave.
fn reached(here: &[IpAddr], named: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    if here.len() < 2 {
        return Vec::new();
    }
    let own: Vec<IpAddr> = here.iter().copied().filter(|address| named.contains(address)).collect();
    if !own.is_empty() {
        return own;
    }
    named.iter().filter_map(|address| source_towards(*address)).filter(|address| here.contains(address)).collect()
}

/// The address from which packets to another one leave, if there is a way. Nothing is sent.
fn source_towards(address: IpAddr) -> Option<IpAddr> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((address, 7946)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ips(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|address| ip(address)).collect()
    }

    /// As in a task of Docker Swarm: the default route leads to 172.18.0.0/16.
    const HERE: [&str; 2] = ["10.0.1.5", "172.18.0.3"];

    #[test]
    fn the_address_that_a_name_leads_to_is_the_right_one() {
        let here = HERE.map(ip);
        let named = ips(&["10.0.1.4", "10.0.1.5"]);
        assert_eq!(choose(&here, &named), Some(ip("10.0.1.5")));
        assert!(is_wrong(ip("172.18.0.3"), &here, &named) && !is_wrong(ip("10.0.1.5"), &here, &named));
        // Reached by both: what is announced stays.
        let named = ips(&["10.0.1.5", "172.18.0.3"]);
        assert!(HERE.iter().all(|address| !is_wrong(ip(address), &here, &named)));
    }

    #[test]
    fn with_one_address_or_without_an_answer_there_is_no_choice() {
        let here = HERE.map(ip);
        for (here, named) in [(&here[..1], &["10.0.1.5"][..]), (&here[..], &[]), (&[], &["10.0.1.5"])] {
            assert_eq!(choose(here, &ips(named)), None);
            assert!(!is_wrong(ip("172.18.0.3"), here, &ips(named)));
        }
    }

    #[test]
    fn otherwise_it_is_the_one_on_the_way_to_another_member() {
        let here = [ip("127.0.0.1"), ip("192.0.2.77")];
        assert_eq!(reached(&here, &ips(&["127.0.0.9"])), [ip("127.0.0.1")]);
        assert!(is_wrong(ip("192.0.2.77"), &here, &ips(&["127.0.0.9"])));
    }

    #[test]
    fn an_address_is_given_with_or_without_a_port() {
        for good in ["10.0.1.5", "10.0.1.5:7947", "fd00::5", "[fd00::5]:7946"] {
            assert_eq!(good.parse::<Advertise>().unwrap().as_str(), good);
        }
        for bad in ["", "ha", "10.0.1", "10.0.1.5:x", "eth0"] {
            assert!(bad.parse::<Advertise>().is_err(), "{bad}");
        }
    }
}
