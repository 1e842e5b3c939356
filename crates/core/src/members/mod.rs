//! The members of the Serf cluster: the member list, event lines, and which members are nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::node::{Node, NodeError, NodeName};

pub mod admission;
pub mod agent;
pub mod containers;
pub mod event;
mod options;

use admission::Admission;
pub use options::RoleOptions;

/// The nodes in a member list.
#[derive(Debug, Default)]
pub struct MemberList {
    /// The alive nodes, by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Members that are listed but are no nodes now, with the reason.
    pub gone: BTreeMap<NodeName, Gone>,
    /// Alive members with the role of a node that cannot be one, with the reason.
    pub rejected: Vec<(String, NodeError)>,
    /// Number of all members, whatever their state.
    pub members: usize,
    /// Number of alive members of any role, including the agent itself.
    pub alive: usize,
}

/// Why a listed member is no node now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It says that it is about to leave.
    Leaving,
    /// It said so: it has left, or is alive with a role that takes no traffic.
    Left,
    /// The other members do not reach it.
    Failed,
}

/// A member as the agent lists it. Nothing in it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Name.
    pub name: String,
    /// IP address without port.
    #[serde(rename = "addr", deserialize_with = "without_port")]
    pub address: String,
    /// Tags, including the role.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// `alive`, `leaving`, `left`, `failed` or `none`.
    pub status: String,
}

#[derive(Deserialize)]
struct Document {
    members: Vec<Member>,
}

/// Strips the port off `172.18.0.2:7946` or `[fd00::2]:7946`.
fn without_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = text.rsplit_once(':').map_or("", |(address, _)| address);
    Ok(address.trim_start_matches('[').trim_end_matches(']').to_owned())
}

impl MemberList {
    /// Parses the output of `serf members -format=json`, and selects the nodes.
    ///
    /// # Errors
    /// If the text is not the JSON of a member list.
    pub fn parse(json: &str, admission: &Admission) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_str(json)?;
        Ok(Self::of(&document.members, admission))
    }

    /// Selects the nodes among the members.
    #[must_use]
    pub fn of(members: &[Member], admission: &Admission) -> Self {
        let mut list = Self { members: members.len(), ..Self::default() };
        for entry in members {
            list.add(entry, admission);
        }
        list
    }

    fn add(&mut self, entry: &Member, admission: &Admission) {
        if entry.status != "alive" {
            let gone = match entry.status.as_str() {
                "leaving" => Gone::Leaving,
                "left" => Gone::Left,
                _ => Gone::Failed,
            };
            self.add_gone(entry, gone);
            return;
        }
        self.alive += 1;
        let role = entry.tags.get("role").map_or("", String::as_str);
        let tags = entry.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        match admission.admit(&entry.name, &entry.address, role, tags) {
            Ok(Some(node)) => drop(self.nodes.insert(node.name.clone(), node)),
            Ok(None) => self.add_gone(entry, Gone::Left),
            Err(error) => self.rejected.push((entry.name.clone(), error)),
        }
    }

    /// A name that no node can have is in no registry.
    fn add_gone(&mut self, entry: &Member, gone: Gone) {
        self.gone.extend(entry.name.parse().map(|name| (name, gone)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(members: &str) -> MemberList {
        MemberList::parse(&format!(r#"{{"members":[{members}]}}"#), &Admission::anywhere("backend")).unwrap()
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
        let gone: Vec<_> = list.gone.iter().map(|(name, gone)| (name.as_str(), *gone)).collect();
        assert_eq!(gone, [("ha", Gone::Left), ("s3", Gone::Left), ("s4", Gone::Failed)]);
        assert_eq!((list.members, list.alive), (5, 3));
    }

    #[test]
    fn a_bad_member_is_rejected_and_the_others_are_kept() {
        let bad = entry("a/b", "172.18.0.3:7946", r#""role":"backend""#, "alive");
        let list = list(&[bad, entry("s1", "172.18.0.4:7946", r#""role":"backend""#, "alive")].join(","));
        assert_eq!(list.nodes.len(), 1);
        assert_eq!(list.rejected, [("a/b".to_owned(), NodeError::Name("a/b".to_owned()))]);
    }

    #[test]
    fn an_address_is_told_without_its_port() {
        let members = [entry("s1", "172.18.0.3:7946", "", "failed"), entry("s2", "[fd00::3]:7946", "", "left")].join(",");
        let members: Document = serde_json::from_str(&format!(r#"{{"members":[{members}]}}"#)).unwrap();
        assert_eq!(members.members.iter().map(|entry| entry.address.as_str()).collect::<Vec<_>>(), ["172.18.0.3", "fd00::3"]);
    }

    #[test]
    fn what_is_no_member_list_is_an_error() {
        for bad in ["", "{", "[]", "{}", r#"{"members":[{"name":"s1"}]}"#, r#"{"members":[]} x"#] {
            assert!(MemberList::parse(bad, &Admission::anywhere("backend")).is_err(), "{bad:?}");
        }
    }
}
