//! Servers as the running HAProxy has them.

/// A server that the running HAProxy may send requests to.
#[derive(Debug)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: String,
    /// Its port.
    pub port: String,
    /// Whether it gets requests.
    pub is_up: bool,
}

impl Server {
    /// Parses a line of `show servers state` (HAProxy 3.0 management guide, section 9.3); `None` if in maintenance.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, "nodes", _, name, _, operation, administration, weight, ..] = words[..] else { return None };
        let in_maintenance = administration.parse::<u32>().ok()? & 0x01 != 0;
        let word = |text: &str| text.to_owned();
        let is_up = operation != "0";
        (!in_maintenance).then_some(Self { name: word(name), weight: word(weight), port: word(words.get(18)?), is_up })
    }
}
