//! The file of those who may see the statistics.

use crate::os::escape::Quoted;
use crate::os::list_file::entries;

/// Maximum length of a name, in bytes.
const MAX_NAME: usize = 64;

/// Turns a file with one `<user>:<hash>` a line into the lines of a `userlist` (HAProxy 3.0 configuration manual, section 3.4).
/// Only SHA-256 and SHA-512 hashes (crypt(5)) are accepted: HAProxy checks a password in the thread that serves requests, and
/// slower hashes would block it.
///
/// # Errors
/// The number of the first line that is not a user, and the reason, which does not repeat the hash.
pub(super) fn parse(text: &str) -> Result<String, (usize, String)> {
    let mut lines = String::new();
    for (number, line) in entries(text) {
        let failed = |reason: String| (number, reason);
        let (name, hash) = line.split_once(':').ok_or_else(|| failed("it is not '<user>:<hash>'".to_owned()))?;
        let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(is_name_byte) {
            return Err(failed(format!("user {} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - @", Quoted(name))));
        }
        if !is_hash(hash) {
            return Err(failed(format!("user {name}: the password is not a hash as 'openssl passwd -6' prints it")));
        }
        let user = format!("    user {name} password ");
        if lines.contains(&user) {
            return Err(failed(format!("user {name} is given twice")));
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&user);
        lines.push_str(hash);
    }
    if lines.is_empty() { Err((1, "there is no user: nobody could see the statistics".to_owned())) } else { Ok(lines) }
}

/// Whether it is `$5$` or `$6$`, salt and hash. It becomes a word in the configuration.
fn is_hash(text: &str) -> bool {
    let fields = text.strip_prefix("$5$").or_else(|| text.strip_prefix("$6$"));
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
    fields.and_then(|fields| fields.split_once('$')).is_some_and(|(salt, hash)| {
        (1..=16).contains(&salt.len()) && matches!(hash.len(), 43 | 86) && salt.bytes().chain(hash.bytes()).all(is_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$5$salt$kpa26zwgX83BPSR8d7w93OIXbFt/d3UOTZaAu5vsTM6";

    #[test]
    fn a_file_becomes_the_lines_of_a_userlist() {
        let text = format!("# who\n\n me@x.example:{HASH} \nanna:{HASH}\r\n");
        let lines = format!("    user me@x.example password {HASH}\n    user anna password {HASH}");
        assert_eq!(parse(&text), Ok(lines));
    }

    #[test]
    fn what_is_no_user_is_named_without_its_password() {
        let rounds = HASH.replace("$5$", "$5$rounds=9999999$");
        for (line, reason) in [
            ("me", "it is not '<user>:<hash>'"),
            (":x", "user '' is not 1 to 64"),
            ("a b:x", "user 'a b' is not 1 to 64"),
            ("me:secret", "user me: the password is not a hash"),
            ("me:$1$salt$secret", "user me: the password is not a hash"),
            (&format!("me:{HASH} x"), "user me: the password is not a hash"),
            (&format!("me:{rounds}"), "user me: the password is not a hash"),
            (&format!("me:{HASH}\nme:{HASH}"), "user me is given twice"),
            ("# nobody", "there is no user"),
        ] {
            let (_, said) = parse(line).unwrap_err();
            assert!(said.starts_with(reason) && !said.contains("secret") && !said.contains("kpa2"), "{line}: {said}");
        }
        assert_eq!(parse(&format!("me:{HASH}\nme")).unwrap_err().0, 2);
    }
}
