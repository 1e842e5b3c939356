//! Any node that is accepted, for property tests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_core::node::{Address, Node, NodeName, Port, Tags, Weight};
use lb_core::service::{Role, UrlPath};
use proptest::collection::btree_map;
use proptest::prelude::*;

/// Names that mean something elsewhere: in HAProxy's configuration, on its command line, in Handlebars, in a shell.
pub const WORDS: [&str; 40] = [
    "add",
    "addr",
    "addresses",
    "all",
    "backend",
    "backup",
    "BACKEND",
    "check",
    "cookie",
    "default-server",
    "defaults",
    "del",
    "disabled",
    "drain",
    "each",
    "enabled",
    "FRONTEND",
    "global",
    "host",
    "inter",
    "ip",
    "listen",
    "maint",
    "nodes",
    "no-check",
    "none",
    "port",
    "prompt",
    "quit",
    "ready",
    "s1",
    "server",
    "server-template",
    "set",
    "sni",
    "state",
    "this",
    "track",
    "weight",
    "127.0.0.1",
];

/// The text of any name.
pub fn name_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Za-z0-9_][A-Za-z0-9._-]{0,12}",
        1 => "[A-Za-z0-9_][A-Za-z0-9._-]{120,127}",
        2 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned),
    ]
}

/// Any name.
pub fn name() -> impl Strategy<Value = NodeName> {
    name_text().prop_map(|text| text.parse().expect("a name"))
}

/// Any IP address, with those that have a form of their own more often than chance would.
pub fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => any::<[u8; 4]>().prop_map(IpAddr::from),
        2 => any::<[u8; 16]>().prop_map(IpAddr::from),
        1 => any::<[u8; 4]>().prop_map(|bytes| std::net::Ipv4Addr::from(bytes).to_ipv6_mapped().into()),
        1 => any::<[u8; 4]>().prop_map(|bytes| std::net::Ipv4Addr::from(bytes).to_ipv6_compatible().into()),
        1 => (any::<[u16; 8]>(), any::<u8>()).prop_map(|(mut words, zeros)| {
            words.iter_mut().enumerate().filter(|(at, _)| zeros & (1 << at) != 0).for_each(|(_, word)| *word = 0);
            IpAddr::from(words)
        }),
    ]
}

/// Any address that a server can have.
pub fn address() -> impl Strategy<Value = Address> {
    ip().prop_filter_map("no server has it", |ip| ip.to_string().parse().ok())
}

/// Any port.
pub fn port() -> impl Strategy<Value = Port> {
    (1_u16..).prop_map(|port| port.to_string().parse().expect("a port"))
}

/// Any weight.
pub fn weight() -> impl Strategy<Value = Weight> {
    (0_u16..=256).prop_map(|weight| weight.to_string().parse().expect("a weight"))
}

/// Any role. The default is common, as it is elsewhere.
pub fn role() -> impl Strategy<Value = Role> {
    let named = name_text().prop_filter_map("no service has it", |text| text.parse().ok());
    prop_oneof![2 => Just(Role::default()), 1 => proptest::sample::select(&["shop", "api"][..]).prop_map(|role| role.parse().expect("a role")), 1 => named]
}

/// The text of any host.
pub fn host_text() -> impl Strategy<Value = String> {
    "(\\*\\.)?[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?(\\.[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?){0,3}"
}

/// Any path.
pub fn url_path() -> impl Strategy<Value = UrlPath> {
    "(/[A-Za-z0-9._~-]{1,6}){0,4}/?".prop_filter_map("not a plain path", |text| text.parse().ok())
}

/// Anything that a node may say about itself.
pub fn traits() -> impl Strategy<Value = Tags> {
    use proptest::option::of;
    let hosts = proptest::collection::vec(host_text(), 1..4).prop_map(|hosts| hosts.join("+").parse().expect("hosts"));
    let cookie = prop_oneof![Just("none".to_owned()), name_text()].prop_map(|text| text.parse().expect("a cookie"));
    let service = (of(hosts), of(url_path()), of(url_path()), of(cookie));
    (of(port()), of(weight()), any::<bool>(), service).prop_map(|(port, weight, drain, (host, path, check, cookie))| Tags {
        port,
        weight,
        drain,
        host,
        path,
        check,
        cookie,
    })
}

/// Any node.
pub fn node() -> impl Strategy<Value = Node> {
    (name(), address(), role(), traits()).prop_map(|(name, address, role, tags)| Node { name, address, role, tags })
}

/// Some nodes, each of another name.
pub fn nodes(number: std::ops::Range<usize>) -> impl Strategy<Value = BTreeMap<NodeName, Node>> {
    btree_map(name(), (address(), role(), traits()), number).prop_map(|nodes| {
        let node = |(name, (address, role, tags)): (NodeName, _)| (name.clone(), Node { name, address, role, tags });
        nodes.into_iter().map(node).collect()
    })
}
