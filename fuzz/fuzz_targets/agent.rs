//! The member list as the agent's RPC tells it, in which every byte may be anything.
#![no_main]

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use lb_core::members::MemberList;
use lb_core::serf;
use lb_fuzz::{ROLE, check_message, check_name, check_node};
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

fuzz_target!(|input: &[u8]| {
    AGENT.send([DONE, DONE, input].concat()).expect("the other side");
    let members = match serf::members() {
        Ok(members) => members,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // Every member has a status, an address and a name in the bytes.
    assert!(members.len() * 8 <= input.len());
    let list = MemberList::of(&members, ROLE);
    assert_eq!(list.members, members.len());
    list.gone.iter().for_each(check_name);
    list.nodes.values().for_each(check_node);
    list.refused.iter().for_each(|(_, error)| check_message(error));
});
