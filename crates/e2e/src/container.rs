//! One container.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::docker::{docker, text, try_docker};

/// A container of the test, removed when the value is dropped.
#[derive(Debug)]
pub struct Container {
    /// Its name, for the command line of Docker.
    pub name: String,
}

impl Container {
    /// Runs a command in it with this standard input, and returns its output.
    #[must_use]
    pub fn try_exec(&self, command: &[&str], input: &str) -> Output {
        let arguments: Vec<&str> = ["exec", "-i", &self.name].iter().chain(command).copied().collect();
        try_docker(&arguments, input)
    }

    /// Runs a command in it and returns its standard output.
    ///
    /// # Panics
    /// If the command fails.
    #[must_use]
    pub fn exec(&self, command: &[&str]) -> String {
        let output = self.try_exec(command, "");
        assert!(output.status.success(), "{}: {command:?}: {}", self.name, text(&output.stderr));
        text(&output.stdout)
    }

    /// Its standard output and standard error so far.
    #[must_use]
    pub fn logs(&self) -> String {
        let output = try_docker(&["logs", &self.name], "");
        text(&output.stdout) + &text(&output.stderr)
    }

    /// One value from `docker inspect`, by its template.
    #[must_use]
    pub fn inspect(&self, template: &str) -> String {
        docker(&["inspect", "--format", template, &self.name])
    }

    /// Its root directory as this machine sees it, which does not exist while it is not running. To look at a file there takes a
    /// fifth of the time of `docker exec`, of which a test that polls would make hundreds.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.inspect("{{.State.Pid}}")))
    }

    /// Its address on its network; empty if it is not running.
    #[must_use]
    pub fn address(&self) -> String {
        self.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
    }

    /// Its hostname, which is its name in the cluster.
    #[must_use]
    pub fn member(&self) -> String {
        self.inspect("{{.Config.Hostname}}")
    }

    /// The line of its registry file.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.member(), self.address())
    }

    /// The port on this machine that a port of the container is published on.
    #[must_use]
    pub fn port(&self, inside: u16) -> u16 {
        let published = docker(&["port", &self.name, &inside.to_string()]);
        published.lines().next().and_then(|line| line.rsplit(':').next()?.parse().ok()).expect("a published port")
    }

    /// `docker stop`, with Docker's own 10 s of grace.
    pub fn stop(&self) {
        let _ = docker(&["stop", &self.name]);
    }

    /// `docker kill`.
    pub fn kill(&self) {
        let _ = docker(&["kill", &self.name]);
    }

    /// `docker start`.
    pub fn start(&self) {
        let _ = docker(&["start", &self.name]);
    }

    /// `docker pause`.
    pub fn pause(&self) {
        let _ = docker(&["pause", &self.name]);
    }

    /// `docker unpause`.
    pub fn unpause(&self) {
        let _ = docker(&["unpause", &self.name]);
    }

    /// Drops the container's gossip that goes through these chains of iptables, `INPUT` and `OUTPUT`, as a broken network does.
    pub fn cut_gossip(&self, chains: &[&str]) {
        for (chain, protocol) in chains.iter().flat_map(|chain| [(chain, "tcp"), (chain, "udp")]) {
            self.iptables(&["-A", chain, "-p", protocol, "-m", "multiport", "--ports", "7946", "-j", "DROP"]);
        }
    }

    /// After `cut_gossip`, lets the agent talk to one other agent over TCP: the two exchange their full state, but no gossip gets
    /// through.
    pub fn mend_exchanges(&self, other: &Self) {
        let address = other.address();
        for (chain, side) in [("INPUT", "-s"), ("OUTPUT", "-d")] {
            self.iptables(&["-I", chain, "-p", "tcp", side, &address, "-j", "ACCEPT"]);
        }
    }

    /// Drops all of the container's packets.
    pub fn cut_network(&self) {
        for chain in ["INPUT", "OUTPUT"] {
            self.iptables(&["-A", chain, "-j", "DROP"]);
        }
    }

    /// Ends what `cut_gossip` and `cut_network` began, if the container has not been restarted since.
    pub fn mend_network(&self) {
        self.iptables(&["-F"]);
    }

    /// Runs iptables of this machine in the container's network.
    fn iptables(&self, arguments: &[&str]) {
        let pid = self.inspect("{{.State.Pid}}");
        let output = Command::new("nsenter").args(["-t", &pid, "-n", "iptables"]).args(arguments).output().expect("nsenter");
        assert!(output.status.success(), "iptables {arguments:?} in {}: {}", self.name, text(&output.stderr));
    }

    /// `docker rm -f`.
    pub fn remove(&self) {
        let _ = docker(&["rm", "-f", &self.name]);
    }

    /// Kills the service's process, not its supervisor.
    pub fn kill_service(&self, service: &str) {
        let _ = self.exec(&["s6-svc", "-k", &format!("/var/run/s6/services/{service}")]);
    }

    /// Process id of a service, or `None` while it is down.
    #[must_use]
    pub fn service_pid(&self, service: &str) -> Option<u32> {
        let output = self.try_exec(&["s6-svstat", "-o", "pid", &format!("/var/run/s6/services/{service}")], "");
        text(&output.stdout).trim().parse().ok()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- logs of {} ----\n{}", self.name, self.logs());
        }
        let _ = try_docker(&["rm", "-f", "-v", &self.name], "");
    }
}
