//! Printing untrusted text.

use std::fmt;

/// Maximum length of untrusted text in a message, in characters.
const MAX_CHARS: usize = 64;

/// Prints untrusted text in single quotes. Control characters, quotes and backslashes are escaped and long text is cut, so
/// that a hostile name can neither forge log lines nor flood the log.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(MAX_CHARS) {
            match c {
                '\'' | '\\' => write!(f, "\\{c}")?,
                ' '..='~' => write!(f, "{c}")?,
                _ => write!(f, "{}", c.escape_default())?,
            }
        }
        let cut = if chars.next().is_some() { "…'" } else { "'" };
        f.write_str(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_only_put_in_quotes() {
        assert_eq!(Quoted("s1 web").to_string(), "'s1 web'");
    }

    #[test]
    fn no_control_character_survives() {
        let shown = Quoted("a\nb\t\x1b[31m\u{202e}'").to_string();
        assert!(shown.chars().all(|c| (' '..='~').contains(&c)), "{shown}");
    }

    #[test]
    fn long_text_is_cut() {
        let shown = Quoted(&"x".repeat(1_000_000)).to_string();
        assert_eq!(shown.chars().count(), MAX_CHARS + 3);
    }
}
