//! Names of containers, as Docker's name server tells them for an address.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

use crate::node::NodeName;

const IS: &str = " is the container ";
/// Where Docker's own name server is, in a container on a network that somebody made (Docker's documentation, "DNS services").
const DOCKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// What was found out so far; an address that nobody knew is not asked for again.
#[derive(Debug)]
pub struct Containers {
    names: HashMap<IpAddr, Option<String>>,
    /// Another name server than Docker's is asked as well.
    any_server: bool,
    /// Time in which all answers must come.
    limit: Duration,
}

impl Containers {
    /// For a person: asks whatever name server there is, and waits for a moment.
    #[must_use]
    pub fn for_person() -> Self {
        Self { names: HashMap::new(), any_server: true, limit: Duration::from_millis(300) }
    }

    /// For a service, which must not wait: asks Docker alone, whose own answers come within a millisecond.
    #[must_use]
    pub fn for_service() -> Self {
        Self { names: HashMap::new(), any_server: false, limit: Duration::from_millis(50) }
    }

    /// Finds the names of these addresses; those that get no answer in time have none.
    pub fn find(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        let mut new: Vec<IpAddr> = addresses.filter(|address| !self.names.contains_key(address)).collect();
        new.sort_unstable();
        new.dedup();
        self.names.extend(new.iter().map(|address| (*address, None)));
        // Without a name server, or an answer from it, no container has a name.
        let _ = self.ask(&new);
    }

    /// The name of the container with this address.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address)?.as_deref()
    }

    /// One question an address, all at once; its place in the list is the number of the question.
    fn ask(&mut self, addresses: &[IpAddr]) -> Option<()> {
        let server = name_server(&fs::read_to_string("/etc/resolv.conf").ok()?)?;
        if !self.any_server && server != DOCKER {
            return None;
        }
        let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
        socket.connect(SocketAddr::new(server, 53)).ok()?;
        for (number, address) in (0..=u16::MAX).zip(addresses) {
            socket.send(&question(number, *address)?).ok()?;
        }
        let deadline = Instant::now() + self.limit;
        let mut buffer = [0; 1500];
        for _ in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            socket.set_read_timeout(Some(left).filter(|left| !left.is_zero())?.into()).ok()?;
            let length = socket.recv(&mut buffer).ok()?;
            let Some((number, name)) = buffer.get(..length).and_then(answer) else { continue };
            if let Some(address) = addresses.get(usize::from(number)) {
                self.names.insert(*address, Some(name));
            }
        }
        Some(())
    }
}

/// What the log says about a node whose container is known: Docker forgets the name of one that has stopped.
#[must_use]
pub fn in_container(node: &NodeName, container: &str) -> String {
    format!("{node}{IS}{container}")
}

/// Node and container of such a message.
#[must_use]
pub fn parse_in_container(message: &str) -> Option<(&str, &str)> {
    message.split_once(IS).filter(|(node, container)| !node.contains(' ') && !container.contains(' '))
}

/// The first name server of a `resolv.conf`.
fn name_server(text: &str) -> Option<IpAddr> {
    let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    servers.next()
}

fn question(number: u16, address: IpAddr) -> Option<Vec<u8>> {
    let name = reverse(address);
    let mut packet = Packet::new_query(number);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(&name).ok()?, TYPE::PTR.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().ok()
}

/// The name under which the name of an address is asked for.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles: Vec<String> = v6.octets().iter().rev().map(|byte| format!("{:x}.{:x}", byte & 15, byte >> 4)).collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    }
}

/// The number of the question and the name of the container: Docker's name servers add the network's to it.
fn answer(bytes: &[u8]) -> Option<(u16, String)> {
    let packet = Packet::parse(bytes).ok()?;
    let name = packet.answers.iter().find_map(|record| match &record.rdata {
        RData::PTR(name) => Some(name.0.to_string()),
        _ => None,
    })?;
    let container = name.rsplit_once('.').map_or(name.as_str(), |(container, _)| container);
    // It comes from the network, and is printed.
    let good = container.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    (good && !container.is_empty()).then(|| (packet.id(), container.to_owned()))
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::PTR;

    use super::*;

    fn reply(name: &str) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let owner = Name::new("2.0.18.172.in-addr.arpa").unwrap();
        packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 600, RData::PTR(PTR(Name::new_unchecked(name)))));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn the_network_s_name_is_left_out() {
        assert_eq!(answer(&reply("s1.heig")), Some((7, "s1".to_owned())));
        assert_eq!(answer(&reply("lab_webapp_1.lab_heig")), Some((7, "lab_webapp_1".to_owned())));
    }

    #[test]
    fn what_is_no_name_of_a_container_is_none() {
        for bad in [&reply("s\u{1b}1.heig")[..], b"", b"\x00\x07", &Packet::new_reply(7).build_bytes_vec().unwrap()] {
            assert_eq!(answer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_question_asks_for_the_name_of_an_address() {
        let bytes = question(9, "fd00::1f".parse().unwrap()).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        let name = packet.questions[0].qname.to_string();
        assert!(name.starts_with("f.1.0.0.0.0.") && name.ends_with(".0.0.d.f.ip6.arpa"), "{name}");
        assert_eq!(reverse("172.18.0.2".parse().unwrap()), "2.0.18.172.in-addr.arpa");
    }

    #[test]
    fn the_message_about_a_container_can_be_read() {
        let message = in_container(&"1c0f5ab0e3d4".parse().unwrap(), "s1");
        assert_eq!(message, "1c0f5ab0e3d4 is the container s1");
        assert_eq!(parse_in_container(&message), Some(("1c0f5ab0e3d4", "s1")));
        for other in ["s1 172.18.0.2 is there", "member 'x is the container y' refused: name 'x is the container y'"] {
            assert_eq!(parse_in_container(other), None);
        }
    }

    #[test]
    fn the_first_name_server_is_asked() {
        assert_eq!(name_server("search x\n nameserver 127.0.0.11\nnameserver 1.1.1.1\n"), "127.0.0.11".parse().ok());
        assert_eq!(name_server("options ndots:0\n"), None);
    }
}
