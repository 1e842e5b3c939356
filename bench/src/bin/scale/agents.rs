//! Real Serf agents, each at its own address of the container's loopback, as many as the machine's cores can gossip for.
//!
//! An agent that has one thread for its work costs what it costs in a container with a core of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_fixture::Background;

use crate::balancer::Balancer;
use crate::stage::{IMAGE, START, Stage, listens};
use crate::wait::soon;

/// Time for all to know each other.
const LIMIT: Duration = Duration::from_secs(120);
/// Serf's RPC: handshake, and the command `stats`, whose short answer counts the members.
const HANDSHAKE: &[u8] = b"\x82\xa7Command\xa9handshake\xa3Seq\x00\x81\xa7Version\x01";
const STATS: &[u8] = b"\x82\xa7Command\xa5stats\xa3Seq\x01";

/// What was measured.
pub struct Converged {
    /// Serf's timing of gossip.
    pub profile: &'static str,
    /// From the first start to the last.
    pub starting: Duration,
    /// From the last start until HAProxy has all.
    pub applied: Duration,
    /// From the last start until every agent knows all.
    pub known: Duration,
}

/// Starts this number of agents with a profile, and the balancer's before.
pub fn measure(count: u16, profile: &'static str) -> Result<Converged> {
    let stage = Stage::start(IMAGE)?;
    let mut balancer = Balancer::new(&stage, &rpc(0), None)?;
    let _answering = stage.start_nodes(&balancer.world.path(""))?;
    let mut agents = vec![start(&stage, profile, 0, "balancer")?];
    // Until there is a node, nobody answers requests.
    agents.push(start(&stage, profile, 1, "backend")?);
    soon("the balancer's agent knows the first node", START, || Ok((known(&mut connect(0)?)? == Some(2)).then_some(())))?;
    balancer.start()?;
    let _follower = balancer.follow()?;

    let (first, mut last) = (Instant::now(), Instant::now());
    for number in 2..=count {
        last = Instant::now();
        agents.push(start(&stage, profile, number, "backend")?);
    }
    let starting = last - first;
    let mut applied = None;
    let (mut number, mut stream) = (0, connect(0)?);
    let all = u32::from(count) + 1;
    let known = soon("every agent knows all", LIMIT, || {
        if applied.is_none() && balancer.servers()? == usize::from(count) {
            applied = Some(last.elapsed());
        }
        // Who knows all will not forget, so one is asked after the other.
        while number <= count && known(&mut stream)? == Some(all) {
            number += 1;
            if number <= count {
                stream = connect(number)?;
            }
        }
        Ok((number > count).then(|| last.elapsed()))
    })?;
    if applied.is_none() {
        balancer.has(count.into())?;
    }
    Ok(Converged { profile, starting, applied: applied.unwrap_or_else(|| last.elapsed()), known })
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 2, high, low)
}

/// Where an agent takes commands.
fn rpc(number: u16) -> String {
    format!("{}:7373", address(number))
}

/// Starts an agent, which looks for the balancer's, and returns once it takes commands.
fn start(stage: &Stage, profile: &str, number: u16, role: &str) -> Result<Background> {
    let (node, bind, rpc_address) = (format!("a{number:03}"), format!("{}:7946", address(number)), rpc(number));
    let (role, join) = (format!("role={role}"), format!("-retry-join={}:7946", address(0)));
    let arguments = ["agent", "-profile", profile, "-node", &node, "-bind", &bind, "-rpc-addr", &rpc_address, "-tag", &role];
    let others = [join.as_str(), "-retry-interval=1s"];
    let arguments = [&arguments[..], if number == 0 { &[] } else { &others }].concat();
    let mut command = stage.command("/usr/bin/serf", &arguments);
    let agent = Background::start(command.env("GOMAXPROCS", "1"));
    listens(&rpc_address, || agent.said())?;
    Ok(agent)
}

/// A conversation with an agent.
fn connect(number: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(rpc(number)).with_context(|| format!("agent {number}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(HANDSHAKE)?;
    let _ = stream.read(&mut [0; 256])?;
    Ok(stream)
}

/// How many members an agent knows, unless it takes one of them for failed or gone.
fn known(stream: &mut TcpStream) -> Result<Option<u32>> {
    stream.write_all(STATS)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let length = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.context("an agent does not answer")?,
        };
        anyhow::ensure!(length > 0, "an agent has hung up");
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        let figures = ["members", "failed", "left"].map(|key| figure(&answer, key));
        if let [Some(members), Some(failed), Some(left)] = figures {
            return Ok((failed + left == 0).then_some(members));
        }
    }
}

/// A figure in the answer: key and value are short texts.
fn figure(answer: &[u8], key: &str) -> Option<u32> {
    let length = u8::try_from(key.len()).ok()?;
    let word = [&[0xa0 | length], key.as_bytes()].concat();
    let at = answer.windows(word.len()).position(|window| window == word)? + word.len();
    let length = usize::from(answer.get(at)? ^ 0xa0);
    std::str::from_utf8(answer.get(at + 1..at + 1 + length)?).ok()?.parse().ok()
}
