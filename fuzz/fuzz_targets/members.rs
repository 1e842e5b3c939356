//! The member list that `serf members -format=json` prints.
#![no_main]

use lb_core::members::MemberList;
use lb_core::node::NodeName;
use lb_fuzz::{GATE, ROLES, check_message, check_name, check_node};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// The nodes of the list as Serf would print them.
fn print(list: &MemberList) -> String {
    let members = list.nodes.values().map(|node| {
        let mut tags = json!({ "role": node.role.as_str() });
        for pair in node.to_string().split(' ').skip(2) {
            let (key, value) = pair.split_once('=').expect("a pair");
            tags[key] = value.into();
        }
        let address = std::net::SocketAddr::new(node.address.ip(), 7946).to_string();
        json!({ "name": node.name.as_str(), "addr": address, "tags": tags, "status": "alive" })
    });
    json!({ "members": members.collect::<Vec<_>>() }).to_string()
}

fuzz_target!(|json: &str| {
    let Ok(list) = MemberList::parse(json, &GATE) else { return };
    // The same text, read without knowing what it should be.
    // A number that is too large for any type is no error where nobody reads it.
    let Ok(value) = serde_json::from_str::<Value>(json) else { return };
    // Serde takes a list for an object as well, which Serf never prints.
    let Some(members) = value["members"].as_array().filter(|members| members.iter().all(Value::is_object)) else { return };
    let is_alive = |member: &&Value| member["status"] == "alive";
    let is_ours = |member: &&Value| is_alive(member) && ROLES.iter().any(|role| member["tags"]["role"] == *role);
    assert_eq!(list.members, members.len());
    assert_eq!(list.alive, members.iter().filter(is_alive).count());
    assert!(list.nodes.len() + list.rejected.len() <= members.iter().filter(is_ours).count());
    for member in members.iter().filter(is_ours) {
        let name = member["name"].as_str().expect("a name");
        let is_node = name.parse::<NodeName>().is_ok_and(|name| list.nodes.contains_key(&name));
        assert!(is_node || list.rejected.iter().any(|(rejected, _)| rejected == name), "{name:?} is lost");
    }
    for member in members.iter().filter(|member| !is_alive(member)) {
        let name = member["name"].as_str().expect("a name").parse::<NodeName>();
        assert!(name.is_err() || name.is_ok_and(|name| list.gone.contains_key(&name)));
    }

    list.gone.keys().for_each(check_name);
    list.rejected.iter().for_each(|(_, error)| check_message(error));
    for (name, node) in &list.nodes {
        assert_eq!(*name, node.name);
        check_node(node);
    }
    let again = MemberList::parse(&print(&list), &GATE).expect("a member list");
    assert_eq!(again.nodes, list.nodes);
});
