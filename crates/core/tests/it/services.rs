//! Which service answers where, for any nodes.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::node::Node;
use lb_core::service::{Hosts, Known, Place, Role, Services};
use proptest::prelude::*;
use proptest::sample::select;

use crate::any;

/// Nodes of few services that claim few places, so that they meet.
fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let role = select(&["", " role=api", " role=shop", " role=x"][..]);
    let host = select(&["", "", " host=a.b", " host=*.b", " host=a.b+*.b", " host=*.a.b"][..]);
    let path = select(&["", "", " path=/", " path=/x", " path=/x/y/", " path=/y"][..]);
    let tags = (role, host, path).prop_map(|(role, host, path)| format!("{role}{host}{path}"));
    proptest::collection::vec(tags, 0..8).prop_map(|all| {
        let line = |(number, tags): (usize, &String)| format!("s{number} 172.18.0.2{tags}");
        all.iter().enumerate().map(|tags| line(tags).parse().expect("a node")).collect()
    })
}

/// The places that a node claims.
fn claims(node: &Node) -> Vec<Place> {
    let hosts = node.tags.host.iter().flat_map(Hosts::iter).map(Some).chain(node.tags.host.is_none().then_some(None));
    hosts.map(|host| Place::new(host, node.tags.path.as_ref())).collect()
}

/// Whether a place is that of a request, and how specific it is.
fn rank(place: &Place, host: &str, path: &str) -> Option<(usize, usize)> {
    let of_host = match place.host() {
        None => 0,
        Some(wildcard) if wildcard.is_wildcard() => {
            let (label, rest) = host.split_once('.')?;
            (!label.is_empty() && format!("*.{rest}") == wildcard.as_str()).then_some(1)?
        }
        Some(exact) => (exact.as_str() == host).then_some(2)?,
    };
    let rest = path.strip_prefix(place.path())?;
    (rest.is_empty() || rest.starts_with('/')).then_some((of_host, place.path().len()))
}

proptest! {
    #[test]
    fn the_first_route_that_matches_is_the_most_specific(
        nodes in nodes(),
        host in select(&["a.b", "x.b", "x.a.b", "b", "y"][..]),
        path in select(&["/", "/x", "/xy", "/x/y", "/x/y/z", "/y"][..]),
    ) {
        let (nodes, known) = (nodes.iter().collect::<Vec<_>>(), Known::default());
        let services = Services::of(&nodes, &known);
        let first = services.routes.keys().find(|place| rank(place, host, path).is_some());
        let best = services.routes.keys().filter(|place| rank(place, host, path).is_some()).max_by_key(|place| rank(place, host, path));
        prop_assert_eq!(first, best);
    }

    #[test]
    fn every_claim_is_a_route_or_a_conflict(nodes in nodes()) {
        let (nodes, known) = (nodes.iter().collect::<Vec<_>>(), Known::default());
        let services = Services::of(&nodes, &known);
        let roles: BTreeSet<&Role> = nodes.iter().map(|node| &node.role).collect();
        let is_alone = roles.iter().all(|role| role.is_default());
        let mut claimants: BTreeMap<Place, BTreeSet<&Role>> = BTreeMap::new();
        for node in nodes.iter().filter(|_| !is_alone) {
            for place in claims(node) {
                claimants.entry(place).or_default().insert(&node.role);
            }
        }
        let winners: BTreeMap<Place, &Role> = claimants.iter().map(|(place, roles)| (place.clone(), *roles.first().unwrap())).collect();
        if is_alone {
            prop_assert_eq!(services.routes.len(), 1);
            prop_assert_eq!(services.fallback(), Some(Role::default_ref()));
        } else {
            prop_assert_eq!(&services.routes, &winners);
        }
        let conflicts: usize = claimants.values().map(|roles| roles.len() - 1).sum();
        prop_assert_eq!(services.conflicts.len(), conflicts);
        let count: usize = services.list.iter().map(|service| service.nodes.len()).sum();
        prop_assert_eq!(count, nodes.len());
    }

    #[test]
    fn any_nodes_are_in_the_section_of_their_role(nodes in any::nodes(0..30)) {
        let (nodes, known) = (nodes.values().collect::<Vec<_>>(), Known::default());
        let services = Services::of(&nodes, &known);
        for service in &services.list {
            prop_assert!(service.nodes.iter().all(|node| node.role == *service.role));
        }
        let sections: BTreeSet<&str> = services.list.iter().map(|service| service.role.section()).collect();
        prop_assert_eq!(sections.len(), services.list.len());
    }
}
