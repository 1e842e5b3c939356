//! Whom the agent joins, and when.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use lb_core::members::{Member, agent};

/// Maximum number of addresses of a name that are joined in one round. Gossip spreads the rest; if every member joined all of
/// them, there would be N x N exchanges.
const MAX_ADDRESSES: usize = 3;
/// Number of members that join balancers which count as alive. What one of them hears, all do.
const SCOUTS: usize = 2;
/// Rounds after which a member joins the balancers again for the first time: 10 s.
const REJOIN_ROUNDS: u32 = 5;
/// Role of the members that others have to find: they may have no name to find the others by.
const BALANCER: &str = "balancer";

fn is_balancer(member: &Member) -> bool {
    member.tags.get("role").is_some_and(|role| role == BALANCER)
}

/// What the member list says about whom to join in one round.
#[derive(Debug)]
pub(crate) struct Observation {
    /// Rounds since the agent has started.
    round: u32,
    /// Whether this member joins balancers in every round.
    is_scout: bool,
    /// Addresses of this host.
    own: BTreeSet<IpAddr>,
    /// Addresses of alive balancers.
    balancers: BTreeSet<IpAddr>,
    /// Addresses of alive members.
    alive: BTreeSet<IpAddr>,
    /// Addresses that are being joined, as several names may have the same one.
    taken: Mutex<BTreeSet<IpAddr>>,
}

impl Observation {
    /// As the member `own` of a host with the addresses `here` has it, in this round since its agent has started.
    pub(crate) fn new(members: &[Member], own: &Member, here: &[IpAddr], round: u32) -> Self {
        let alive = || members.iter().filter(|member| member.status == "alive");
        let mut scouts: Vec<&str> = alive().filter(|member| !is_balancer(member)).map(|member| member.name.as_str()).collect();
        scouts.sort_unstable();
        let address = |member: &Member| member.address.parse().ok();
        Self {
            round,
            is_scout: scouts.iter().take(SCOUTS).any(|name| *name == own.name),
            own: here.iter().copied().chain(address(own)).collect(),
            balancers: alive().filter(|member| is_balancer(member)).filter_map(address).collect(),
            alive: alive().filter_map(address).collect(),
            taken: Mutex::default(),
        }
    }

    /// Picks which addresses of a name to join. `settled` are those that it had in the last round and that were joined, `last` is
    /// the round in which that was done.
    fn take(&self, addresses: &BTreeSet<IpAddr>, settled: &BTreeSet<IpAddr>, last: u32) -> Vec<IpAddr> {
        let joins_balancers = self.is_scout || is_rejoin_due(last, self.round);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |address: &&IpAddr| {
            let is_joined = self.alive.contains(address) && !(joins_balancers && self.balancers.contains(address));
            // A new address may belong to another container by now, even if the member that had it still counts as alive.
            let needs_no_join = is_joined && settled.contains(address);
            !self.own.contains(address) && !needs_no_join && !taken.contains(address)
        };
        let wanted = pick(addresses.iter().filter(is_wanted).copied().collect());
        taken.extend(&wanted);
        wanted
    }
}

/// Whether the balancers are joined again in this round, or should have been since the round `last`: a name server or a member that
/// does not answer can make rounds fail, or be skipped.
///
/// A balancer may list a member that has left and come back as leaving, and never stop: a third member that has heard only part of
/// the return passes the leave on with a later time than the return has (`MergeRemoteState` in Serf's `delegate.go`). Joining again
/// overrules that, because the exchange with the balancer first moves the member's clock past that time. This is only likely soon
/// after the return, so the pauses between the joins double.
fn is_rejoin_due(last: u32, round: u32) -> bool {
    // The rounds begin anew with the agent.
    let first = if last < round { last + 1 } else { 1 };
    (first..=round).any(|round| round % REJOIN_ROUNDS == 0 && (round / REJOIN_ROUNDS).is_power_of_two())
}

/// The last known addresses of some other members, balancers first, for a member that cannot look up names yet.
pub(crate) fn others(members: &[Member], own: &Member) -> Vec<IpAddr> {
    let mut others: Vec<_> = members.iter().filter(|member| member.name != own.name && member.status != "left").collect();
    others.sort_by_key(|member| !is_balancer(member));
    others.iter().filter_map(|member| member.address.parse().ok()).take(MAX_ADDRESSES).collect()
}

/// Some of the addresses, at random.
pub(crate) fn pick(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let random = RandomState::new();
    addresses.sort_by_cached_key(|address| random.hash_one(address));
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// A thread that looks up one name for each observation it gets, and makes the agent join the addresses. A name server or member
/// that does not answer delays no other name.
pub(crate) struct Seeker {
    looks: SyncSender<Arc<Observation>>,
    /// The addresses that the name had last.
    found: Arc<Mutex<BTreeSet<IpAddr>>>,
}

impl Seeker {
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let (sender, looks) = sync_channel(1);
        let seeker = Self { looks: sender, found: Arc::default() };
        let (name, found) = (name.to_owned(), Arc::clone(&seeker.found));
        thread::Builder::new().spawn(move || seek(&name, &looks, &found))?;
        Ok(seeker)
    }

    /// Gives it an observation, unless it is still waiting for its name server or for a member with an earlier one.
    pub(crate) fn look(&self, observation: &Arc<Observation>) {
        let _ = self.looks.try_send(Arc::clone(observation));
    }

    /// The addresses that the name had last.
    pub(crate) fn found(&self) -> BTreeSet<IpAddr> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn seek(name: &str, looks: &Receiver<Arc<Observation>>, found: &Mutex<BTreeSet<IpAddr>>) {
    let (mut settled, mut last) = (BTreeSet::new(), 0);
    for look in looks {
        let Some(addresses) = lookup(name) else { continue };
        found.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&addresses);
        settled.retain(|address| addresses.contains(address));
        let wanted = look.take(&addresses, &settled, last);
        if wanted.is_empty() || agent::join(&wanted).is_ok() {
            settled.extend(wanted);
            last = look.round;
        }
    }
}

/// The addresses of a name, if it has any.
pub(crate) fn lookup(name: &str) -> Option<BTreeSet<IpAddr>> {
    // The port is not used.
    let found = (name, 0).to_socket_addrs().ok()?;
    Some(found.map(|address| address.ip().to_canonical()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, address: &str, role: &str, status: &str) -> Member {
        Member {
            name: name.to_owned(),
            address: address.to_owned(),
            tags: [("role".to_owned(), role.to_owned())].into(),
            status: status.to_owned(),
        }
    }

    fn addresses(list: &[&str]) -> BTreeSet<IpAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// Two balancers, one of which has failed, and four nodes, as the member `own` sees them.
    fn look(own: &str) -> Observation {
        look_in(own, 1)
    }

    /// The same in a later round.
    fn look_in(own: &str, round: u32) -> Observation {
        let mut members: Vec<_> = [("s1", "172.18.0.3"), ("s2", "172.18.0.4"), ("s3", "172.18.0.5"), ("s4", "172.18.0.6")]
            .map(|(name, address)| member(name, address, "backend", "alive"))
            .into();
        members.insert(2, member("ha", "172.18.0.2", "balancer", "alive"));
        members.push(member("ha2", "172.18.0.9", "balancer", "failed"));
        let own = members.iter().find(|member| member.name == own).unwrap().clone();
        Observation::new(&members, &own, &["10.0.0.1".parse().unwrap()], round)
    }

    /// Whom a member joins by a name that has had all of these addresses before.
    fn joins(own: &str, by: &[&str]) -> BTreeSet<IpAddr> {
        let all = addresses(by);
        look(own).take(&all, &all, 0).into_iter().collect()
    }

    #[test]
    fn whoever_is_not_alive_is_joined_by_all() {
        for own in ["ha", "s1", "s4"] {
            assert_eq!(joins(own, &["172.18.0.9"]), addresses(&["172.18.0.9"]), "{own}");
            assert_eq!(joins(own, &["172.18.0.99"]), addresses(&["172.18.0.99"]), "{own}");
        }
    }

    #[test]
    fn an_alive_balancer_is_joined_by_the_first_nodes_and_an_alive_node_by_nobody() {
        let all = ["172.18.0.2", "172.18.0.3", "172.18.0.4", "172.18.0.5", "172.18.0.6"];
        for (own, expected) in [("s1", &["172.18.0.2"][..]), ("s2", &["172.18.0.2"]), ("s3", &[]), ("s4", &[]), ("ha", &[])] {
            assert_eq!(joins(own, &all), addresses(expected), "{own}");
        }
    }

    #[test]
    fn every_member_joins_the_balancers_again_ever_more_seldom() {
        let all = addresses(&["172.18.0.2", "172.18.0.3"]);
        let joined = |last, round| look_in("s4", round).take(&all, &all, last);
        let rounds: Vec<u32> = (1..=100).filter(|round| !joined(round - 1, *round).is_empty()).collect();
        assert_eq!(rounds, [5, 10, 20, 40, 80]);
        assert_eq!(joined(4, 5), ["172.18.0.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_skipped_join_is_made_up_for_once() {
        for (last, round, expected) in
            [(4, 7, true), (7, 8, false), (6, 39, true), (39, 39, true), (80, 81, false), (80, 3, false), (80, 6, true)]
        {
            assert_eq!(is_rejoin_due(last, round), expected, "{last} {round}");
        }
    }

    #[test]
    fn a_member_that_has_moved_joins_the_balancers_first_and_nobody_who_has_left() {
        let members = [
            member("s1", "172.18.0.3", "backend", "alive"),
            member("s2", "172.18.0.4", "backend", "failed"),
            member("s3", "172.18.0.5", "backend", "left"),
            member("ha", "172.18.0.2", "balancer", "failed"),
        ];
        assert_eq!(others(&members, &members[0]), ["172.18.0.2", "172.18.0.4"].map(|address| address.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn an_address_that_a_name_has_anew_is_joined_whoever_had_it() {
        let found = addresses(&["172.18.0.4", "172.18.0.5"]);
        assert_eq!(look("s4").take(&found, &addresses(&["172.18.0.4"]), 0), ["172.18.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn nobody_joins_itself() {
        assert_eq!(look("s1").take(&addresses(&["172.18.0.3", "10.0.0.1"]), &BTreeSet::new(), 0), [] as [IpAddr; 0]);
    }

    #[test]
    fn an_address_with_two_names_is_joined_once() {
        let look = look("s1");
        assert_eq!(look.take(&addresses(&["172.18.0.9"]), &BTreeSet::new(), 0).len(), 1);
        assert_eq!(look.take(&addresses(&["172.18.0.9", "172.18.0.99"]), &BTreeSet::new(), 0).len(), 1);
    }

    #[test]
    fn three_of_many_addresses_are_joined_not_always_the_same() {
        let many: BTreeSet<IpAddr> = (1..=250).map(|last| IpAddr::from([10, 0, 1, last])).collect();
        let picked: BTreeSet<Vec<IpAddr>> = (0..20).map(|_| look("s1").take(&many, &BTreeSet::new(), 0)).collect();
        assert!(picked.iter().all(|addresses| addresses.len() == MAX_ADDRESSES));
        assert!(picked.len() > 1, "{picked:?}");
    }
}
