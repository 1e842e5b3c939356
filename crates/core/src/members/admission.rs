//! Which members are nodes, by their role and address. A member chooses its own address, and traffic is sent there, so
//! nodes are limited to certain networks.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use crate::node::{Address, Node, NodeError, Tags};
use crate::service::Roles;

/// Maximum number of networks named in a message.
const MAX_SHOWN: usize = 4;

/// A network such as `172.18.0.0/16` or `fd00::/8`; without a prefix length it is a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| (a ^ b).checked_shr(u32::from(width - self.bits)).unwrap_or(0) == 0;
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let malformed = || format!("'{text}' is not a network such as 172.18.0.0/16 or fd00::/8");
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let max_bits = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(max_bits), |bits| bits.parse().map_err(|_| malformed()))?;
        if bits > max_bits { Err(malformed()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The setting that says in which networks nodes may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeNetworks {
    /// The networks of this host's interfaces.
    Own,
    /// Anywhere, including loopback, for a cluster on one host.
    Any,
    /// These networks.
    These(Vec<Network>),
}

impl FromStr for NodeNetworks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            // An empty variable counts as unset.
            "" | "own" => Ok(Self::Own),
            "any" => Ok(Self::Any),
            list => {
                list.split([' ', ',']).filter(|word| !word.is_empty()).map(str::parse).collect::<Result<_, _>>().map(Self::These)
            }
        }
    }
}

/// Why the networks of the nodes cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    /// The interfaces of this host cannot be read.
    #[error("read the addresses of this host")]
    Interfaces(#[from] nix::Error),
    /// This host has no network but loopback, so the default would admit no node.
    #[error(
        "this host has no network but loopback: set NODE_NETWORKS (--node-networks) to the networks of the nodes, or to any for a cluster on one host"
    )]
    OnlyLoopback,
}

/// Kind of an address. A network, however large, only covers addresses of its own kind: `0.0.0.0/0` does not include
/// loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Loopback,
    LinkLocal,
    Other,
}

impl Kind {
    fn of(address: IpAddr) -> Self {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match address {
            _ if address.is_loopback() => Self::Loopback,
            _ if link_local => Self::LinkLocal,
            _ => Self::Other,
        }
    }
}

/// The current addresses of this host's interfaces by which others may reach it: all but loopback and link-local ones.
///
/// # Errors
/// [`NetworksError::Interfaces`].
pub fn addresses() -> Result<Vec<IpAddr>, NetworksError> {
    let up = getifaddrs()?.filter(|found| found.flags.contains(InterfaceFlags::IFF_UP));
    Ok(up.filter_map(|found| ip(found.address)).filter(|address| Kind::of(*address) == Kind::Other).collect())
}

/// The first of them that an interface has.
///
/// # Errors
/// [`NetworksError::Interfaces`].
pub fn address_of(interface: &str) -> Result<Option<IpAddr>, NetworksError> {
    let mut found = getifaddrs()?.filter(|found| found.interface_name == interface);
    Ok(found.find_map(|found| ip(found.address).filter(|address| Kind::of(*address) == Kind::Other)))
}

fn ip(address: Option<SockaddrStorage>) -> Option<IpAddr> {
    let v4 = || address?.as_sockaddr_in().map(|v4| v4.ip().into());
    v4().or_else(|| address?.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// Decides which members are nodes, by their role and address.
#[derive(Debug, Clone)]
pub struct Admission {
    roles: Roles,
    /// Addresses of this host, except loopback.
    own_addresses: Vec<IpAddr>,
    /// The networks of the nodes; `None` means anywhere.
    networks: Option<Vec<Network>>,
    /// Whether `networks` are those of this host.
    is_default: bool,
}

impl Admission {
    /// Admits members of `roles` in `networks`, except at the current addresses of this host.
    ///
    /// # Errors
    /// [`NetworksError`] if there are no such networks.
    pub fn new(roles: &Roles, networks: &NodeNetworks) -> Result<Self, NetworksError> {
        let found: Vec<_> = getifaddrs()?.collect();
        let own = found.iter().filter_map(|found| ip(found.address));
        let network = |address: IpAddr, mask: IpAddr| {
            let bits = match mask {
                IpAddr::V4(mask) => mask.to_bits().count_ones(),
                IpAddr::V6(mask) => mask.to_bits().count_ones(),
            };
            Some(Network { address, bits: bits.try_into().ok()? })
        };
        let up = found.iter().filter(|found| found.flags.contains(InterfaceFlags::IFF_UP));
        let on = up.filter_map(|found| network(ip(found.address)?, ip(found.netmask)?)).collect();
        Self::for_host(roles, networks, own.collect(), on)
    }

    /// As [`Self::new`], for a host with the addresses `own` on the networks `on`.
    fn for_host(roles: &Roles, networks: &NodeNetworks, own: Vec<IpAddr>, mut on: Vec<Network>) -> Result<Self, NetworksError> {
        on.retain(|network| Kind::of(network.address) == Kind::Other);
        if *networks == NodeNetworks::Own && on.is_empty() {
            return Err(NetworksError::OnlyLoopback);
        }
        Ok(Self {
            roles: roles.clone(),
            own_addresses: own.into_iter().filter(|address| Kind::of(*address) != Kind::Loopback).collect(),
            networks: match networks {
                NodeNetworks::Own => Some(on),
                NodeNetworks::Any => None,
                NodeNetworks::These(list) => Some(list.clone()),
            },
            is_default: *networks == NodeNetworks::Own,
        })
    }

    /// Admits members of `roles`, as in [`Roles`], at any address; nobody if they are not roles.
    #[must_use]
    pub fn anywhere(roles: &str) -> Self {
        let roles = roles.parse().unwrap_or(Roles::These(Vec::new()));
        Self { roles, own_addresses: Vec::new(), networks: None, is_default: false }
    }

    /// Turns a member into a node, or returns `None` if it has another role and so takes no traffic. The arguments are
    /// untrusted. The role is not taken from `tags`, where the value of another tag could forge it.
    ///
    /// # Errors
    /// [`NodeError`] if the name, the address, the role or one of the tags of [`Tags::KEYS`] is invalid, or if no node may have
    /// the address. Other tags are ignored.
    pub fn admit<'a>(
        &self,
        name: &str,
        address: &str,
        role: &str,
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Node>, NodeError> {
        let Some(role) = self.roles.service(role)? else { return Ok(None) };
        let (name, address): (_, Address) = (name.parse()?, address.parse()?);
        self.check(address)?;
        Ok(Some(Node { name, address, role, tags: Tags::from_pairs(tags, |_, _| Ok(()))? }))
    }

    /// Checks that a node may have this address.
    ///
    /// # Errors
    /// [`NodeError::Own`] or [`NodeError::Elsewhere`].
    pub fn check(&self, address: Address) -> Result<(), NodeError> {
        // `::ffff:127.0.0.1` is treated as 127.0.0.1.
        let ip = address.ip().to_canonical();
        if self.own_addresses.contains(&ip) {
            return Err(NodeError::Own(ip));
        }
        let Some(networks) = &self.networks else { return Ok(()) };
        let kind = Kind::of(ip);
        if networks.iter().any(|network| network.contains(ip) && Kind::of(network.address) == kind) {
            return Ok(());
        }
        Err(NodeError::Elsewhere { address: ip, reason: self.reason(kind, networks) })
    }

    fn reason(&self, kind: Kind, networks: &[Network]) -> String {
        let mut list: Vec<String> = networks.iter().take(MAX_SHOWN).map(ToString::to_string).collect();
        list.extend((networks.len() > MAX_SHOWN).then(|| "…".to_owned()));
        let list = list.join(" ");
        match (kind, self.is_default) {
            (Kind::Loopback, _) => "is loopback, this host itself: for a cluster on one host, NODE_NETWORKS=any".to_owned(),
            (Kind::LinkLocal, _) => "is link-local: if nodes are there, name the network in NODE_NETWORKS".to_owned(),
            (Kind::Other, true) => {
                format!(
                    "is in no network that this balancer is on ({list}): if nodes are there, name their networks in NODE_NETWORKS"
                )
            }
            (Kind::Other, false) => format!("is in none of NODE_NETWORKS ({list})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::net::if_::if_nameindex;

    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|network| network.parse().unwrap()).collect()
    }

    fn backend() -> Roles {
        "backend".parse().unwrap()
    }

    /// A balancer with two interfaces, and loopback.
    fn gate(asked: &str) -> Admission {
        let own = ["127.0.0.1", "::1", "172.18.0.2", "10.0.1.7", "fd00::2", "fe80::2"].map(|ip| ip.parse().unwrap());
        let on = networks(&["127.0.0.1/8", "::1/128", "172.18.0.2/16", "10.0.1.7/24", "fd00::2/64", "fe80::2/64"]);
        Admission::for_host(&backend(), &asked.parse().unwrap(), own.to_vec(), on).unwrap()
    }

    fn refusal(asked: &str, address: &str) -> Option<String> {
        gate(asked).check(address.parse().unwrap()).err().map(|error| error.to_string())
    }

    #[test]
    fn by_default_nodes_are_where_the_balancer_is() {
        for good in ["172.18.0.3", "172.18.255.254", "10.0.1.8", "fd00::3", "::ffff:172.18.0.3"] {
            assert_eq!(refusal("own", good), None, "{good}");
        }
        for (bad, reason) in [
            ("172.19.0.3", "is in no network that this balancer is on (172.18.0.2/16 10.0.1.7/24 fd00::2/64): if"),
            ("10.0.2.1", "is in no network"),
            ("8.8.8.8", "is in no network"),
            ("0.1.2.3", "is in no network"),
            ("64:ff9b::7f00:1", "is in no network"),
            ("::127.0.0.1", "is in no network"),
            ("127.0.0.1", "address 127.0.0.1 is loopback"),
            ("127.9.9.9", "is loopback"),
            ("::1", "is loopback"),
            ("::ffff:127.0.0.1", "address 127.0.0.1 is loopback"),
            ("169.254.169.254", "is link-local"),
            ("fe80::9", "is link-local"),
            ("::ffff:169.254.169.254", "is link-local"),
        ] {
            assert!(refusal("own", bad).is_some_and(|text| text.contains(reason)), "{bad}: {:?}", refusal("own", bad));
        }
    }

    #[test]
    fn own_addresses_are_refused_whatever_is_asked_for() {
        for asked in ["own", "any", "172.18.0.0/16 10.0.0.0/8 fd00::/8 fe80::/10"] {
            for own in ["172.18.0.2", "::ffff:172.18.0.2", "10.0.1.7", "fd00::2", "fe80::2"] {
                let text = refusal(asked, own).unwrap_or_default();
                assert!(text.contains("is this balancer's own"), "{asked} {own}: {text}");
            }
        }
    }

    #[test]
    fn networks_that_are_named_are_all_there_is() {
        let asked = "192.168.7.0/24, fd07::/16 10.9.9.9";
        for good in ["192.168.7.1", "fd07::1", "10.9.9.9", "::ffff:192.168.7.1"] {
            assert_eq!(refusal(asked, good), None, "{good}");
        }
        for bad in ["172.18.0.3", "192.168.8.1", "10.9.9.8", "127.0.0.1", "169.254.0.1", "fe80::9"] {
            assert!(refusal(asked, bad).is_some(), "{bad}");
        }
        // All of IPv4 is not meant to be loopback too; that must be said.
        assert_eq!(refusal("0.0.0.0/0", "8.8.8.8"), None);
        assert!(refusal("0.0.0.0/0", "127.0.0.1").is_some() && refusal("::/0", "::1").is_some());
        assert_eq!(refusal("127.0.0.0/8", "127.0.0.1"), None);
        assert_eq!(refusal("169.254.0.0/16", "169.254.0.1"), None);
        for anywhere in ["127.0.0.1", "::1", "169.254.0.1", "8.8.8.8"] {
            assert_eq!(refusal("any", anywhere), None, "{anywhere}");
        }
    }

    #[test]
    fn a_host_with_loopback_only_must_be_told() {
        let beside = |asked: &str| {
            Admission::for_host(&backend(), &asked.parse().unwrap(), Vec::new(), networks(&["127.0.0.1/8", "fe80::1/64"]))
        };
        assert!(beside("").unwrap_err().to_string().contains("NODE_NETWORKS"));
        assert!(beside("any").is_ok() && beside("10.0.0.0/8").is_ok());
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in
            ["172.18.0.0/33", "fd00::/129", "172.18.0.0/", "172.18.0.0/-1", "/16", "lan", "any 10.0.0.0/8", "10.0.0/8", "own any"]
        {
            assert!(bad.parse::<NodeNetworks>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_message_names_a_few_networks() {
        let asked = |count| (1..=count).map(|number| format!("10.0.{number}.0/24")).collect::<Vec<_>>().join(" ");
        let said = refusal(&asked(4), "8.8.8.8").unwrap();
        assert!(said.ends_with("(10.0.1.0/24 10.0.2.0/24 10.0.3.0/24 10.0.4.0/24)"), "{said}");
        let said = refusal(&asked(5), "8.8.8.8").unwrap();
        assert!(said.ends_with("10.0.4.0/24 …)"), "{said}");
    }

    #[test]
    fn this_host_has_addresses() {
        assert!(Admission::new(&backend(), &NodeNetworks::Any).is_ok());
        let all = addresses().unwrap();
        assert!(!all.is_empty() && all.iter().all(|address| !address.is_loopback()), "{all:?}");
        let interfaces = if_nameindex().unwrap();
        let names = interfaces.iter().map(|interface| interface.name().to_str().unwrap());
        let first: Vec<_> = names.filter_map(|name| address_of(name).unwrap()).collect();
        assert!(!first.is_empty() && first.iter().all(|address| !address.is_loopback()), "{first:?}");
        assert_eq!((address_of("lo").unwrap(), address_of("no-such").unwrap()), (None, None));
    }
}
