//! Certificate files in PEM format (RFC 7468): what may be given to HAProxy, and when it is valid.
//!
//! Whether key and certificate fit together is for HAProxy to say.

use std::collections::BTreeSet;

/// Text of a certificate file: one certificate at least, one private key, and nothing but PEM blocks.
///
/// It has no blank line, which would end the certificate in a command to HAProxy, and begin another command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pem {
    text: String,
    validity: Option<[String; 2]>,
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// There is no certificate in it.
    #[error("it has no certificate")]
    NoCertificate,
    /// There is no private key in it.
    #[error("it has no private key: the file needs the key too, after the certificates (cat fullchain.pem privkey.pem)")]
    NoKey,
    /// The key needs a passphrase.
    #[error("its private key is encrypted: remove the passphrase (openssl pkey)")]
    Encrypted,
    /// A block has a line that is not base64.
    #[error("line {0} is not part of a certificate or key in PEM format")]
    Line(usize),
    /// The file ends in the middle of a block.
    #[error("it ends in the middle of a block")]
    Unfinished,
}

impl Pem {
    /// Parses the content of a file. What is not in a block is a comment, and left out.
    ///
    /// # Errors
    /// [`PemError`].
    pub fn parse(content: &[u8]) -> Result<Self, PemError> {
        let (mut text, mut labels) = (String::new(), BTreeSet::new());
        let mut validity = None;
        // Label and base64 of the block that is being read.
        let mut open: Option<(&str, String)> = None;
        for (number, line) in String::from_utf8_lossy(content).lines().map(str::trim).enumerate() {
            match &mut open {
                None => {
                    let Some(label) = tag(line, "BEGIN") else { continue };
                    let label = known(label).ok_or(PemError::Line(number + 1))?;
                    open = Some((label, String::new()));
                }
                Some((label, body)) => {
                    if tag(line, "END") == Some(label) {
                        if *label == CERTIFICATE && !labels.contains(CERTIFICATE) {
                            validity = decode(body).as_deref().and_then(validity_of);
                        }
                        labels.insert(*label);
                        open = None;
                    } else if line.starts_with("Proc-Type:") {
                        return Err(PemError::Encrypted);
                    } else if line.is_empty() || !line.bytes().all(|b| value(b).is_some() || b == b'=') {
                        return Err(PemError::Line(number + 1));
                    } else {
                        body.push_str(line);
                    }
                }
            }
            text.push_str(line);
            text.push('\n');
        }
        if open.is_some() {
            Err(PemError::Unfinished)
        } else if labels.contains("ENCRYPTED PRIVATE KEY") {
            Err(PemError::Encrypted)
        } else if !labels.contains(CERTIFICATE) {
            Err(PemError::NoCertificate)
        } else if !labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
            Err(PemError::NoKey)
        } else {
            Ok(Self { text, validity })
        }
    }

    /// The blocks of the file, each line with its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// When the first certificate begins and ends, in UTC as in `2027-01-31T12:00:00Z`; `None` if that cannot be read.
    #[must_use]
    pub fn validity(&self) -> Option<[&str; 2]> {
        self.validity.as_ref().map(|times| times.each_ref().map(String::as_str))
    }
}

const CERTIFICATE: &str = "CERTIFICATE";

/// Labels of the blocks that HAProxy reads, or that are refused with a reason.
const LABELS: [&str; 7] =
    [CERTIFICATE, "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "EC PARAMETERS", "DH PARAMETERS"];

fn known(label: &str) -> Option<&'static str> {
    LABELS.into_iter().find(|known| *known == label)
}

/// The label of the line that begins or ends a block.
fn tag<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?.strip_prefix(kind)?.strip_prefix(' ')?.strip_suffix("-----")
}

/// The value of a base64 digit (RFC 4648).
fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in base64.trim_end_matches('=').bytes() {
        bits = ((bits << 6) | u32::from(value(digit)?)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Splits off the first element of a DER sequence: its tag, its content, and what follows (ITU-T X.690).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = digits.iter().try_fold(0_usize, |sum, digit| sum.checked_mul(256)?.checked_add(usize::from(*digit)))?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;

/// The fields `notBefore` and `notAfter` of a certificate (RFC 5280, section 4.1).
fn validity_of(certificate: &[u8]) -> Option<[String; 2]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if let (VERSION, _, rest) = element(fields)? {
        fields = rest;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, begin, rest) = element(validity)?;
    let begin = time(tag, begin)?;
    let (tag, end, _) = element(rest)?;
    Some([begin, time(tag, end)?])
}

/// A time with the seconds, as in `2027-01-31T12:00:00Z`.
fn time(tag: u8, time: &[u8]) -> Option<String> {
    let time = std::str::from_utf8(time).ok()?.strip_suffix('Z')?;
    let century = match (tag, time.get(..2)?) {
        (UTC_TIME, year) if year < "50" => "20",
        (UTC_TIME, _) => "19",
        _ => "",
    };
    let time = format!("{century}{time}");
    if time.len() != 14 || !time.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize| time.get(from..from + 2).unwrap_or_default();
    Some(format!("{}{}-{}-{}T{}:{}:{}Z", part(0), part(2), part(4), part(6), part(8), part(10), part(12)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Made by `openssl req -x509 -newkey ed25519 -nodes -days 1 -subj /CN=a.example`; the key is not the real one.
    const CERT: &str = "-----BEGIN CERTIFICATE-----
MIIBPDCB76ADAgECAhRv3JyXkrLEx6b3HPsgCcQVmQ9nwzAFBgMrZXAwFDESMBAG
A1UEAwwJYS5leGFtcGxlMB4XDTI2MTEyOTEyMjYwNFoXDTI2MTEzMDEyMjYwNFow
FDESMBAGA1UEAwwJYS5leGFtcGxlMCowBQYDK2VwAyEAtw9PaDRaPbsVxkJjWN/D
Zvmrxvm6Dp8tB+Nr4v3Z54WjUzBRMB0GA1UdDgQWBBRycis2QxtbPzyLW6ScrIFl
JEq52TAfBgNVHSMEGDAWgBRycis2QxtbPzyLW6ScrIFlJEq52TAPBgNVHRMBAf8E
BTADAQH/MAUGAytlcANBADm7BvdDq0O1LHKeXdYFtmngE0AbN3qZO3ZeZ70AOLNu
PUlZ7VwmM6HA0sm4cvOa/0EDVzA9afW0h2HBYHb4tQo=
-----END CERTIFICATE-----
";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n";

    fn parse(text: &str) -> Result<String, PemError> {
        Pem::parse(text.as_bytes()).map(|pem| pem.as_str().to_owned())
    }

    #[test]
    fn certificates_and_a_key_are_kept_in_order_and_comments_are_not() {
        let file = format!("Bag Attributes\r\n\n{CERT}\nsubject=x\n{KEY}\n\nshutdown sessions\n").replace("-----\n", "-----\r\n");
        assert_eq!(parse(&file), Ok(format!("{CERT}{KEY}")));
        assert_eq!(
            Pem::parse(format!("{KEY}{CERT}").as_bytes()).unwrap().validity(),
            Some(["2026-11-29T12:26:04Z", "2026-11-30T12:26:04Z"])
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (file, error) in [
            ("", PemError::NoCertificate),
            (KEY, PemError::NoCertificate),
            (CERT, PemError::NoKey),
            (&format!("{CERT}{}", KEY.replace("PRIVATE", "ENCRYPTED PRIVATE")), PemError::Encrypted),
            (&format!("{CERT}{}", KEY.replace("MC4", "Proc-Type: 4,ENCRYPTED\n\nMC4")), PemError::Encrypted),
            (&format!("{CERT}{}", KEY.replace("-----END", "-----FIN")), PemError::Line(12)),
            (&CERT.replace("-----END CERTIFICATE-----\n", ""), PemError::Unfinished),
            (&CERT.replace("CERTIFICATE", "X509 CRL"), PemError::Line(1)),
        ] {
            assert_eq!(parse(file), Err(error), "{file}");
        }
    }

    #[test]
    fn nothing_but_base64_is_in_a_block() {
        for bad in ["", " ", "show info", "AA;AA", "é"] {
            assert_eq!(parse(&KEY.replace("MC4", &format!("{bad}\nMC4"))), Err(PemError::Line(2)), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_a_blank_line_or_another_command(pieces in vec(piece(), 0..12)) {
            let file = pieces.concat();
            let Ok(pem) = Pem::parse(file.as_bytes()) else { return Ok(()) };
            for line in pem.as_str().split_terminator('\n') {
                let is_border = line.starts_with("-----") && line.ends_with("-----");
                prop_assert!(is_border || (!line.is_empty() && line.bytes().all(|b| value(b).is_some() || b == b'=')), "{line:?}");
            }
            prop_assert_eq!(Pem::parse(pem.as_str().as_bytes()), Ok(pem));
        }

        #[test]
        fn any_der_is_read_to_its_end(bytes in vec(any::<u8>(), 0..200)) {
            let _ = validity_of(&bytes);
        }
    }

    /// A part of a file.
    fn piece() -> impl Strategy<Value = String> {
        const PARTS: &[&str] =
            &[CERT, KEY, "\n", " ", "show info\n", "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "AAAA\n"];
        prop_oneof![4 => select(PARTS).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
    }

    #[test]
    fn an_end_that_cannot_be_read_is_none() {
        let odd = "-----BEGIN CERTIFICATE-----\nMIIB/////w==\n-----END CERTIFICATE-----\n";
        assert_eq!(Pem::parse(format!("{odd}{KEY}").as_bytes()).unwrap().validity(), None);
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x84, 255, 255, 255, 255], &[0x30, 0xff, 1], &[0x30; 64]] {
            assert_eq!(validity_of(bytes), None, "{bytes:?}");
        }
    }
}
