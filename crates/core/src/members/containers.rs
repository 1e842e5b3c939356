//! Names of containers by address, from Docker's name server.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, TYPE};

use crate::node::NodeName;

/// Separates node and container in the log.
const IN_CONTAINER: &str = " is the container ";
/// Docker's name server in a container on a user-defined network (Docker's documentation, "DNS services").
const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// A cache of container names. An address without a name is not asked for again.
#[derive(Debug)]
pub struct Containers {
    names: HashMap<IpAddr, Option<String>>,
    /// Whether a name server other than Docker's is asked, too.
    any_server: bool,
    /// Time limit for all answers together.
    timeout: Duration,
}

impl Containers {
    /// For interactive use: asks any name server, for up to 300 ms.
    #[must_use]
    pub fn for_person() -> Self {
        Self { names: HashMap::new(), any_server: true, timeout: Duration::from_millis(300) }
    }

    /// For a service, which must not wait: asks only Docker, which answers for its own containers within a millisecond.
    #[must_use]
    pub fn for_service() -> Self {
        Self { names: HashMap::new(), any_server: false, timeout: Duration::from_millis(50) }
    }

    /// Looks up these addresses; those without an answer in time have no name.
    pub fn find(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        let mut new: Vec<IpAddr> = addresses.filter(|address| !self.names.contains_key(address)).collect();
        new.sort_unstable();
        new.dedup();
        self.names.extend(new.iter().map(|address| (*address, None)));
        // Without a name server or an answer, there are simply no names.
        let _ = self.ask(&new);
    }

    /// The name of the container with this address.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address)?.as_deref()
    }

    fn ask(&mut self, addresses: &[IpAddr]) -> Option<()> {
        let server = name_server(&fs::read_to_string("/etc/resolv.conf").ok()?)?;
        if !self.any_server && server != DOCKER_DNS {
            return None;
        }
        self.query(SocketAddr::new(server, 53), addresses)
    }

    /// Sends one query per address, all at once. Its index in the list is the id of the query.
    fn query(&mut self, server: SocketAddr, addresses: &[IpAddr]) -> Option<()> {
        let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
        socket.connect(server).ok()?;
        for (number, address) in (0..=u16::MAX).zip(addresses) {
            socket.send(&question(number, *address)?).ok()?;
        }
        let deadline = Instant::now() + self.timeout;
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

/// The log message about the container of a node, kept because Docker forgets the name of a stopped one.
#[must_use]
pub fn in_container(node: &NodeName, container: &str) -> String {
    format!("{node}{IN_CONTAINER}{container}")
}

/// Node and container of a message made by [`in_container`].
#[must_use]
pub fn parse_in_container(message: &str) -> Option<(&str, &str)> {
    message.split_once(IN_CONTAINER).filter(|(node, container)| !node.contains(' ') && !container.contains(' '))
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

/// The domain name for a reverse lookup.
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

/// Id of the query and name of the container, without the network name that Docker appends.
fn answer(bytes: &[u8]) -> Option<(u16, String)> {
    let packet = Packet::parse(bytes).ok()?;
    let name = packet.answers.iter().find_map(|record| match &record.rdata {
        RData::PTR(name) => Some(name.0.to_string()),
        _ => None,
    })?;
    let container = name.rsplit_once('.').map_or(name.as_str(), |(container, _)| container);
    // It comes from the network and will be printed.
    let good = container.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    (good && !container.is_empty()).then(|| (packet.id(), container.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::PTR;

    use super::*;

    fn reply(id: u16, name: &str) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        let owner = Name::new("2.0.18.172.in-addr.arpa").unwrap();
        packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 600, RData::PTR(PTR(Name::new_unchecked(name)))));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn the_network_s_name_is_left_out() {
        assert_eq!(answer(&reply(7, "s1.heig")), Some((7, "s1".to_owned())));
        assert_eq!(answer(&reply(7, "lab_webapp_1.lab_heig")), Some((7, "lab_webapp_1".to_owned())));
    }

    #[test]
    fn what_is_no_name_of_a_container_is_none() {
        for bad in [&reply(7, "s\u{1b}1.heig")[..], b"", b"\x00\x07", &Packet::new_reply(7).build_bytes_vec().unwrap()] {
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
        for other in ["registered s1 172.18.0.2", "member 's1 is the container s1", "s1 is the container s1: rejected"] {
            assert_eq!(parse_in_container(other), None);
        }
    }

    #[test]
    fn an_address_is_asked_for_once() {
        let [known, new] = ["172.18.0.2", "172.18.0.3"].map(|address| address.parse().unwrap());
        // Nobody is given the time to answer.
        let mut containers = Containers { timeout: Duration::ZERO, ..Containers::for_service() };
        containers.names.insert(known, Some("s1".to_owned()));
        containers.find([known, new, new].into_iter());
        assert_eq!((containers.name(known), containers.name(new)), (Some("s1"), None));
        assert_eq!(containers.names.len(), 2);
    }

    #[test]
    fn each_answer_goes_to_the_address_that_was_asked_for() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let address = server.local_addr().unwrap();
        let addresses = [2, 3, 4].map(|last| IpAddr::from([172, 18, 0, last]));
        let answers = thread::spawn(move || {
            let mut buffer = [0; 512];
            let questions = addresses.map(|_| server.recv_from(&mut buffer).unwrap().1);
            // In another order, one to a question that nobody asked, and none about the first address.
            for (id, name) in [(2, "s3.heig"), (9, "s9.heig"), (1, "s2.heig")] {
                server.send_to(&reply(id, name), questions[0]).unwrap();
            }
        });
        let mut containers = Containers { timeout: Duration::from_secs(30), ..Containers::for_person() };
        containers.query(address, &addresses);
        answers.join().unwrap();
        assert_eq!(
            addresses.map(|address| containers.name(address).map(str::to_owned)),
            [None, Some("s2".to_owned()), Some("s3".to_owned())]
        );
    }

    #[test]
    fn the_first_name_server_is_asked() {
        assert_eq!(name_server("search x\n nameserver 127.0.0.11\nnameserver 1.1.1.1\n"), "127.0.0.11".parse().ok());
        assert_eq!(name_server("options ndots:0\n"), None);
    }
}
