//! The text of `haproxy.cfg`: parsing its server lines, and rendering it from a template.

use std::collections::BTreeMap;

mod server;
pub mod template;

pub use server::{NoAddress, ServerKey, ServerLine, Settings};

/// Keywords that begin a section (HAProxy 3.0 configuration manual).
pub(crate) const SECTIONS: [&str; 18] = [
    "backend",
    "cache",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// Splits off the first word of a line.
fn word(line: &str) -> (&str, &str) {
    let line = line.trim_ascii_start();
    let end = line.bytes().position(|b| b.is_ascii_whitespace()).unwrap_or(line.len());
    line.split_at(end)
}

/// Whether `server` lines in a section of this kind are servers; in `peers` they are something else.
fn has_servers(section: &str) -> bool {
    matches!(section, "backend" | "listen")
}

/// A configuration, split into what can be changed at run time and what cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config<'a> {
    /// The servers of all `backend` and `listen` sections.
    pub servers: BTreeMap<ServerKey, ServerLine>,
    /// All other lines, without comments and indentation.
    pub rest: Vec<&'a str>,
    /// Sections whose servers take defaults from a `default-server` line, which a server added at run time does not.
    pub with_defaults: Vec<&'a str>,
    /// Why this parser cannot be sure about the servers, if so.
    pub irregular: Option<String>,
}

impl<'a> Config<'a> {
    /// Parses any text. Whether it is valid is for HAProxy to say.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let mut config = Self::default();
        let mut section = Section::default();
        let mut servers = Vec::new();
        for (line, is_plain) in text.lines().map(without_comment).filter(|(line, _)| !line.is_empty()) {
            let (first, rest) = word(line);
            if first == "server" && section.has_servers {
                servers.extend(config.server(&mut section, rest, is_plain));
                continue;
            }
            match first {
                ".if" => section.conditions += 1,
                ".endif" => section.conditions = section.conditions.saturating_sub(1),
                _ => {}
            }
            if SECTIONS.contains(&first) {
                let name = word(rest).0;
                let again = servers.iter().any(|(key, _): &(ServerKey, ServerLine)| key.backend == name);
                section.begin(first, name);
                if again && section.has_servers {
                    config.mark_irregular(format!("section {name} appears twice"));
                }
                // In a command, a `;` in the name would begin another command.
                if !is_plain && section.has_servers {
                    config.mark_irregular(format!("the name of section {name} has quotes, escapes or variables"));
                }
            }
            section.note(first, rest, &mut config);
            config.rest.push(line);
        }
        config.take(servers);
        config
    }

    /// Notes why the servers cannot be told apart; the first reason is kept.
    fn mark_irregular(&mut self, reason: String) {
        self.irregular.get_or_insert(reason);
    }

    /// Parses a `server` line.
    fn server(&mut self, section: &mut Section<'a>, line: &str, is_plain: bool) -> Option<(ServerKey, ServerLine)> {
        section.has_server = true;
        // Quotes, escapes and variables would need HAProxy's own parser.
        if !is_plain {
            self.mark_irregular(format!("a server line in {} has quotes, escapes or variables", section.name));
        }
        if section.conditions > 0 {
            self.mark_irregular(format!("a server line in {} is under a condition", section.name));
        }
        let (server, line) = word(line);
        let Ok(line) = line.parse() else {
            self.mark_irregular(format!("a server line in {} has no address", section.name));
            return None;
        };
        Some((ServerKey::new(section.name, server), line))
    }

    /// Stores the servers that were found. Sorting them once is ten times faster than inserting one by one.
    fn take(&mut self, mut servers: Vec<(ServerKey, ServerLine)>) {
        servers.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(key) = servers.iter().zip(servers.iter().skip(1)).find(|((a, _), (b, _))| a == b).map(|((key, _), _)| key) {
            self.mark_irregular(format!("server {key} appears twice"));
        }
        self.servers = servers.into_iter().collect();
    }
}

/// The section being parsed.
#[derive(Default)]
struct Section<'a> {
    name: &'a str,
    /// Whether it is a section with servers.
    has_servers: bool,
    /// Whether a `server` line was found.
    has_server: bool,
    is_defaults: bool,
    /// Whether a `defaults` section before it has a `default-server` line.
    inherits_defaults: bool,
    /// Number of open `.if` blocks.
    conditions: usize,
}

impl<'a> Section<'a> {
    fn begin(&mut self, keyword: &str, name: &'a str) {
        self.name = name;
        self.has_servers = has_servers(keyword);
        self.has_server = false;
        self.is_defaults = keyword == "defaults";
    }

    /// Records what a line other than `server` means for the servers of the section.
    fn note(&mut self, keyword: &str, arguments: &str, config: &mut Config<'a>) {
        // The state of a server does not show whether this is why it is in maintenance.
        if keyword == "default-server" && arguments.split_ascii_whitespace().any(|word| word == "disabled") {
            config.mark_irregular(format!("section {} disables its servers by default", self.name));
        }
        match keyword {
            "default-server" if self.is_defaults => self.inherits_defaults = true,
            // It applies only to the servers after it.
            "default-server" if self.has_server => {
                config.mark_irregular(format!("section {} has a default-server after a server", self.name));
            }
            "server-template" if self.has_servers => {
                config.mark_irregular(format!("section {} has a server-template", self.name));
            }
            _ => {}
        }
        let has_defaults = self.has_servers && (keyword == "default-server" || self.inherits_defaults);
        if has_defaults && !config.with_defaults.contains(&self.name) {
            config.with_defaults.push(self.name);
        }
    }
}

/// The line without comment and surrounding whitespace, and whether it is free of quotes, escapes and variables.
fn without_comment(line: &str) -> (&str, bool) {
    let line = line.trim_ascii();
    let special = |b: u8| matches!(b, b'"' | b'\'' | b'\\' | b'$' | b';');
    if !line.bytes().any(|b| special(b) || b == b'#') {
        return (line, true);
    }
    let end = line.find(['#', '"', '\'', '\\']);
    let line = match end.and_then(|at| line.split_at_checked(at)) {
        Some((text, comment)) if comment.starts_with('#') => text.trim_ascii_end(),
        // After a quote or an escape, `#` may be literal. Keeping a comment only costs a reload when it changes.
        _ => line,
    };
    (line, !line.bytes().any(special))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
global
    maxconn 100   # another
defaults
    mode http
listen stats
    bind *:1936
backend nodes
    balance roundrobin
    server s1 172.18.0.2:3000 check weight 50 cookie s1
    server s2 172.18.0.3:3000 check  # the second
peers p
    server local
";

    fn key(text: &str) -> ServerKey {
        let (backend, server) = text.split_once('/').unwrap();
        ServerKey::new(backend, server)
    }

    #[test]
    fn server_lines_are_told_from_the_rest() {
        let config = Config::parse(TEXT);
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.servers[&key("nodes/s1")].to_string(), "172.18.0.2:3000 check weight 50 cookie s1");
        assert_eq!(config.servers[&key("nodes/s2")].to_string(), "172.18.0.3:3000 check");
        assert!(
            config.rest.contains(&"server local") && !config.rest.iter().any(|line| line.contains("172.18")),
            "{:?}",
            config.rest
        );
        assert_eq!(config.irregular, None);
    }

    #[test]
    fn comments_and_indentation_do_not_count() {
        let other = TEXT.replace("# a comment\n", "\n").replace("    ", "\t").replace("# another", "");
        assert_eq!(Config::parse(TEXT), Config::parse(&other));
    }

    #[test]
    fn weight_is_told_from_the_fixed_words() {
        let line = &Config::parse(TEXT).servers[&key("nodes/s1")];
        assert_eq!(line.settings(), Settings { weight: Some("50"), check: true, disabled: false });
        assert_eq!(line.fixed().collect::<Vec<_>>(), ["check", "cookie", "s1"]);
    }

    #[test]
    fn a_node_that_is_named_like_a_keyword_is_no_keyword() {
        for name in ["check", "disabled", "weight"] {
            let text = format!("backend nodes\n server {name} 1.1.1.1:1 cookie {name} inter 1s weight 1 weight 5\n");
            let line = &Config::parse(&text).servers[&ServerKey::new("nodes", name)];
            assert_eq!(line.settings(), Settings { weight: Some("5"), ..Settings::default() }, "{name}");
            assert_eq!(line.fixed().collect::<Vec<_>>(), ["cookie", name, "inter", "1s"]);
        }
    }

    #[test]
    fn a_condition_elsewhere_does_not_matter() {
        let text = "defaults\n.if defined(X)\n.if defined(Y)\n.endif\n.endif\nbackend a\n server x 1.1.1.1:1\n";
        assert_eq!(Config::parse(text).irregular, None);
    }

    #[test]
    fn default_server_is_noticed_in_the_section_and_in_defaults() {
        let text = "backend a\n default-server inter 1s\n server x 1.1.1.1:1\nbackend b\n server x 1.1.1.1:1\n";
        assert_eq!(Config::parse(text).with_defaults, ["a"]);
        let text = "defaults\n default-server inter 1s\nbackend b\n server x 1.1.1.1:1\n";
        assert_eq!(Config::parse(text).with_defaults, ["b"]);
    }

    #[test]
    fn what_a_simple_reading_cannot_tell_is_noticed() {
        for text in [
            "backend a\n server x 1.1.1.1:1\n server x 1.1.1.2:1\n",
            "backend a\n server x 1.1.1.1:1 sni \"a b\"\n",
            "backend a\n server-template x 1-5 1.1.1.1:1\n",
            "backend a\n server x\n",
            "backend a;b\n server x 1.1.1.1:1\n",
            "backend a\n server x 1.1.1.1:1\nbackend a\n server y 1.1.1.1:1\n",
            "backend a\n.if defined(X)\n server x 1.1.1.1:1\n.endif\n",
            "backend a\n server x 1.1.1.1:1\n default-server weight 5\n",
            "defaults\n default-server inter 1s disabled\nbackend a\n server x 1.1.1.1:1\n",
        ] {
            assert!(Config::parse(text).irregular.is_some(), "{text}");
        }
    }
}
