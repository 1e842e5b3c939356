//! A balancer, with the four states as seen from outside.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::time::Duration;

use crate::container::Container;
use crate::http::{Answer, get};
use crate::wait::{eventually, same};

/// A container with HAProxy.
#[derive(Debug)]
pub struct Balancer {
    /// The container.
    pub container: Container,
}

impl Deref for Balancer {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.container
    }
}

impl Balancer {
    /// Requests a path on port 80.
    ///
    /// # Errors
    /// The failure, as text.
    pub fn get(&self, path: &str, cookie: Option<&str>) -> Result<Answer, String> {
        get(&format!("http://127.0.0.1:{}{path}", self.port(80)), cookie)
    }

    /// The registry: one line per node, `<name> <address>` and optional pairs.
    #[must_use]
    pub fn registry(&self) -> BTreeSet<String> {
        let files = self.root().join("nodes").read_dir().into_iter().flatten().flatten();
        let nodes = files.filter(|file| !file.file_name().as_encoded_bytes().starts_with(b"."));
        // A file may be gone meanwhile.
        let texts = nodes.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.flat_map(|text| text.lines().map(without_number).collect::<Vec<_>>()).collect()
    }

    /// The servers of the file, as `<name> <address>`.
    #[must_use]
    pub fn file(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.root().join("usr/local/etc/haproxy/haproxy.cfg")).unwrap_or_default();
        let server = |line: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != "server").skip(1);
            let (name, address) = (words.next()?, words.next()?);
            Some(without_number(&format!("{name} {}", address.rsplit_once(':')?.0)))
        };
        text.lines().filter_map(server).collect()
    }

    /// The servers that the running HAProxy sends requests to, as `<name> <address>`.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn process(&self) -> Result<BTreeSet<String>, String> {
        let state = self.statistics("show servers state nodes")?;
        let server = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let in_maintenance = words[6].parse::<u32>().is_ok_and(|bits| bits & 0x01 != 0);
            (!in_maintenance).then(|| without_number(&format!("{} {}", words[3], words[4])))
        };
        Ok(state.lines().skip(2).filter(|line| !line.is_empty()).filter_map(server).collect())
    }

    /// A command to the statistics socket on port 9999.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn statistics(&self, command: &str) -> Result<String, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port(9999)))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{command}\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().map_err(|error| format!("port 9999: {error}"))
    }

    /// Process id of the worker that takes the traffic.
    #[must_use]
    pub fn worker(&self) -> String {
        let info = eventually("worker", 10, || {
            self.statistics("show info").and_then(|info| if info.is_empty() { Err("no answer".to_owned()) } else { Ok(info) })
        });
        info.lines().find_map(|line| line.strip_prefix("Pid: ")).expect("a process id").to_owned()
    }

    /// The worker after the balancer has settled.
    #[must_use]
    pub fn settled_worker(&self, nodes: &[&Container]) -> String {
        self.settles_on(nodes, 20);
        self.worker()
    }

    /// Waits until registry, file and process have exactly these nodes, and each of them answers.
    ///
    /// # Panics
    /// If that takes too long: `within` is as in [`eventually`].
    pub fn settles_on(&self, nodes: &[&Container], within: u64) {
        let expected: BTreeSet<String> = nodes.iter().map(|node| node.line()).collect();
        eventually(&format!("{} follows {expected:?}", self.name), within, || {
            same(&self.registry(), &expected).map_err(|text| format!("registry: {text}"))?;
            same(&self.file(), &expected).map_err(|text| format!("file: {text}"))?;
            same(&self.process()?, &expected).map_err(|text| format!("process: {text}"))
        });
        let hosts: BTreeSet<String> = nodes.iter().map(|node| node.member()).collect();
        let mut seen = BTreeSet::new();
        eventually(&format!("{} answers from all nodes", self.name), 30, || {
            if !hosts.is_empty() {
                seen.insert(self.get("/", None)?.host()?);
            }
            same(&seen, &hosts)
        });
    }
}

/// The line without the number that is appended to a member's name if the cluster refused the plain one.
#[must_use]
pub fn without_number(line: &str) -> String {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let plain = name.rsplit_once('-').filter(|(_, number)| number.parse::<u32>().is_ok()).map_or(name, |(plain, _)| plain);
    format!("{plain} {rest}")
}
