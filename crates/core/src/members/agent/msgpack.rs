//! A streaming decoder for MessagePack (its specification, "Formats"). It keeps only what is asked for, and can skip a value
//! of any type.

use std::io::{self, ErrorKind, Read};

use rmp::Marker;

/// Type and size of a value.
enum Head {
    /// Text or data of this many bytes.
    Bytes(u64),
    /// This many values.
    Array(u64),
    /// This many pairs of values.
    Map(u64),
    /// A number or the like, of this many bytes.
    Other(u64),
}

/// Decodes a stream of values.
pub(super) struct Decoder<R> {
    input: R,
    read: u64,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, read: 0 }
    }

    /// Number of bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.read
    }

    /// The next value as bytes, of which at most `max` are kept. A value of another type is skipped and gives `None`.
    pub(super) fn bytes(&mut self, max: u64) -> io::Result<Option<Vec<u8>>> {
        match self.head()? {
            Head::Bytes(length) => {
                let mut kept = Vec::new();
                self.input.by_ref().take(length.min(max)).read_to_end(&mut kept)?;
                self.read += kept.len() as u64;
                // The stream has ended. The next value would fail too, but there may be none.
                if (kept.len() as u64) < length.min(max) {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                self.skip_bytes(length - kept.len() as u64)?;
                Ok(Some(kept))
            }
            head => self.skip_rest(head).map(|()| None),
        }
    }

    /// Number of pairs in the next value. A value that is not a map is skipped and gives `None`.
    pub(super) fn map(&mut self) -> io::Result<Option<u64>> {
        match self.head()? {
            Head::Map(pairs) => Ok(Some(pairs)),
            head => self.skip_rest(head).map(|()| None),
        }
    }

    /// Number of values in the next value. A value that is not an array is skipped and gives `None`.
    pub(super) fn array(&mut self) -> io::Result<Option<u64>> {
        match self.head()? {
            Head::Array(values) => Ok(Some(values)),
            head => self.skip_rest(head).map(|()| None),
        }
    }

    /// Skips the next value.
    pub(super) fn skip(&mut self) -> io::Result<()> {
        let head = self.head()?;
        self.skip_rest(head)
    }

    /// Skips what belongs to a head. A counter instead of recursion bounds the memory for nested values.
    fn skip_rest(&mut self, mut head: Head) -> io::Result<()> {
        let mut left: u64 = 0;
        loop {
            match head {
                Head::Bytes(length) | Head::Other(length) => self.skip_bytes(length)?,
                Head::Array(values) => left = left.saturating_add(values),
                Head::Map(pairs) => left = left.saturating_add(pairs.saturating_mul(2)),
            }
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            head = self.head()?;
        }
    }

    fn head(&mut self) -> io::Result<Head> {
        let [marker] = self.read_array()?;
        Ok(match Marker::from_u8(marker) {
            Marker::FixStr(length) => Head::Bytes(length.into()),
            Marker::Str8 | Marker::Bin8 => Head::Bytes(self.u8()?),
            Marker::Str16 | Marker::Bin16 => Head::Bytes(self.u16()?),
            Marker::Str32 | Marker::Bin32 => Head::Bytes(self.u32()?),
            Marker::FixArray(values) => Head::Array(values.into()),
            Marker::Array16 => Head::Array(self.u16()?),
            Marker::Array32 => Head::Array(self.u32()?),
            Marker::FixMap(pairs) => Head::Map(pairs.into()),
            Marker::Map16 => Head::Map(self.u16()?),
            Marker::Map32 => Head::Map(self.u32()?),
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False | Marker::Reserved => {
                Head::Other(0)
            }
            Marker::U8 | Marker::I8 => Head::Other(1),
            Marker::U16 | Marker::I16 | Marker::FixExt1 => Head::Other(2),
            Marker::FixExt2 => Head::Other(3),
            Marker::U32 | Marker::I32 | Marker::F32 => Head::Other(4),
            Marker::FixExt4 => Head::Other(5),
            Marker::U64 | Marker::I64 | Marker::F64 => Head::Other(8),
            Marker::FixExt8 => Head::Other(9),
            Marker::FixExt16 => Head::Other(17),
            // An extension has one more byte, for its type.
            Marker::Ext8 => Head::Other(self.u8()? + 1),
            Marker::Ext16 => Head::Other(self.u16()? + 1),
            Marker::Ext32 => Head::Other(self.u32()? + 1),
        })
    }

    fn u8(&mut self) -> io::Result<u64> {
        Ok(u8::from_be_bytes(self.read_array()?).into())
    }

    fn u16(&mut self) -> io::Result<u64> {
        Ok(u16::from_be_bytes(self.read_array()?).into())
    }

    fn u32(&mut self) -> io::Result<u64> {
        Ok(u32::from_be_bytes(self.read_array()?).into())
    }

    fn read_array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        self.read += N as u64;
        Ok(bytes)
    }

    fn skip_bytes(&mut self, length: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        self.read += passed;
        if passed < length { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_any_value_can_be_read() {
        let values: [&[u8]; 16] = [
            b"\xc0",
            b"\x7f",
            b"\xff",
            b"\xcc\x01",
            b"\xd1\x01\x02",
            b"\xca\x01\x02\x03\x04",
            b"\xd3\x01\x02\x03\x04\x05\x06\x07\x08",
            b"\xa3abc",
            b"\xda\x00\x03abc",
            b"\xc6\x00\x00\x00\x03abc",
            b"\x93\x01\xa1a\x90",
            b"\xdd\x00\x00\x00\x01\xc0",
            b"\x82\xa1a\x01\x91\xc0\x80",
            b"\xde\x00\x01\xc0\xc0",
            b"\xd4\x01\x02",
            b"\xc7\x02\x01ab",
        ];
        for value in values {
            let stream = [value, b"\xa4next"].concat();
            let mut pieces = Decoder::new(&stream[..]);
            pieces.skip().unwrap();
            assert_eq!(pieces.position(), value.len() as u64, "{value:x?}");
            assert_eq!(pieces.bytes(9).unwrap(), Some(b"next".to_vec()), "{value:x?}");
        }
    }

    #[test]
    fn only_the_beginning_of_long_bytes_is_kept() {
        let mut stream = b"\xdb\x00\x10\x00\x00".to_vec();
        stream.resize(5 + (1 << 20), b'x');
        stream.extend(b"\x01");
        let mut pieces = Decoder::new(&stream[..]);
        assert_eq!(pieces.bytes(3).unwrap(), Some(b"xxx".to_vec()));
        assert_eq!(pieces.bytes(3).unwrap(), None);
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_costs_no_memory() {
        for cut in [&b""[..], b"\xa3ab", b"\xda\x00", b"\xdb\xff\xff\xff\xffabc", b"\xdd\xff\xff\xff\xff\x01", b"\x81\xa1a"] {
            assert_eq!(Decoder::new(cut).skip().unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut:x?}");
            assert!(Decoder::new(cut).bytes(u64::MAX).is_err(), "{cut:x?}");
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut deep = vec![0x91; 1 << 20];
        deep.push(0xc0);
        let mut rest = &deep[..];
        Decoder::new(&mut rest).skip().unwrap();
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
    }
}
