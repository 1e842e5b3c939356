//! The member list that `serf members -format=json` prints.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::member::Member;
use crate::node::{Node, NodeError, NodeName};

/// What the cluster's member list says about the nodes of one role.
#[derive(Debug, Default)]
pub struct MemberList {
    /// The alive nodes, by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Names of members of any role that are known not to be alive: leaving, left or failed.
    pub gone: BTreeSet<NodeName>,
    /// Alive members of the role that cannot be a node, with the reason.
    pub refused: Vec<(String, NodeError)>,
    /// All members, whatever their state.
    pub members: usize,
    /// Alive members of any role, the agent itself included.
    pub alive: usize,
}

#[derive(Deserialize)]
struct Document {
    members: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    /// Address and gossip port, `172.18.0.2:7946` or `[fd00::2]:7946`.
    addr: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    status: String,
}

impl Entry {
    /// The address alone.
    fn ip(&self) -> &str {
        let address = self.addr.rsplit_once(':').map_or("", |(ip, _)| ip);
        address.trim_start_matches('[').trim_end_matches(']')
    }
}

impl MemberList {
    /// Reads the list, and picks out the members of `role`.
    ///
    /// # Errors
    /// When the text is not the JSON of a member list; nothing of such a text is used.
    pub fn parse(json: &str, role: &str) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_str(json)?;
        let mut list = Self { members: document.members.len(), ..Self::default() };
        for entry in &document.members {
            list.add(entry, role);
        }
        Ok(list)
    }

    fn add(&mut self, entry: &Entry, role: &str) {
        if entry.status != "alive" {
            self.gone.extend(entry.name.parse());
            return;
        }
        self.alive += 1;
        let member = Member {
            name: &entry.name,
            address: entry.ip(),
            role: entry.tags.get("role").map_or("", String::as_str),
            tags: entry.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())),
        };
        match member.into_node(role) {
            Ok(Some(node)) => drop(self.nodes.insert(node.name.clone(), node)),
            Ok(None) => {}
            Err(error) => self.refused.push((entry.name.clone(), error)),
        }
    }
}

/// The address of the member `name` in the list, unless it has left: its name is free then.
///
/// # Errors
/// When the text is not the JSON of a member list.
pub fn address_of(json: &str, name: &str) -> Result<Option<String>, serde_json::Error> {
    let document: Document = serde_json::from_str(json)?;
    let entry = document.members.iter().find(|entry| entry.name == name && entry.status != "left");
    Ok(entry.map(|entry| entry.ip().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(members: &str) -> MemberList {
        MemberList::parse(&format!(r#"{{"members":[{members}]}}"#), "backend").unwrap()
    }

    fn entry(name: &str, addr: &str, tags: &str, status: &str) -> String {
        format!(r#"{{"name":"{name}","addr":"{addr}","port":7946,"tags":{{{tags}}},"status":"{status}","protocol":{{"max":5}}}}"#)
    }

    #[test]
    fn alive_members_of_the_role_are_the_nodes() {
        let list = list(
            &[
                entry("ha", "172.18.0.2:7946", r#""role":"balancer""#, "alive"),
                entry("s1", "172.18.0.3:7946", r#""role":"backend""#, "alive"),
                entry("s2", "[fd00::3]:7946", r#""role":"backend","port":"8080""#, "alive"),
                entry("s3", "172.18.0.5:7946", r#""role":"backend""#, "left"),
                entry("s4", "172.18.0.6:7946", r#""role":"backend""#, "failed"),
            ]
            .join(","),
        );
        let nodes: Vec<_> = list.nodes.values().map(ToString::to_string).collect();
        assert_eq!(nodes, ["s1 172.18.0.3", "s2 fd00::3 port=8080"]);
        assert_eq!(list.gone.iter().map(NodeName::as_str).collect::<Vec<_>>(), ["s3", "s4"]);
        assert_eq!(list.alive, 3);
    }

    #[test]
    fn a_bad_member_is_refused_and_the_others_are_kept() {
        let bad = entry("a/b", "172.18.0.3:7946", r#""role":"backend""#, "alive");
        let list = list(&[bad, entry("s1", "172.18.0.4:7946", r#""role":"backend""#, "alive")].join(","));
        assert_eq!(list.nodes.len(), 1);
        assert_eq!(list.refused, [("a/b".to_owned(), NodeError::Name("a/b".to_owned()))]);
    }

    #[test]
    fn a_member_that_left_has_no_address() {
        let members = [entry("s1", "172.18.0.3:7946", "", "failed"), entry("s2", "[fd00::3]:7946", "", "left")].join(",");
        let json = format!(r#"{{"members":[{members}]}}"#);
        assert_eq!(address_of(&json, "s1").unwrap().as_deref(), Some("172.18.0.3"));
        assert_eq!(address_of(&json, "s2").unwrap(), None);
        assert_eq!(address_of(&json, "s3").unwrap(), None);
    }

    #[test]
    fn what_is_no_member_list_is_an_error() {
        for bad in ["", "{", "[]", "{}", r#"{"members":[{"name":"s1"}]}"#, r#"{"members":[]} x"#] {
            assert!(MemberList::parse(bad, "backend").is_err(), "{bad:?}");
        }
    }
}
