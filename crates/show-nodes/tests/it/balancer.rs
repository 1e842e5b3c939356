//! A balancer in which the four states agree: a real Serf agent, a real HAProxy, and what lies between them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use assert_cmd::Command;
use lb_core::config::template::RenderOptions;
use lb_core::haproxy;
use lb_core::haproxy::ProcessOptions;
use lb_core::haproxy::last_applied::{LastApplied, RecordedFor, record_path};
use lb_core::publish::PublishOptions;
use lb_core::publish::lock::Lock;
use lb_core::publish::publish;
use lb_core::tool::reporter::{Format, Reporter};
use lb_fixture::{Agent, Background, World, eventually};
use nix::sys::signal::Signal;

/// A balancer with its world, agent and HAProxy.
pub struct Balancer {
    pub world: World,
    pub agent: Agent,
    haproxy: Background,
}

impl Balancer {
    /// Starts one that knows these nodes, given by the lines of their files and their agents.
    pub fn start(nodes: &[(&str, &Agent)]) -> Self {
        let world = World::self_contained();
        let agent = Agent::start("ha", &["role=balancer"]);
        // The live page has an address of its own in each test.
        let template = fs::read_to_string(world.template()).unwrap();
        world.set_template(&template.replace("127.0.0.1:1937", &live_at(&agent).to_string()));
        for (line, node) in nodes {
            node.join(&agent);
            world.register(line);
        }
        publish_in(&world, "start");
        let haproxy = start_haproxy(&world);
        Self { world, agent, haproxy }
    }

    /// The tool.
    pub fn show(&self) -> Command {
        let mut command = self.world.command(env!("CARGO_BIN_EXE_show-nodes"));
        command.env("SERF_RPC_ADDR", self.agent.rpc());
        command
    }

    /// The tool in the background.
    pub fn show_on(&self, arguments: &[&str]) -> Background {
        let mut command = self.world.process(env!("CARGO_BIN_EXE_show-nodes"));
        Background::start(command.env("SERF_RPC_ADDR", self.agent.rpc()).args(arguments))
    }

    /// What a sync does after it has changed the registry.
    pub fn publish(&self, cause: &str) {
        publish_in(&self.world, cause);
    }

    /// Makes HAProxy start a new worker.
    pub fn reload_haproxy(&self) {
        self.haproxy.signal(Signal::SIGHUP);
    }

    /// Kills HAProxy.
    pub fn kill_haproxy(&mut self) {
        self.haproxy.signal_all(Signal::SIGKILL);
        self.haproxy.wait();
    }

    /// A command to HAProxy.
    pub fn command(&self, command: &str) -> String {
        session(&self.world).ask(command).unwrap()
    }

    /// Waits until Serf's member list has a line with these words.
    pub fn knows(&self, words: &[&str]) {
        eventually(&format!("the agent knows {words:?}"), || {
            self.agent.members().lines().any(|line| words.iter().all(|word| line.contains(word)))
        });
    }
}

/// Where the node of an agent answers, on the port 3000.
pub fn application_of(agent: &Agent) -> SocketAddr {
    (agent.address(), 3000).into()
}

/// Where the live page of a balancer is served.
pub fn live_at(agent: &Agent) -> SocketAddr {
    (agent.address(), 1937).into()
}

/// A line of the registry.
pub fn line(name: &str, address: Ipv4Addr) -> String {
    format!("{name} {address}")
}

fn options(world: &World) -> PublishOptions {
    PublishOptions {
        render: RenderOptions {
            nodes_dir: world.nodes_dir(),
            template: world.template(),
            certs_dir: world.certs_dir(),
            routes_file: None,
            stats_auth_file: None,
            port: "3000".parse().unwrap(),
        },
        process: ProcessOptions {
            config: world.config(),
            master_socket: world.master_socket(),
            admin_socket: world.admin_socket(),
        },
    }
}

fn publish_in(world: &World, cause: &str) {
    let options = options(world);
    let published = publish(&options, &Lock::take(&options.process.config).unwrap(), |_, _| Ok(())).unwrap();
    Reporter::new("sync-nodes", Format::Text, Some(world.log_file()), None).published(&published, cause);
}

fn session(world: &World) -> haproxy::Session {
    haproxy::find(&world.master_socket(), &world.admin_socket()).unwrap().expect("HAProxy runs")
}

/// Starts HAProxy with the file, and records that it has read it, as the services of the image do.
fn start_haproxy(world: &World) -> Background {
    let haproxy = world.start_haproxy();
    eventually("the worker is known", || {
        haproxy::find(&world.master_socket(), &world.admin_socket()).is_ok_and(|found| found.is_some())
    });
    let running = LastApplied { text: fs::read_to_string(world.config()).unwrap(), ..LastApplied::default() };
    running.store(&record_path(&world.master_socket()), RecordedFor::Worker(session(world).worker())).unwrap();
    haproxy
}
