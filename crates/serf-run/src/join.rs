//! The service next to the agent: finds the other members, and notices when the agent has to be restarted.
//!
//! Serf's own retry ends with its first success, even if it joined itself, and forgets members that left. So all names are
//! looked up every two seconds for as long as the container runs.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use humantime::format_duration;
use lb_core::members::Member;
use lb_core::members::{admission, agent};
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, deadline};

use crate::agent::Configured;
use crate::{Join, SerfRun, advertise, name};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause between two attempts of `--once`.
const RETRY: Duration = Duration::from_millis(50);
/// Maximum number of addresses of a name that are joined in one round. Gossip spreads the rest; if every member joined all of
/// them, there would be N x N exchanges.
const MAX_ADDRESSES: usize = 3;
/// Number of members that join balancers which count as alive. What one of them hears, all do.
const SCOUTS: usize = 2;
/// Rounds without another member before that is logged: half a minute.
const ALONE_ROUNDS: u32 = 10;
/// Time for the others to hear that a member which has joined them is alive. If they have declared it failed, they keep its
/// name and ignore its leave.
const GOSSIP_TIME: Duration = Duration::from_secs(1);
/// Minimum time between two restarts because others do not reach the agent.
const RESTART_PAUSE: Duration = Duration::from_secs(60);
/// Role of the members that others have to find: they may have no name to find the others by.
const BALANCER: &str = "balancer";

/// Runs the command.
pub(crate) fn run(join: &Join, reporter: &Reporter) -> Result<Exit> {
    match join.once {
        Some(limit) => once(&join.join, *limit),
        None => forever(join, reporter),
    }
}

/// Returns when the agent has joined another member. Both have exchanged all that they know then, so that its list is whole;
/// before, it has members that it heard of one by one, or none.
fn once(names: &str, limit: Duration) -> Result<Exit> {
    let deadline = Instant::now() + limit;
    let (sender, ends) = channel();
    for name in names.split_whitespace() {
        let (name, sender) = (name.to_owned(), sender.clone());
        thread::Builder::new().spawn(move || join_by(&name, &sender)).context("start a thread")?;
    }
    drop(sender);
    loop {
        match ends.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(false) => {}
            // Each thread has ended without one.
            Ok(true) | Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Done),
            Err(RecvTimeoutError::Timeout) => bail!("join: no other member has answered in {}", format_duration(limit)),
        }
    }
}

/// Joins by one name until that succeeds, and sends true; or false if the name leads to no other host.
fn join_by(name: &str, ends: &Sender<bool>) {
    loop {
        let own = admission::addresses().unwrap_or_default();
        let others = pick(lookup(name).into_iter().flatten().filter(|address| !own.contains(address)).collect());
        if others.is_empty() || agent::join(&others).is_ok() {
            let _ = ends.send(!others.is_empty());
            return;
        }
        thread::sleep(RETRY);
    }
}

/// Errors are logged when they are new, and the round is retried.
fn forever(join: &Join, reporter: &Reporter) -> Result<Exit> {
    let seekers = join.join.split_whitespace().map(Seeker::start).collect::<io::Result<Vec<_>>>().context("start a thread")?;
    let mut name = name::Check::default();
    let (mut alone, mut restarts) = (0, Restarts::default());
    let deadline = deadline(SerfRun::NAME, &join.run_options, PAUSE);
    loop {
        deadline.reset();
        let trouble = look(join, &seekers, &mut name, &mut alone, &mut restarts, reporter).err();
        reporter.log_new("join", trouble.map(|error| format!("join: {error:#}")).into_iter().collect());
        thread::sleep(PAUSE);
    }
}

fn look(
    join: &Join,
    seekers: &[Seeker],
    name: &mut name::Check,
    alone: &mut u32,
    restarts: &mut Restarts,
    reporter: &Reporter,
) -> Result<()> {
    // While there is no agent, serf-run or the agent's own log says why.
    let Ok(members) = agent::members() else { return Ok(()) };
    let agent = Configured::read(&join.dir)?;
    let here = admission::addresses()?;
    let Some(own) = members.iter().find(|member| member.name == agent.node_name) else { return Ok(()) };
    let Ok(announced) = own.address.parse::<IpAddr>() else { return Ok(()) };

    let moved = agent.chooses_address() && join.advertise.is_none() && has_moved(announced, &here);
    let named = seekers.iter().flat_map(Seeker::found).collect();
    let may_choose = agent.chooses_address() && join.advertise.is_none() && join.interface.is_none();
    let is_wrong = may_choose && !moved && advertise::is_wrong(announced, &here, &named) && restarts.may_begin();
    let look = Arc::new(Observation::new(&members, own, &here));
    for seeker in seekers {
        // A seeker that is still waiting for its name server or for a member gets the next observation.
        let _ = seeker.looks.try_send(Arc::clone(&look));
    }
    if moved {
        reporter.log(format_args!("join: {} is no longer at {announced}: restarting the agent", own.name));
        let _ = agent::join(&others(&members, own));
        thread::sleep(GOSSIP_TIME);
    }
    if is_wrong {
        reporter.log(format_args!("join: other members cannot reach {} at {announced}: restarting the agent", own.name));
    }
    if moved || is_wrong || name.is_refused(&join.dir, &own.name, announced, reporter)? {
        // The agent exits, and its supervisor restarts it. The next round shows whether it did.
        let _ = agent::leave();
    }
    count_alone(members.len(), alone, &join.join, reporter);
    Ok(())
}

/// When the agent was restarted because others do not reach it. If that does not help, it must not go on all the time: the member
/// would leave and come back.
#[derive(Debug, Default)]
struct Restarts(Option<Instant>);

impl Restarts {
    /// Whether it may be restarted now.
    fn may_begin(&mut self) -> bool {
        let may = self.0.is_none_or(|last| last.elapsed() > RESTART_PAUSE);
        if may {
            self.0 = Some(Instant::now());
        }
        may
    }
}

/// Logs once that there is no other member, unless there has been one.
fn count_alone(members: usize, alone: &mut u32, names: &str, reporter: &Reporter) {
    if members > 1 {
        *alone = ALONE_ROUNDS;
    }
    if *alone == ALONE_ROUNDS {
        return;
    }
    *alone += 1;
    if *alone == ALONE_ROUNDS {
        reporter.log(format_args!(
            "join: no other member is found by the names '{names}'; goes on trying. Are all containers on one network (docker run \
             --network heig), with the same gossip key or none?"
        ));
    }
}

/// Whether the address that the agent announces is no longer one of this host's. A host without any address has lost its
/// network, and there is nothing to announce.
fn has_moved(announced: IpAddr, here: &[IpAddr]) -> bool {
    !here.is_empty() && !here.contains(&announced.to_canonical())
}

fn is_balancer(member: &Member) -> bool {
    member.tags.get("role").is_some_and(|role| role == BALANCER)
}

/// The last known addresses of some other members, balancers first, for a member that cannot look up names yet.
fn others(members: &[Member], own: &Member) -> Vec<IpAddr> {
    let mut others: Vec<_> = members.iter().filter(|member| member.name != own.name && member.status != "left").collect();
    others.sort_by_key(|member| !is_balancer(member));
    others.iter().filter_map(|member| member.address.parse().ok()).take(MAX_ADDRESSES).collect()
}

/// What the member list says about whom to join in one round.
#[derive(Debug)]
struct Observation {
    /// Addresses of this host.
    own: BTreeSet<IpAddr>,
    /// Addresses of alive members that need not be joined.
    joined: BTreeSet<IpAddr>,
    /// Addresses that are being joined, as several names may have the same one.
    taken: Mutex<BTreeSet<IpAddr>>,
}

impl Observation {
    fn new(members: &[Member], own: &Member, here: &[IpAddr]) -> Self {
        let alive = || members.iter().filter(|member| member.status == "alive");
        let mut scouts: Vec<&str> = alive().filter(|member| !is_balancer(member)).map(|member| member.name.as_str()).collect();
        scouts.sort_unstable();
        let is_scout = scouts.iter().take(SCOUTS).any(|name| *name == own.name);
        let address = |member: &Member| member.address.parse().ok();
        Self {
            own: here.iter().copied().chain(address(own)).collect(),
            joined: alive().filter(|member| !(is_scout && is_balancer(member))).filter_map(address).collect(),
            taken: Mutex::default(),
        }
    }

    /// Picks which addresses of a name to join. `settled` are those that it had in the last round and that were joined.
    fn take(&self, addresses: &BTreeSet<IpAddr>, settled: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |address: &&IpAddr| {
            // A new address may belong to another container by now, even if the member that had it still counts as alive.
            let needs_no_join = self.joined.contains(address) && settled.contains(address);
            !self.own.contains(address) && !needs_no_join && !taken.contains(address)
        };
        let wanted = pick(addresses.iter().filter(is_wanted).copied().collect());
        taken.extend(&wanted);
        wanted
    }
}

/// Some of the addresses, at random.
fn pick(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let random = RandomState::new();
    addresses.sort_by_cached_key(|address| random.hash_one(address));
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// A thread that looks up one name for each observation it gets, and makes the agent join the addresses. A name server or member
/// that does not answer delays no other name.
struct Seeker {
    looks: SyncSender<Arc<Observation>>,
    /// The addresses that the name had last.
    found: Arc<Mutex<BTreeSet<IpAddr>>>,
}

impl Seeker {
    fn start(name: &str) -> io::Result<Self> {
        let (sender, looks) = sync_channel(1);
        let seeker = Self { looks: sender, found: Arc::default() };
        let (name, found) = (name.to_owned(), Arc::clone(&seeker.found));
        thread::Builder::new().spawn(move || seek(&name, &looks, &found))?;
        Ok(seeker)
    }

    fn found(&self) -> BTreeSet<IpAddr> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn seek(name: &str, looks: &Receiver<Arc<Observation>>, found: &Mutex<BTreeSet<IpAddr>>) {
    let mut settled = BTreeSet::new();
    for look in looks {
        let Some(addresses) = lookup(name) else { continue };
        found.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&addresses);
        settled.retain(|address| addresses.contains(address));
        let wanted = look.take(&addresses, &settled);
        if !wanted.is_empty() && agent::join(&wanted).is_ok() {
            settled.extend(wanted);
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
    use lb_core::tool::reporter::Format;
    use lb_fixture::World;

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
        let mut members: Vec<_> = [("s1", "172.18.0.3"), ("s2", "172.18.0.4"), ("s3", "172.18.0.5"), ("s4", "172.18.0.6")]
            .map(|(name, address)| member(name, address, "backend", "alive"))
            .into();
        members.insert(2, member("ha", "172.18.0.2", "balancer", "alive"));
        members.push(member("ha2", "172.18.0.9", "balancer", "failed"));
        let own = members.iter().find(|member| member.name == own).unwrap().clone();
        Observation::new(&members, &own, &["10.0.0.1".parse().unwrap()])
    }

    /// Whom a member joins by a name that has had all of these addresses before.
    fn joins(own: &str, by: &[&str]) -> BTreeSet<IpAddr> {
        let all = addresses(by);
        look(own).take(&all, &all).into_iter().collect()
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
        assert_eq!(look("s4").take(&found, &addresses(&["172.18.0.4"])), ["172.18.0.5".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn nobody_joins_itself() {
        assert_eq!(look("s1").take(&addresses(&["172.18.0.3", "10.0.0.1"]), &BTreeSet::new()), [] as [IpAddr; 0]);
    }

    #[test]
    fn an_address_with_two_names_is_joined_once() {
        let look = look("s1");
        assert_eq!(look.take(&addresses(&["172.18.0.9"]), &BTreeSet::new()).len(), 1);
        assert_eq!(look.take(&addresses(&["172.18.0.9", "172.18.0.99"]), &BTreeSet::new()).len(), 1);
    }

    #[test]
    fn three_of_many_addresses_are_joined_not_always_the_same() {
        let many: BTreeSet<IpAddr> = (1..=250).map(|last| IpAddr::from([10, 0, 1, last])).collect();
        let picked: BTreeSet<Vec<IpAddr>> = (0..20).map(|_| look("s1").take(&many, &BTreeSet::new())).collect();
        assert!(picked.iter().all(|addresses| addresses.len() == MAX_ADDRESSES));
        assert!(picked.len() > 1, "{picked:?}");
    }

    #[test]
    fn a_member_has_moved_when_its_host_has_other_addresses_only() {
        let has_moved =
            |here: &[&str]| has_moved("172.18.0.3".parse().unwrap(), &addresses(here).into_iter().collect::<Vec<_>>());
        assert!(has_moved(&["172.18.0.4"]));
        assert!(!has_moved(&["10.0.0.1", "172.18.0.3"]));
        assert!(!has_moved(&[]), "without a network");
    }

    #[test]
    fn that_there_is_nobody_else_is_said_once_after_ten_looks() {
        let world = World::new();
        let reporter = Reporter::new("serf-run", Format::Text, Some(world.log_file()), None);
        let mut alone = 0;
        for look in 1..30 {
            count_alone(1, &mut alone, "one two", &reporter);
            assert_eq!(world.log().len(), usize::from(look >= 10), "look {look}");
        }
        assert!(
            world.log()[0].starts_with("serf-run: join: no other member is found by the names 'one two'; "),
            "{:?}",
            world.log()
        );

        let (world, mut alone) = (World::new(), 0);
        let reporter = Reporter::new("serf-run", Format::Text, Some(world.log_file()), None);
        for members in [1, 2].into_iter().chain([1; 20]) {
            count_alone(members, &mut alone, "one two", &reporter);
        }
        assert_eq!(world.log(), [""; 0], "one that was once there is known to be away");
    }
}
