//! The member list as the agent's RPC tells it, in which every byte may be anything.
#![no_main]

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use lb_core::members::MemberList;
use lb_core::members::agent;
use lb_fuzz::{GATE, ROLES, check_message, check_name, check_node};
use libfuzzer_sys::fuzz_target;

/// Header of an answer without error: {"Error": "", "Seq": 0}.
const DONE: &[u8] = b"\x82\xa5Error\xa0\xa3Seq\x00";

/// What the next connection is told.
static AGENT: LazyLock<Sender<Vec<u8>>> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    // SAFETY: no other thread is there yet.
    unsafe { env::set_var("SERF_RPC_ADDR", address) };
    let (sender, answers) = channel::<Vec<u8>>();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a connection");
            // Whoever has heard enough goes away.
            let _ = stream.write_all(&answer).and_then(|()| stream.shutdown(Shutdown::Write));
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    sender
});

/// What parts of the input are separated by: no MessagePack value begins with it.
const SEPARATOR: u8 = 0xc1;
/// The alive nodes before and after a member that may be anything.
const GOOD: [&str; 2] = ["good-1", "good-2"];

fn raw(bytes: &[u8]) -> Vec<u8> {
    [b"\xdb", &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A value made of some bytes: they themselves, or something that is no text.
fn value(part: &[u8]) -> Vec<u8> {
    match part.split_first() {
        Some((0, _)) => b"\xc0".to_vec(),
        Some((1, _)) => b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        Some((2, rest)) => [b"\x92", &raw(rest)[..], b"\x81\xc0\x90"].concat(),
        Some((3, rest)) => [b"\xc9", &(rest.len() as u32).to_be_bytes()[..], b"\x05", rest].concat(),
        _ => raw(part),
    }
}

/// A member of these parts: name, address, status, and pairs of tags.
fn member(parts: &[&[u8]]) -> Vec<u8> {
    let part = |at: usize| value(parts.get(at).copied().unwrap_or_default());
    let tags = parts.get(3..).unwrap_or_default();
    let pairs = tags.chunks_exact(2).flat_map(|pair| [value(pair[0]), value(pair[1])].concat()).collect::<Vec<_>>();
    let count = ((tags.len() / 2) as u32).to_be_bytes();
    [b"\x84\xa4Name", &part(0)[..], b"\xa4Addr", &part(1), b"\xa6Status", &part(2), b"\xa4Tags\xdf", &count, &pairs].concat()
}

fn ask(body: &[u8]) -> Option<MemberList> {
    AGENT.send([DONE, DONE, body].concat()).expect("the other side");
    match agent::members() {
        Ok(members) => {
            // Each takes a byte at least, and what is kept of it is bounded.
            assert!(members.len() <= body.len());
            assert!(
                members.iter().all(|member| member.name.len() <= 1800 && member.address.len() < 64 && member.tags.len() <= 4)
            );
            Some(MemberList::of(&members, &GATE))
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // The input is the whole answer.
    if let Some(list) = ask(input) {
        list.gone.keys().for_each(check_name);
        list.nodes.values().for_each(check_node);
        list.rejected.iter().for_each(|(_, error)| check_message(error));
    }
    // It is one member, which hides no other.
    let parts: Vec<&[u8]> = input.split(|byte| *byte == SEPARATOR).collect();
    let tags: [&[u8]; 2] = [b"role", ROLES[1].as_bytes()];
    let good = |name: &str| member(&[&[name.as_bytes(), &[172, 18, 0, 2], b"alive"], &tags[..]].concat());
    let members = [good(GOOD[0]), member(&parts), good(GOOD[1])].concat();
    let list = ask(&[b"\x81\xa7Members\x93", &members[..]].concat()).expect("the list can be read");
    assert_eq!(list.members, 3);
    let is_good = |name: &&str| list.nodes.contains_key(&name.parse().expect("a name"));
    assert!(GOOD.iter().all(is_good) || GOOD.iter().any(|name| parts[0] == name.as_bytes()), "one of the others is lost");
    assert!(list.nodes.len() + list.rejected.len() <= 3);
});
