//! Members that no list may hold: each is rejected by its name, costs little, and hides no other.

use std::process;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use lb_fixture::scripted::{listed, listed_node, member_list, raw, scripted_agent};
use lb_fixture::{World, said};

const TOOL: &str = env!("CARGO_BIN_EXE_sync-nodes");
/// As much data as a run may have at a time: a list of 65 MB must not be held.
const DATA: u32 = 24 << 20;

/// Syncs with these members, with a good one before and one after them.
fn sync(world: &World, members: &[Vec<u8>]) -> Assert {
    let [before, after] = [listed_node("s1", [172, 18, 0, 2]), listed_node("s2", [172, 18, 0, 3])];
    let members = [&[before][..], members, &[after]].concat();
    let tool = world.process(TOOL);
    let mut bounded = process::Command::new("prlimit");
    bounded.arg(format!("--data={DATA}")).arg(tool.get_program());
    bounded.env_clear().envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bounded.env("SERF_RPC_ADDR", scripted_agent(member_list(&members)));
    Command::from_std(bounded).timeout(Duration::from_secs(60)).assert()
}

/// What was rejected; the two good members are in.
fn rejected(world: &World, run: &Assert) -> Vec<String> {
    assert_eq!(world.nodes(), ["s1 172.18.0.2", "s2 172.18.0.3"], "{run}");
    let lines = said(run);
    assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
    lines.into_iter().filter(|line| line.contains("rejected")).collect()
}

#[test]
fn what_cannot_be_read_of_a_member_refuses_it_alone() {
    let long = vec![b'x'; 1 << 20];
    let role = (&raw(b"role")[..], &raw(b"backend")[..]);
    let (good_name, good_address) = (raw(b"x"), raw(&[172, 18, 0, 9]));
    let with_tag = |value: &[u8]| listed(&good_name, &good_address, &[(&raw(b"port"), value), role]);
    let named = |name: &[u8]| listed(&raw(name), &good_address, &[role]);
    let at = |address: &[u8]| listed(&good_name, &raw(address), &[role]);
    for (member, reason) in [
        (at(b""), "'x' rejected: address '?' is not an IPv4 or IPv6 address"),
        (at(b"abc"), "'x' rejected: address '?616263' is not"),
        (at(&[1; 17]), "'x' rejected: address '?0101010101010101010101010101010101' is not"),
        (at(&long), "'x' rejected: address '?7878"),
        (listed(&good_name, b"\xc0", &[role]), "'x' rejected: address '?' is not"),
        (listed(b"\xc0", &good_address, &[role]), "'' rejected: name '' is not 1 to 128"),
        (listed(b"\x92\x01\x81\xa1a\xa1b", &good_address, &[role]), "'' rejected: name '' is not 1 to 128"),
        (named(&[b'x'; 129]), "xxx…' is not 1 to 128"),
        (named(&long), "xxx…' is not 1 to 128"),
        (named(b"s1\n2026/01/01 00:00:00 leave\x1b[2J"), "'s1\\n2026/01/01 00:00:00 leave\\u{1b}[2J' rejected: name"),
        (named(b"\xff\xfe"), "'\\u{fffd}\\u{fffd}' rejected: name"),
        (with_tag(b"\x05"), "'x' rejected: port '\\u{fffd}' is not 1 to 65535"),
        (with_tag(b"\xc0"), "'x' rejected: port '\\u{fffd}' is not"),
        (with_tag(&raw(&long)), "'x' rejected: port 'xxx"),
    ] {
        let world = World::new();
        let run = sync(&world, &[member]).code(65);
        let rejected = rejected(&world, &run);
        assert!(rejected.len() == 1 && rejected[0].contains(reason), "{reason}: {rejected:?}");
    }
}

#[test]
fn a_member_that_is_none_at_all_is_passed_over() {
    let no_role = listed(&raw(b"x"), &raw(b"abc"), &[]);
    let role_of_no_text = listed(&raw(b"x"), &raw(b"abc"), &[(&raw(b"role"), b"\xc0")]);
    for member in
        [b"\xc0".to_vec(), b"\x93\x01\x02\x03".to_vec(), b"\x80".to_vec(), b"\x81\xc0\xc0".to_vec(), no_role, role_of_no_text]
    {
        let world = World::new();
        let run = sync(&world, &[member]).success();
        assert!(rejected(&world, &run).is_empty());
    }
}

/// A name of 5 MB can be gossiped; no list of names may hold thirteen of them.
#[test]
fn names_of_5_mb_cost_neither_memory_nor_much_time() {
    let role = (&raw(b"role")[..], &raw(b"backend")[..]);
    let members: Vec<_> = (0..13).map(|n| listed(&raw(&vec![b'a' + n; 5 << 20]), &raw(&[172, 18, 0, 9]), &[role])).collect();
    let world = World::new();
    let start = Instant::now();
    let run = sync(&world, &members).code(65);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(rejected(&world, &run).len(), 13);
}

#[test]
fn a_flood_of_bad_members_is_told_in_bounded_lines() {
    let role = (&raw(b"role")[..], &raw(b"backend")[..]);
    let members: Vec<_> = (0..10_000).map(|n| listed(&raw(format!("x{n}").as_bytes()), &raw(b"abc"), &[role])).collect();
    let world = World::new();
    let rejected = rejected(&world, &sync(&world, &members).code(65));
    assert_eq!(rejected.len(), 101);
    assert!(rejected.contains(&"sync-nodes: 9900 more members rejected".to_owned()), "{:?}", rejected.last());
}

#[test]
fn a_list_that_is_cut_off_in_a_large_member_names_it() {
    let world = World::new();
    world.register("s3 172.18.0.4");
    let before = world.snapshot();
    let mut answer = member_list(&[listed(&raw(b"big"), &raw(b"abc"), &[(&raw(b"t"), &raw(&vec![b'x'; 5 << 20]))])]);
    answer.truncate(answer.len() - 20);
    let run = world.command(TOOL).env("SERF_RPC_ADDR", scripted_agent(answer)).assert().code(1);
    let line = said(&run).concat();
    assert!(
        line.contains(
            "cannot read its answer; its member 'big' takes more than 5 MB: remove it with serf force-leave -prune NAME"
        ),
        "{line}"
    );
    assert_eq!(world.snapshot(), before);
}
