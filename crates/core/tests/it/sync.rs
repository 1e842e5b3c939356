//! Syncing makes the registry equal to the member list, from anywhere, in one go, whatever the order of the members.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use lb_core::members::admission::Admission;
use lb_core::members::{Gone, MemberList};
use lb_core::node::{Node, NodeName, Port};
use lb_core::registry::Registry;
use lb_core::registry::reconcile::{Change, Judge, Kept, reconcile};
use lb_core::registry::witness::{Health, Witness};
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

fn port() -> Port {
    "3000".parse().unwrap()
}

/// What HAProxy says about a node, if it checks it.
fn health() -> impl Strategy<Value = Option<Health>> {
    select(&[Some(Health::Passes), Some(Health::Passes), Some(Health::Fails), Some(Health::Pending), None][..])
}

/// A running HAProxy that says this about the nodes.
fn witness(nodes: &BTreeMap<NodeName, Node>, health: &[Option<Health>]) -> Witness {
    Witness::new(nodes.values().zip(health).filter_map(|(node, health)| Some((node.endpoint(port()), (*health)?))))
}

fn kept(registry: &Registry, list: &MemberList, witness: &Witness) -> BTreeMap<NodeName, Kept> {
    let judge = Judge { list, doubted: &BTreeSet::new(), port: port() };
    judge.kept(registry, || Ok::<_, ()>(witness.clone())).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_registry_becomes_the_member_list(
        (members, shuffled) in cluster(),
        before in any::nodes(0..6),
        junk in vec(any::name(), 0..3),
        health in vec(health(), 6),
    ) {
        let list = list(&members);
        let (directory, mut registry) = registry(&before, &junk);
        let witness = witness(&before, &health);
        let kept = kept(&registry, &list, &witness);
        let change = reconcile(&mut registry, &list, &kept, 100).unwrap();

        let mut expected = list.nodes.clone();
        expected.extend(before.into_iter().filter(|(name, _)| kept.contains_key(name)));
        let after = files(&directory);
        let lines = expected.values().map(|node| (node.name.to_string(), format!("{node}\n")));
        prop_assert_eq!(&after, &lines.collect());
        prop_assert!(change.registered.iter().all(|name| list.nodes.contains_key(name)));
        prop_assert!(change.unregistered.iter().all(|name| !expected.contains_key(name)));

        // Again, and in another order: nothing more to do.
        for members in [&members, &shuffled] {
            let (list, mut registry) = (self::list(members), Registry::read(directory.path()).unwrap());
            let kept = self::kept(&registry, &list, &witness);
            let change = reconcile(&mut registry, &list, &kept, 100).unwrap();
            prop_assert_eq!((change.registered.len(), change.unregistered.len()), (0, 0), "{:?}", change);
            prop_assert_eq!(&files(&directory), &after);
        }
    }

    #[test]
    fn who_answers_goes_only_by_its_own_word(
        (members, _) in cluster(),
        before in any::nodes(0..6),
        health in vec(health(), 6),
    ) {
        let (list, witness) = (list(&members), witness(&before, &health));
        let (_directory, registry) = registry(&before, &[]);
        let kept = kept(&registry, &list, &witness);
        for (name, node) in &before {
            let health = witness.health(node.endpoint(port()));
            let is_confirmed = list.nodes.get(name).is_some_and(|member| member.address == node.address);
            prop_assert!(!kept.contains_key(name) || !(is_confirmed || health == Some(Health::Fails)), "{node}: {kept:?}");
            let has_successor = list.nodes.values().any(|member| member.endpoint(port()) == node.endpoint(port()));
            let said_so = list.gone.get(name).is_some_and(|gone| *gone != Gone::Failed);
            if health == Some(Health::Passes) && !is_confirmed && !has_successor && !said_so {
                prop_assert!(kept.contains_key(name), "{node}: {kept:?}");
            }
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
        let nobody = BTreeMap::new();
        reconcile(&mut one.1, &list(&members), &nobody, 100).unwrap();
        reconcile(&mut other.1, &list(&shuffled), &nobody, 100).unwrap();
        prop_assert_eq!(files(&one.0), files(&other.0));
        for mut registry in [one.1, Registry::read(one.0.path()).unwrap()] {
            prop_assert_eq!(reconcile(&mut registry, &list(&shuffled), &nobody, 100).unwrap(), Change::default());
        }
    }
}
