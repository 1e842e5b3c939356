//! A cluster member as Serf describes it, and whether it is a node of ours.

use crate::networks::Gate;
use crate::node::{Address, Node, NodeError, Traits};

/// A member as it came from the network: nothing of it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a, T> {
    /// Its name; Serf allows any text.
    pub name: &'a str,
    /// Its IP address, without port.
    pub address: &'a str,
    /// Its role. Serf keeps it beside the tags, where no other tag can forge it.
    pub role: &'a str,
    /// Its tags, as pairs of key and value.
    pub tags: T,
}

impl<'a, T: IntoIterator<Item = (&'a str, &'a str)>> Member<'a, T> {
    /// The node that this member is, or `None` when it has another role than those and so is not load-balanced.
    ///
    /// # Errors
    /// [`NodeError`] when its name, its address or one of its tags `port`, `weight`, `drain` is not valid, or no node may
    /// be where it is.
    /// Other tags are the application's own business.
    pub fn into_node(self, gate: &Gate) -> Result<Option<Node>, NodeError> {
        if self.role != gate.role() {
            return Ok(None);
        }
        let (name, address): (_, Address) = (self.name.parse()?, self.address.parse()?);
        gate.check(address)?;
        Ok(Some(Node { name, address, traits: Traits::from_pairs(self.tags, |_| Ok(()))? }))
    }
}
