//! The nodes' containers, through the Docker command line.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use lb_core::os::command;

use crate::decision::Node;

/// Label of containers started by this tool.
const OURS: &str = "softengheigvd.scale-nodes";
/// Label of the nodes' image.
const NODE: &str = "softengheigvd.image=webapp";
/// Time limit for the engine to answer, and to start a container.
const DOCKER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for `docker stop`, which gives a node 10 s.
const STOP: Duration = Duration::from_secs(60);

/// How nodes are started, like in `start-containers.sh`: one option of `docker run` per line.
const OPTIONS: &str = include_str!("../../../container-options");

/// The nodes' containers on one network.
#[derive(Debug)]
pub(crate) struct Nodes<'a> {
    pub(crate) network: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) image: &'a str,
    pub(crate) options: &'a [String],
}

impl Nodes<'_> {
    /// The running containers, newest first. `up` has the names of the balancer's servers that are up.
    pub(crate) fn list(&self, up: &BTreeSet<String>) -> Result<Vec<Node>> {
        let format = format!("{{{{.ID}}}} {{{{.Names}}}} {{{{.Label \"{OURS}\"}}}}");
        let (label, network) = (format!("label={NODE}"), format!("network={}", self.network));
        let listed = docker(&["ps", "--filter", &label, "--filter", &network, "--format", &format], DOCKER_TIMEOUT)?;
        let node = |line: &str| {
            let mut words = line.split(' ');
            let (id, name) = (words.next()?, words.next()?);
            // Its name in the cluster is its hostname: the container's name if a script started it, otherwise the container ID.
            // A number is appended while the cluster holds that name for an old address.
            let is_it = |server: &str, hostname: &str| {
                server.strip_prefix(hostname).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            };
            let ready = up.iter().any(|server| is_it(server, id) || is_it(server, name));
            let ours = words.next() == Some(self.network);
            Some(Node { id: id.to_owned(), name: name.to_owned(), ours, ready })
        };
        Ok(listed.lines().filter_map(node).collect())
    }

    /// Starts one with the lowest free number and returns its name.
    pub(crate) fn start(&self) -> Result<String> {
        let taken = docker(&["ps", "--all", "--format", "{{.Names}}"], DOCKER_TIMEOUT)?;
        let taken: BTreeSet<&str> = taken.lines().collect();
        let mut names = (1..).map(|number: u32| format!("{}s{number}", self.prefix));
        let Some(name) = names.find(|name| !taken.contains(name.as_str())) else { bail!("no name is free") };
        let label = format!("--label={OURS}={}", self.network);
        let mut arguments =
            vec!["run", "--detach", "--rm", "--name", &name, "--hostname", &name, "--network", self.network, &label];
        arguments.extend(OPTIONS.lines());
        arguments.extend(self.options.iter().map(String::as_str));
        arguments.push(self.image);
        docker(&arguments, DOCKER_TIMEOUT)?;
        Ok(name)
    }

    /// Stops one: it leaves the cluster and finishes its requests. `--rm` removes its container.
    pub(crate) fn stop(&self, node: &Node) -> Result<()> {
        docker(&["stop", &node.id], STOP).map(drop)
    }
}

fn docker(arguments: &[&str], limit: Duration) -> Result<String> {
    let answer = command::run("docker", arguments, "", limit)?;
    if !answer.status.success() {
        let what = arguments.first().copied().unwrap_or_default();
        let reason = answer.stderr.lines().find(|line| !line.is_empty()).unwrap_or("no reason was given");
        bail!("docker {what}: {reason}");
    }
    Ok(answer.stdout)
}
