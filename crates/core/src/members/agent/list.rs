//! The member list in an answer of the agent, read member by member: what any of them says, whatever bytes it is, costs a
//! bounded amount of memory and keeps no other from being read.
//!
//! The agent writes texts and addresses as MessagePack's raw bytes and a list as an array of maps (Serf 0.10.1,
//! `cmd/serf/command/agent/ipc.go`, `Member`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;

use super::msgpack::Pieces;
use super::rpc::lossy;
use crate::members::Member;
use crate::node::Tags;

/// Bytes that are kept of a name or a tag's value: more than any valid one has, so that a long one stays invalid. All
/// tags of a member have 512 at most.
const KEPT: u64 = 600;
/// Memory for all members, in bytes: some hundred thousand of them.
const MOST: usize = 64 << 20;
/// What a member takes beside its texts.
const EACH: usize = 256;
/// A member of which there is more than this is worth a word when the list cannot be read: bytes.
const LARGE: u64 = 1 << 20;

/// Why there is no list.
#[derive(Debug)]
pub(super) struct Broken {
    /// The connection, or what came over it.
    pub reason: io::Error,
    /// The member that took the most bytes, if these were many.
    pub largest: Option<(String, u64)>,
}

/// Reads the body of the answer to `members`.
pub(super) fn read(input: impl Read) -> Result<Vec<Member>, Broken> {
    let mut list = List { pieces: Pieces::new(input), members: Vec::new(), room: MOST, largest: None };
    match list.read() {
        Ok(()) => Ok(list.members),
        Err(reason) => Err(Broken { reason, largest: list.largest }),
    }
}

struct List<R> {
    pieces: Pieces<R>,
    members: Vec<Member>,
    room: usize,
    largest: Option<(String, u64)>,
}

impl<R: Read> List<R> {
    fn read(&mut self) -> io::Result<()> {
        let mut is_list = false;
        for _ in 0..self.pieces.map()?.unwrap_or(0) {
            if self.pieces.bytes(KEPT)?.as_deref() != Some(b"Members") {
                self.pieces.skip()?;
                continue;
            }
            is_list = true;
            for _ in 0..self.pieces.array()?.unwrap_or(0) {
                self.member()?;
            }
        }
        if is_list { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    fn member(&mut self) -> io::Result<()> {
        let start = self.pieces.position();
        let (mut name, mut address, mut status, mut tags) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        let mut result = Ok(());
        for _ in 0..self.pieces.map()?.unwrap_or(0) {
            result = self.field(&mut name, &mut address, &mut status, &mut tags);
            if result.is_err() {
                break;
            }
        }
        let size = self.pieces.position() - start;
        if size > self.largest.as_ref().map_or(LARGE, |(_, size)| *size) {
            self.largest = Some((lossy(&name), size));
        }
        result?;
        let texts = tags.values().map(Vec::len).chain([name.len()]).sum::<usize>();
        self.room = self.room.checked_sub(texts + EACH).ok_or(ErrorKind::FileTooLarge)?;
        self.members.push(Member {
            name: lossy(&name),
            address: address_text(&address),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), lossy(&value))).collect(),
            status: lossy(&status),
        });
        Ok(())
    }

    /// One field of a member. What is no text is an empty one: no name, no address.
    fn field(
        &mut self,
        name: &mut Vec<u8>,
        address: &mut Vec<u8>,
        status: &mut Vec<u8>,
        tags: &mut BTreeMap<&'static str, Vec<u8>>,
    ) -> io::Result<()> {
        let field = self.pieces.bytes(KEPT)?.unwrap_or_default();
        let text = match field.as_slice() {
            b"Name" => name,
            b"Addr" => address,
            b"Status" => status,
            b"Tags" => return self.tags(tags),
            _ => return self.pieces.skip(),
        };
        *text = self.pieces.bytes(KEPT)?.unwrap_or_default();
        Ok(())
    }

    /// Of the tags, those are kept that mean something to us. A value that is no text is one that no tag can have.
    fn tags(&mut self, tags: &mut BTreeMap<&'static str, Vec<u8>>) -> io::Result<()> {
        for _ in 0..self.pieces.map()?.unwrap_or(0) {
            let key = self.pieces.bytes(KEPT)?.unwrap_or_default();
            match Tags::KEYS.into_iter().chain(["role"]).find(|known| known.as_bytes() == key) {
                Some(known) => drop(tags.insert(known, self.pieces.bytes(KEPT)?.unwrap_or_else(|| vec![0xff]))),
                None => self.pieces.skip()?,
            }
        }
        Ok(())
    }
}

/// An address as text; one that is none as `serf members` prints it.
fn address_text(bytes: &[u8]) -> String {
    let address: IpAddr = match *bytes {
        [a, b, c, d] => [a, b, c, d].into(),
        _ => match <[u8; 16]>::try_from(bytes) {
            // Go writes an IPv4 address in this form now and then.
            Ok(bytes) => IpAddr::from(bytes).to_canonical(),
            Err(_) => return bytes.iter().take(17).fold("?".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        },
    };
    address.to_string()
}
