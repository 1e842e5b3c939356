//! HAProxy as a witness: whether its health checks reach the nodes.

use std::collections::BTreeMap;

use crate::node::Endpoint;

/// What health checks say about a server. Of several servers at one place, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It is down.
    Fails,
    /// It is not known yet.
    Pending,
    /// It is up.
    Passes,
}

/// What the health checks of HAProxy say about the places that it sends requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Whether HAProxy is running.
    is_running: bool,
    checked: BTreeMap<Endpoint, Health>,
}

impl Witness {
    /// There is none: HAProxy is not running.
    #[must_use]
    pub fn absent() -> Self {
        Self { is_running: false, checked: BTreeMap::new() }
    }

    /// A running HAProxy that checks these places.
    #[must_use]
    pub fn new(checked: impl IntoIterator<Item = (Endpoint, Health)>) -> Self {
        let mut witness = Self { is_running: true, checked: BTreeMap::new() };
        for (endpoint, health) in checked {
            let best = witness.checked.entry(endpoint).or_insert(health);
            *best = health.max(*best);
        }
        witness
    }

    /// Whether HAProxy is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// What is said about a place; `None` if nothing is checked there. If a template sets the port itself, any port of the
    /// address will do.
    #[must_use]
    pub fn health(&self, endpoint: Endpoint) -> Option<Health> {
        let (ip, _) = endpoint;
        let at_address = || self.checked.range((ip, u16::MIN)..=(ip, u16::MAX)).map(|(_, health)| *health).max();
        self.checked.get(&endpoint).copied().or_else(at_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_several_servers_counts() {
        let at = |port| ("172.18.0.2".parse().unwrap(), port);
        let witness = Witness::new([
            (at(3000), Health::Passes),
            (at(3000), Health::Fails),
            (at(3001), Health::Fails),
            (("172.18.0.3".parse().unwrap(), 80), Health::Pending),
        ]);
        assert_eq!(witness.health(at(3000)), Some(Health::Passes));
        assert_eq!(witness.health(at(3001)), Some(Health::Fails));
        assert_eq!(witness.health(at(80)), Some(Health::Passes));
        assert_eq!(witness.health(("172.18.0.3".parse().unwrap(), 3000)), Some(Health::Pending));
        assert_eq!(witness.health(("172.18.0.4".parse().unwrap(), 3000)), None);
    }
}
