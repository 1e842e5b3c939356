//! Forged gossip at real agents: what one member claims hides no other member, and without the key nothing is believed.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::collections::BTreeSet;

use assert_cmd::assert::Assert;
use lb_fixture::forger::{Forged, Forger};
use lb_fixture::{Agent, World, eventually, loopback, said};

const KEY: &str = "Rm9yZ2VkRm9yZ2VkRm9yZ2VkRm9yZ2VkRm9yZ2VkRm8=";
const OTHER_KEY: &str = "T3RoZXJPdGhlck90aGVyT3RoZXJPdGhlck90aGVyT3Q=";

fn backend<'a>(name: &'a [u8], address: &'a [u8]) -> Forged<'a> {
    Forged { name, address, role: b"backend" }
}

/// One run beside the agent.
fn sync(world: &World, agent: &Agent) -> Assert {
    world.command(env!("CARGO_BIN_EXE_sync-nodes")).env("SERF_RPC_ADDR", agent.rpc()).assert()
}

#[test]
fn a_member_that_no_list_may_hold_hides_no_other() {
    let world = World::new();
    let ha = Agent::start("ha", &["role=balancer"]);
    let s1 = Agent::start("s1", &["role=backend"]);
    s1.join(&ha);
    let long = [b'x'; 129];
    let bad: [(&[u8], &[u8], &str); 11] = [
        (b"three", b"abc", "'three' rejected: address '?616263' is not an IPv4 or IPv6 address"),
        (b"none", b"", "'none' rejected: address '?' is not"),
        (b"seventeen", &[1; 17], "'seventeen' rejected: address '?0101010101010101010101010101010101' is not"),
        (b"huge", &[7; 4000], "'huge' rejected: address '?0707070707070707070707070707070707' is not"),
        (b"everywhere", &[0; 4], "'everywhere' rejected: address 0.0.0.0 is unspecified"),
        (&long, &[127, 0, 0, 1], "xxx…' is not 1 to 128"),
        (b"a\n2026/01/01 00:00:00 [INFO] serf: leave", &[127, 0, 0, 1], "'a\\n2026/01/01 00:00:00 [INFO] serf: leave' rejected"),
        (b"b\tc\x1b[2J\x07", &[127, 0, 0, 1], "'b\\tc\\u{1b}[2J\\u{7}' rejected"),
        (b"\xff\xfe", &[127, 0, 0, 1], "'\\u{fffd}\\u{fffd}' rejected"),
        (b"\0", &[127, 0, 0, 1], "'\\u{0}' rejected"),
        (b"../../etc/passwd", &[127, 0, 0, 1], "'../../etc/passwd' rejected"),
    ];
    let forger = Forger::stranger();
    let forged: Vec<_> = bad.iter().map(|(name, address, _)| backend(name, address)).collect();
    // Half of them in packets, the others in an exchange of all members.
    let (packets, exchange) = forged.split_at(forged.len() / 2);
    packets.iter().for_each(|node| forger.alive(ha.address(), node));
    assert!(!forger.push_pull(ha.address(), exchange).is_empty(), "the agent did not answer");

    let mut lines = Vec::new();
    eventually("the agent lists them all", || {
        lines = said(&sync(&world, &ha));
        lines.iter().filter(|line| line.contains("rejected")).count() == bad.len()
    });
    for (_, _, reason) in bad {
        assert_eq!(lines.iter().filter(|line| line.contains(reason)).count(), 1, "{reason}: {lines:#?}");
    }
    let s2 = Agent::start("s2", &["role=backend"]);
    s2.join(&ha);
    sync(&world, &ha);
    assert_eq!(world.nodes(), [format!("s1 {}", s1.address()), format!("s2 {}", s2.address())]);
}

#[test]
fn thirteen_names_of_5_mb_are_rejected_and_hide_no_other() {
    let world = World::new();
    let ha = Agent::start("ha", &["role=balancer"]);
    let [s1, s2] = ["s1", "s2"].map(|name| Agent::start(name, &["role=backend"]));
    [&s1, &s2].iter().for_each(|agent| agent.join(&ha));
    let names: Vec<_> = (b'a'..=b'm').map(|letter| vec![letter; 5 << 20]).collect();
    let forged: Vec<_> = names.iter().map(|name| backend(name, &[127, 0, 0, 9])).collect();
    Forger::stranger().push_pull(ha.address(), &forged);
    eventually("the agent lists them all", || {
        said(&sync(&world, &ha)).iter().filter(|line| line.contains("rejected")).count() == names.len()
    });
    assert_eq!(world.nodes(), [format!("s1 {}", s1.address()), format!("s2 {}", s2.address())]);
}

/// The same messages, once for each forger: the last one shows that they would have done something.
#[test]
fn without_the_key_nothing_is_believed() {
    let ha = Agent::start_with(loopback(), "ha", &["role=balancer"], &["-encrypt", KEY]);
    let s1 = Agent::start_with(loopback(), "s1", &["role=backend"], &["-encrypt", KEY]);
    s1.join(&ha);
    let evil = backend(b"evil", &[127, 0, 0, 9]);
    let moved = [127, 0, 0, 10];
    let attack = |forger: &Forger| {
        forger.alive(ha.address(), &evil);
        forger.gone(ha.address(), "s1");
        forger.alive(ha.address(), &backend(b"s1", &moved));
        forger.leave(ha.address(), "s1");
        forger.dead(ha.address(), "s1");
        forger.suspect(ha.address(), "s1");
        forger.join(ha.address(), "s1");
        forger.push_pull(ha.address(), &[backend(b"evil2", &[127, 0, 0, 11])])
    };
    let members = || ha.members().lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let before = members();
    for (forger, packets, exchange) in [
        (Forger::stranger(), "Decrypt packet failed", "remote state is not encrypted"),
        (
            Forger::with_key(OTHER_KEY),
            "No installed keys could decrypt the message",
            "No installed keys could decrypt the message",
        ),
    ] {
        let seen = |what: &str| ha.log().matches(what).count();
        let (packets_before, exchanges_before) = (seen(packets), seen(exchange));
        let answer = attack(&forger);
        assert!(!answer.windows(2).any(|window| window == b"s1"), "{answer:?}");
        eventually("the agent refuses all of it", || seen(packets) >= packets_before + 7 && seen(exchange) > exchanges_before);
        assert_eq!(members(), before);
    }
    let forger = Forger::with_key(KEY);
    eventually("with the key it is believed", || {
        attack(&forger);
        let members = ha.members();
        members.contains("evil") && members.contains("evil2") && members.contains("127.0.0.10")
    });
}
