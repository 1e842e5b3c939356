//! The member list in an answer of the agent. It is decoded member by member, so that a broken or huge member takes a bounded
//! amount of memory and does not affect the others.
//!
//! The agent writes texts and addresses as MessagePack's raw bytes and a list as an array of maps (Serf 0.10.1,
//! `cmd/serf/command/agent/ipc.go`, `Member`).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;

use super::msgpack::Decoder;
use super::rpc::to_text;
use crate::members::Member;
use crate::node::Tags;

/// Maximum number of bytes kept of a name or the value of a tag. Valid ones have at most 512, so a cut one stays invalid.
const MAX_TEXT: u64 = 600;
/// Maximum memory for all members in bytes, enough for hundreds of thousands.
const MAX_MEMORY: usize = 64 << 20;
/// Memory that a member takes in addition to its text, in bytes.
const MEMBER_OVERHEAD: usize = 256;
/// Size in bytes from which a member is named as the likely cause if the list cannot be read.
const LARGE_MEMBER: u64 = 1 << 20;

/// Why the list could not be read.
#[derive(Debug)]
pub(super) struct ListError {
    /// The cause.
    pub reason: io::Error,
    /// Name and size in bytes of the largest member, if it is a large one.
    pub largest: Option<(String, u64)>,
}

/// Decodes the body of the answer to `members`.
pub(super) fn read(input: impl Read) -> Result<Vec<Member>, ListError> {
    let mut list = List { decoder: Decoder::new(input), members: Vec::new(), room: MAX_MEMORY, largest: None };
    match list.read() {
        Ok(()) => Ok(list.members),
        Err(reason) => Err(ListError { reason, largest: list.largest }),
    }
}

struct List<R> {
    decoder: Decoder<R>,
    members: Vec<Member>,
    room: usize,
    largest: Option<(String, u64)>,
}

impl<R: Read> List<R> {
    fn read(&mut self) -> io::Result<()> {
        let mut is_list = false;
        for _ in 0..self.decoder.map()?.unwrap_or(0) {
            if self.decoder.bytes(MAX_TEXT)?.as_deref() != Some(b"Members") {
                self.decoder.skip()?;
                continue;
            }
            is_list = true;
            for _ in 0..self.decoder.array()?.unwrap_or(0) {
                self.member()?;
            }
        }
        if is_list { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    fn member(&mut self) -> io::Result<()> {
        let start = self.decoder.position();
        let (mut name, mut address, mut status, mut tags) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        let mut result = Ok(());
        for _ in 0..self.decoder.map()?.unwrap_or(0) {
            result = self.field(&mut name, &mut address, &mut status, &mut tags);
            if result.is_err() {
                break;
            }
        }
        let size = self.decoder.position() - start;
        if size > self.largest.as_ref().map_or(LARGE_MEMBER, |(_, size)| *size) {
            self.largest = Some((to_text(&name), size));
        }
        result?;
        let texts = tags.values().map(Vec::len).chain([name.len()]).sum::<usize>();
        self.room = self.room.checked_sub(texts + MEMBER_OVERHEAD).ok_or(ErrorKind::FileTooLarge)?;
        self.members.push(Member {
            name: to_text(&name),
            address: address_text(&address),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), to_text(&value))).collect(),
            status: to_text(&status),
        });
        Ok(())
    }

    /// Decodes one field of a member. A value that is not text becomes empty, which is not a valid name or address.
    fn field(
        &mut self,
        name: &mut Vec<u8>,
        address: &mut Vec<u8>,
        status: &mut Vec<u8>,
        tags: &mut BTreeMap<&'static str, Vec<u8>>,
    ) -> io::Result<()> {
        let field = self.decoder.bytes(MAX_TEXT)?.unwrap_or_default();
        let text = match field.as_slice() {
            b"Name" => name,
            b"Addr" => address,
            b"Status" => status,
            b"Tags" => return self.tags(tags),
            _ => return self.decoder.skip(),
        };
        *text = self.decoder.bytes(MAX_TEXT)?.unwrap_or_default();
        Ok(())
    }

    /// Decodes the tags and keeps those that matter here. A value that is not text becomes an invalid one.
    fn tags(&mut self, tags: &mut BTreeMap<&'static str, Vec<u8>>) -> io::Result<()> {
        for _ in 0..self.decoder.map()?.unwrap_or(0) {
            let key = self.decoder.bytes(MAX_TEXT)?.unwrap_or_default();
            match Tags::KEYS.into_iter().chain(["role"]).find(|known| known.as_bytes() == key) {
                Some(known) => drop(tags.insert(known, self.decoder.bytes(MAX_TEXT)?.unwrap_or_else(|| vec![0xff]))),
                None => self.decoder.skip()?,
            }
        }
        Ok(())
    }
}

/// An address as text; an invalid one as `serf members` prints it.
fn address_text(bytes: &[u8]) -> String {
    let address: IpAddr = match *bytes {
        [a, b, c, d] => [a, b, c, d].into(),
        _ => match <[u8; 16]>::try_from(bytes) {
            // Go sometimes writes an IPv4 address in this form.
            Ok(bytes) => IpAddr::from(bytes).to_canonical(),
            Err(_) => return bytes.iter().take(17).fold("?".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        },
    };
    address.to_string()
}
