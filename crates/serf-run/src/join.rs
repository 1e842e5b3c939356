//! The service next to the agent: finds the other members, and notices when the agent has to be restarted.
//!
//! Serf's own retry ends with its first success, even if it joined itself, and forgets members that left. So all names are
//! looked up every two seconds for as long as the container runs.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use humantime::format_duration;
use lb_core::members::{admission, agent};
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, deadline};

use crate::agent::Configured;
use crate::seek::{Observation, Seeker, lookup, others, pick};
use crate::{Join, SerfRun, advertise, name};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause between two attempts of `--once`.
const RETRY: Duration = Duration::from_millis(50);
/// Rounds without another member before that is logged: half a minute.
const ALONE_ROUNDS: u32 = 10;
/// Time for the others to hear that a member which has joined them is alive. If they have declared it failed, they keep its
/// name and ignore its leave.
const GOSSIP_TIME: Duration = Duration::from_secs(1);
/// Minimum time between two restarts because others do not reach the agent.
const RESTART_PAUSE: Duration = Duration::from_secs(60);
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
    let mut state = State::default();
    let deadline = deadline(SerfRun::NAME, &join.run_options, PAUSE);
    loop {
        deadline.reset();
        let trouble = look(join, &seekers, &mut state, reporter).err();
        reporter.log_new("join", trouble.map(|error| format!("join: {error:#}")).into_iter().collect());
        thread::sleep(PAUSE);
    }
}

/// What is known from earlier rounds.
#[derive(Default)]
struct State {
    name: name::Check,
    restarts: Restarts,
    /// Rounds without another member.
    alone: u32,
    /// Rounds since the agent has started.
    round: u32,
}

fn look(join: &Join, seekers: &[Seeker], state: &mut State, reporter: &Reporter) -> Result<()> {
    let Ok(members) = agent::members() else {
        // While there is no agent, serf-run or the agent's own log says why.
        state.round = 0;
        return Ok(());
    };
    state.round = state.round.saturating_add(1);
    let agent = Configured::read(&join.dir)?;
    let here = admission::addresses()?;
    let Some(own) = members.iter().find(|member| member.name == agent.node_name) else { return Ok(()) };
    let Ok(announced) = own.address.parse::<IpAddr>() else { return Ok(()) };

    let moved = agent.chooses_address() && join.advertise.is_none() && has_moved(announced, &here);
    let named = seekers.iter().flat_map(Seeker::found).collect();
    let may_choose = agent.chooses_address() && join.advertise.is_none() && join.interface.is_none();
    let is_wrong = may_choose && !moved && advertise::is_wrong(announced, &here, &named) && state.restarts.may_begin();
    let look = Arc::new(Observation::new(&members, own, &here, state.round));
    for seeker in seekers {
        seeker.look(&look);
    }
    if moved {
        reporter.log(format_args!("join: {} is no longer at {announced}: restarting the agent", own.name));
        let _ = agent::join(&others(&members, own));
        thread::sleep(GOSSIP_TIME);
    }
    if is_wrong {
        reporter.log(format_args!("join: other members cannot reach {} at {announced}: restarting the agent", own.name));
    }
    if moved || is_wrong || state.name.is_refused(&join.dir, &own.name, announced, reporter)? {
        // The agent exits, and its supervisor restarts it. The next round shows whether it did.
        let _ = agent::leave();
        state.round = 0;
    }
    count_alone(members.len(), &mut state.alone, &join.join, reporter);
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

#[cfg(test)]
mod tests {
    use lb_core::tool::reporter::Format;
    use lb_fixture::World;

    use super::*;

    #[test]
    fn a_member_has_moved_when_its_host_has_other_addresses_only() {
        let has_moved = |here: &[&str]| {
            let here: Vec<IpAddr> = here.iter().map(|address| address.parse().unwrap()).collect();
            has_moved("172.18.0.3".parse().unwrap(), &here)
        };
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
