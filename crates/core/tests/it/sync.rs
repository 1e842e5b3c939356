//! Syncing makes the registry equal to the member list, from anywhere, in one go, whatever the order of the members.

use std::collections::BTreeMap;
use std::fs;

use lb_core::members::MemberList;
use lb_core::members::admission::Admission;
use lb_core::node::{Node, NodeName};
use lb_core::registry::Registry;
use lb_core::registry::reconcile::{Absent, Change, reconcile};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::any;

/// A member as Serf prints it: a node that is there or gone, of our role or another, or a name that no node may have.
fn member() -> impl Strategy<Value = (String, String)> {
    let status = select(&["alive", "alive", "leaving", "left", "failed"][..]);
    let role = select(&["backend", "backend", "backend", "balancer"][..]);
    (any::node(), status, role, any::<u8>()).prop_map(|(node, status, role, spoilt)| {
        let name = if spoilt < 16 { format!("{}/..", node.name) } else { node.name.to_string() };
        let address = std::net::SocketAddr::new(node.address.ip(), 7946);
        let tags = node.to_string().split(' ').skip(2).map(|tag| tag.replacen('=', r#"":""#, 1)).collect::<Vec<_>>();
        let tags = tags.iter().map(|tag| format!(r#","{tag}""#)).collect::<String>();
        (name.clone(), format!(r#"{{"name":"{name}","addr":"{address}","tags":{{"role":"{role}"{tags}}},"status":"{status}"}}"#))
    })
}

/// The members of a cluster, each of another name, in two orders.
fn cluster() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    let members = vec(member(), 0..12).prop_map(|members| members.into_iter().collect::<BTreeMap<_, _>>());
    let members = members.prop_map(|members| members.into_values().collect::<Vec<_>>());
    members.prop_flat_map(|members| (Just(members.clone()).prop_shuffle(), Just(members).prop_shuffle()))
}

fn list(members: &[String]) -> MemberList {
    MemberList::parse(&format!(r#"{{"members":[{}]}}"#, members.join(",")), &Admission::anywhere("backend")).unwrap()
}

/// What is in the registry before: nodes, and files that are none.
fn registry(nodes: &BTreeMap<NodeName, Node>, junk: &[NodeName]) -> (tempfile::TempDir, Registry) {
    let directory = tempfile::tempdir().unwrap();
    // It was one before there was junk in it.
    fs::write(directory.path().join(".registry"), "").unwrap();
    for name in junk {
        fs::write(directory.path().join(name.as_str()), "half a li").unwrap();
    }
    let mut registry = Registry::read(directory.path()).unwrap();
    for node in nodes.values() {
        registry.put(node).unwrap();
    }
    (directory, registry)
}

/// All files with their contents.
fn files(directory: &tempfile::TempDir) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
    let visible = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    visible.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_becomes_the_member_list(
        (members, shuffled) in cluster(),
        before in any::nodes(0..6),
        junk in vec(any::name(), 0..3),
        absent in select(&[Absent::Remove, Absent::KeepWhenAlone][..]),
    ) {
        let list = list(&members);
        let (directory, mut registry) = registry(&before, &junk);
        let change = reconcile(&mut registry, &list, absent, 100).unwrap();

        let mut expected = list.nodes.clone();
        if absent == Absent::KeepWhenAlone && list.alive <= 1 {
            let kept = before.into_iter().filter(|(name, _)| !list.gone.contains(name) && !list.nodes.contains_key(name));
            expected.extend(kept);
        }
        let after = files(&directory);
        let lines = expected.values().map(|node| (node.name.to_string(), format!("{node}\n")));
        prop_assert_eq!(&after, &lines.collect());
        prop_assert!(change.registered.iter().all(|name| list.nodes.contains_key(name)));
        prop_assert!(change.unregistered.iter().all(|name| !expected.contains_key(name)));

        // Again, and in another order: nothing more to do.
        for members in [&members, &shuffled] {
            let mut registry = Registry::read(directory.path()).unwrap();
            let change = reconcile(&mut registry, &self::list(members), absent, 100).unwrap();
            prop_assert_eq!((change.registered.len(), change.unregistered.len()), (0, 0), "{:?}", change);
            prop_assert_eq!(&files(&directory), &after);
        }
    }

    #[test]
    fn any_two_registries_become_the_same(
        (members, shuffled) in cluster(),
        one in any::nodes(0..6),
        other in any::nodes(0..6),
        junk in vec(any::name(), 0..3),
    ) {
        let (mut one, mut other) = (registry(&one, &[]), registry(&other, &junk));
        reconcile(&mut one.1, &list(&members), Absent::Remove, 100).unwrap();
        reconcile(&mut other.1, &list(&shuffled), Absent::Remove, 100).unwrap();
        prop_assert_eq!(files(&one.0), files(&other.0));
        for mut registry in [one.1, Registry::read(one.0.path()).unwrap()] {
            prop_assert_eq!(reconcile(&mut registry, &list(&shuffled), Absent::Remove, 100).unwrap(), Change::default());
        }
    }
}
