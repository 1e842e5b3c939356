//! The text of `haproxy.cfg`, as far as it must be understood: its server lines, and the rest.

use std::collections::BTreeMap;
use std::fmt;

/// Keywords that begin a section (HAProxy 3.0 configuration manual).
const SECTIONS: [&str; 18] = [
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

/// Which server: `backend/name`, as HAProxy's command line has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerKey {
    /// Name of the `backend` or `listen` section.
    pub backend: String,
    /// Name of the server.
    pub server: String,
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.server)
    }
}

/// What a `server` line says after the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLine {
    /// Address and port as written.
    pub address: String,
    /// All further words.
    pub arguments: Vec<String>,
}

impl ServerLine {
    fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let address = words.next()?.to_owned();
        Some(Self { address, arguments: words.map(str::to_owned).collect() })
    }

    /// The words without `weight` and its value: what can only be changed by making the server anew.
    pub fn fixed(&self) -> impl Iterator<Item = &str> {
        let mut skip = 0;
        self.arguments.iter().map(String::as_str).filter(move |&word| {
            if skip == 0 && word == "weight" {
                skip = 2;
            }
            let keep = skip == 0;
            skip = skip.max(1) - 1;
            keep
        })
    }

    /// The value of `weight`, if the line has one.
    #[must_use]
    pub fn weight(&self) -> Option<&str> {
        let at = self.arguments.iter().position(|word| word == "weight")?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// Whether the line has the keyword `word`.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.arguments.iter().any(|argument| argument == word)
    }
}

impl fmt::Display for ServerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        self.arguments.iter().try_for_each(|word| write!(f, " {word}"))
    }
}

/// A configuration, split into what can be changed at run time and what cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The servers of all `backend` and `listen` sections.
    pub servers: BTreeMap<ServerKey, ServerLine>,
    /// All other lines, without comments and indentation.
    pub rest: String,
    /// Sections whose servers take defaults from a `default-server` line, which a server added at run time does not.
    pub with_defaults: Vec<String>,
    /// Why the servers cannot be told apart by this simple reading, if so.
    pub irregular: Option<String>,
}

impl Config {
    /// Reads the text of a configuration. Any text can be read; whether it is valid is HAProxy's to say.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        let mut section = Section::default();
        for line in text.lines().map(without_comment).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or("");
            if SECTIONS.contains(&first) {
                section.begin(first, words.clone().next());
                config.check_section(&section);
            }
            match first {
                "server" if section.has_servers => config.add_server(&section, line, words),
                _ => {
                    section.note(first, &mut config);
                    config.rest.push_str(line);
                    config.rest.push('\n');
                }
            }
        }
        config
    }

    fn add_server<'a>(&mut self, section: &Section, line: &str, mut words: impl Iterator<Item = &'a str>) {
        // Quotes, escapes and variables would need HAProxy's own reading of the line.
        if line.contains(['"', '\'', '\\', '$', ';']) {
            self.irregular.get_or_insert_with(|| format!("a server line of {} has quotes, escapes or variables", section.name));
        }
        let key = words.next().map(|server| ServerKey { backend: section.name.clone(), server: server.to_owned() });
        match (key, ServerLine::parse(words)) {
            (Some(key), Some(server)) => {
                if self.servers.insert(key.clone(), server).is_some() {
                    self.irregular.get_or_insert_with(|| format!("server {key} is there twice"));
                }
            }
            _ => drop(self.irregular.get_or_insert_with(|| format!("a server line of {} has no address", section.name))),
        }
    }

    fn check_section(&mut self, section: &Section) {
        if section.has_servers && self.servers.keys().any(|key| key.backend == section.name) {
            self.irregular.get_or_insert_with(|| format!("section {} is there twice", section.name));
        }
    }
}

/// The section that is being read.
#[derive(Default)]
struct Section {
    name: String,
    /// It is a `backend` or `listen`: `server` in a `peers` section is something else.
    has_servers: bool,
    is_defaults: bool,
    /// A `defaults` section before it has a `default-server` line.
    inherits_defaults: bool,
}

impl Section {
    fn begin(&mut self, keyword: &str, name: Option<&str>) {
        self.name = name.unwrap_or("").to_owned();
        self.has_servers = matches!(keyword, "backend" | "listen");
        self.is_defaults = keyword == "defaults";
    }

    /// Notes what a line other than `server` means for the servers of the section.
    fn note(&mut self, keyword: &str, config: &mut Config) {
        match keyword {
            "default-server" if self.is_defaults => self.inherits_defaults = true,
            "server-template" if self.has_servers => {
                config.irregular.get_or_insert_with(|| format!("section {} has a server-template", self.name));
            }
            _ => {}
        }
        if self.has_servers
            && (keyword == "default-server" || self.inherits_defaults)
            && !config.with_defaults.contains(&self.name)
        {
            config.with_defaults.push(self.name.clone());
        }
    }
}

/// The line without comment and surrounding white space.
fn without_comment(line: &str) -> &str {
    // In a line with quotes or escapes, `#` may be meant; keeping a comment there only costs a reload when it changes.
    let end = if line.contains(['"', '\'', '\\']) && !line.trim_start().starts_with('#') { None } else { line.find('#') };
    end.and_then(|end| line.get(..end)).unwrap_or(line).trim()
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
        ServerKey { backend: backend.to_owned(), server: server.to_owned() }
    }

    #[test]
    fn server_lines_are_told_from_the_rest() {
        let config = Config::parse(TEXT);
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.servers[&key("nodes/s1")].to_string(), "172.18.0.2:3000 check weight 50 cookie s1");
        assert_eq!(config.servers[&key("nodes/s2")].to_string(), "172.18.0.3:3000 check");
        assert!(config.rest.contains("server local") && !config.rest.contains("172.18"), "{}", config.rest);
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
        assert_eq!(line.weight(), Some("50"));
        assert_eq!(line.fixed().collect::<Vec<_>>(), ["check", "cookie", "s1"]);
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
            "backend a\n server x 1.1.1.1:1\nbackend a\n server y 1.1.1.1:1\n",
        ] {
            assert!(Config::parse(text).irregular.is_some(), "{text}");
        }
    }
}
