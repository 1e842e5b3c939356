//! A lab for one test.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_fixture::Background;

use crate::balancer::Balancer;
use crate::container::Container;
use crate::docker::{docker, try_docker};

/// How containers are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Like `start-containers.sh`: the alias `serf-cluster`, read-only, no capabilities.
    Hardened,
    /// Like the lab's own commands: no option but the network. (The balancer gets the alias `ha` in place of the container
    /// name, which a second lab on this machine cannot use.)
    Plain,
}

const HARDENED: &str = include_str!("../../../container-options");

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network with containers, removed at the end of the test.
#[derive(Debug)]
pub struct Lab {
    name: String,
    look: Look,
}

impl Lab {
    /// A new network, on which containers are started with this look.
    #[must_use]
    pub fn new(look: Look) -> Self {
        let name = format!("e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let _ = docker(&["network", "create", &name]);
        Self { name, look }
    }

    /// Name of the network, which is the prefix of all container names.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.name
    }

    /// Starts a balancer with its three ports published on loopback.
    #[must_use]
    pub fn balancer(&self, name: &str) -> Balancer {
        self.balancer_with(name, &[])
    }

    /// Starts a balancer with additional options of `docker run`.
    #[must_use]
    pub fn balancer_with(&self, name: &str, options: &[&str]) -> Balancer {
        let ports = ["-p", "127.0.0.1::80", "-p", "127.0.0.1::1936", "-p", "127.0.0.1::9999", "--network-alias", "ha"];
        let options: Vec<&str> = ports.iter().chain(options).copied().collect();
        Balancer { container: self.run("softengheigvd/ha", name, &options) }
    }

    /// Starts a web application node.
    #[must_use]
    pub fn node(&self, name: &str) -> Container {
        self.node_with(name, &[])
    }

    /// Starts a web application node with additional options of `docker run`.
    #[must_use]
    pub fn node_with(&self, name: &str, options: &[&str]) -> Container {
        self.run("softengheigvd/webapp", name, options)
    }

    /// Starts a balancer and this many nodes, and waits until all of them get traffic.
    #[must_use]
    pub fn with_nodes(look: Look, count: usize) -> (Self, Balancer, Vec<Container>) {
        let lab = Self::new(look);
        let balancer = lab.balancer("ha");
        let nodes: Vec<Container> = (1..=count).map(|number| lab.node(&format!("s{number}"))).collect();
        balancer.settles_on(&nodes.iter().collect::<Vec<_>>(), 60);
        (lab, balancer, nodes)
    }

    /// Runs a tool of the host on this lab, as the README does. Nodes that it starts are removed with the lab.
    ///
    /// # Panics
    /// If it cannot be compiled or started.
    #[must_use]
    pub fn tool(&self, name: &str, balancer: &Balancer, options: &[&str]) -> Background {
        let cargo = |command: &str| {
            let mut cargo = Command::new("cargo");
            cargo.current_dir(TOP).args([command, "--quiet", "--locked", "-p", name]);
            cargo
        };
        // To compile it may take longer than any test waits.
        assert!(cargo("build").status().unwrap().success());
        let mut command = cargo("run");
        command.args(["--", "--socket", &format!("127.0.0.1:{}", balancer.port(9999))]);
        command.env("NETWORK", &self.name).env("PREFIX", format!("{}-", self.name)).env("SERF_LOG", "/dev/null");
        Background::start(command.args(options))
    }

    /// The names of the running nodes without their prefix, sorted.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let network = format!("network={}", self.name);
        let names =
            docker(&["ps", "--filter", &network, "--filter", "label=softengheigvd.image=webapp", "--format", "{{.Names}}"]);
        let short = |name: &str| Some(name.strip_prefix(&self.name)?.trim_start_matches('-').to_owned());
        let mut names: Vec<String> = names.lines().filter_map(short).collect();
        names.sort();
        names
    }

    /// Starts a container of any image with additional options of `docker run`.
    #[must_use]
    pub fn run(&self, image: &str, name: &str, options: &[&str]) -> Container {
        let name = format!("{}-{name}", self.name);
        let mut arguments = vec!["run", "-d", "--network", &self.name, "--name", &name];
        if self.look == Look::Hardened {
            arguments.extend(HARDENED.lines());
        }
        arguments.extend(options);
        arguments.push(image);
        let _ = docker(&arguments);
        Container { name }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // This includes containers that the test still holds.
        let left = docker(&["ps", "-aq", "--filter", &format!("network={}", self.name)]);
        for id in left.lines() {
            let _ = try_docker(&["rm", "-f", "-v", id], "");
        }
        let _ = try_docker(&["network", "rm", &self.name], "");
    }
}
