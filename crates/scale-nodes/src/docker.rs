//! The nodes' containers, through the Docker command line.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use lb_core::os::command::{self, Output};
use lb_core::service::Role;

use crate::figures::{self, Backend};

/// Label of containers started by `scale-nodes`: the network, on which it may stop them.
pub const SCALED: &str = "softengheigvd.scale-nodes";
/// Label of the nodes' image, and of every node that is started here, whatever its image.
const NODE: &str = "softengheigvd.image=webapp";
/// Label of a node that has replaced another one: the place that it has taken.
pub const PLACE: &str = "softengheigvd.place";
/// Time limit for the engine to answer, and to start a container.
const DOCKER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for `docker stop`, which gives a node 10 s, or what it was started with (`--stop-timeout`).
const STOP: Duration = Duration::from_secs(600);

/// How nodes are started, like in `start-containers.sh`: one option of `docker run` per line.
const OPTIONS: &str = include_str!("../../../container-options");

/// Where the nodes are, and how they are started.
#[derive(Debug, Clone, Args)]
pub struct Lab {
    /// HAProxy's statistics socket
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9999")]
    pub socket: String,
    /// Only nodes of this service, which is their role; new ones get it
    #[arg(long, value_name = "ROLE")]
    pub service: Option<Role>,
    /// Backend of the nodes in haproxy.cfg; by default that of the service, or nodes
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Docker network of the lab
    #[arg(long, env = "NETWORK", value_name = "NAME", default_value = "heig")]
    pub network: String,
    /// Prefix of container names
    #[arg(long, env = "PREFIX", value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Image of the nodes
    #[arg(long, value_name = "IMAGE", default_value = "softengheigvd/webapp")]
    pub image: String,
    /// Additional options of `docker run` for its nodes
    #[arg(last = true, value_name = "DOCKER OPTION")]
    pub options: Vec<String>,
}

/// A running container with a node.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its hostname, which is its name in the cluster.
    pub hostname: String,
    /// Identifier of its image.
    pub image: String,
    /// Whether `scale-nodes` has started it, or the one that it has replaced, on this network.
    pub scaled: bool,
    /// What it shares with the nodes that it has replaced: the identifier of the first one.
    pub place: String,
    /// Its role, which is its service; empty if none is set.
    pub role: String,
}

impl Lab {
    /// HAProxy's statistics for the backend.
    ///
    /// # Errors
    /// If HAProxy does not answer, or has no such backend. That of a service comes with its first node.
    pub fn figures(&self) -> Result<Backend> {
        let service = self.service.as_ref();
        let backend = self.backend.as_deref().unwrap_or_else(|| service.unwrap_or(Role::default_ref()).section());
        match figures::ask(&self.socket, backend)? {
            Some(figures) => Ok(figures),
            None if service.is_some() && self.backend.is_none() => Ok(Backend::default()),
            None => bail!("HAProxy socket {}: no backend {backend}", self.socket),
        }
    }

    /// The running nodes, of the service if there is one, newest first.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn nodes(&self) -> Result<Vec<Container>> {
        let (label, network) = (format!("label={NODE}"), format!("network={}", self.network));
        let listed = docker(&["ps", "--quiet", "--filter", &label, "--filter", &network], DOCKER_TIMEOUT)?;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        // A label that is missing is printed as "<no value>" unless asked for like this.
        let label = |name: &str| format!("{{{{with index .Config.Labels \"{name}\"}}}}{{{{.}}}}{{{{end}}}}");
        let format = format!(
            "{{{{.Id}}}} {{{{.Name}}}} {{{{.Config.Hostname}}}} {{{{.Image}}}} {} {} {{{{json .Config.Env}}}}",
            label(SCALED),
            label(PLACE)
        );
        let mut arguments = vec!["inspect", "--format", &format];
        arguments.extend(listed.lines());
        let answer = output(&arguments, DOCKER_TIMEOUT)?;
        // One that has ended meanwhile is missing from the answer.
        if !answer.stderr.lines().all(is_missing) {
            bail!("docker inspect: {}", reason(&answer));
        }
        let is_wanted = |node: &Container| self.service.as_ref().is_none_or(|service| node.role == service.as_str());
        Ok(answer.stdout.lines().filter_map(|line| Container::parse(line, &self.network)).filter(is_wanted).collect())
    }

    /// Identifier of the nodes' image.
    ///
    /// # Errors
    /// If it is not on this machine.
    pub fn image_id(&self) -> Result<String> {
        let answer = output(&["image", "inspect", "--format", "{{.Id}}", &self.image], DOCKER_TIMEOUT)?;
        let image = &self.image;
        match reason(&answer) {
            _ if answer.status.success() => Ok(answer.stdout.trim_end().to_owned()),
            reason if is_missing(reason) => bail!("no image {image} on this machine: build it, or 'docker pull {image}'"),
            reason => bail!("docker image inspect: {reason}"),
        }
    }

    /// The name with the lowest number that no container has and that is not `taken` otherwise.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn free_name(&self, taken: impl Fn(&str) -> bool) -> Result<String> {
        let containers = docker(&["ps", "--all", "--format", "{{.Names}}"], DOCKER_TIMEOUT)?;
        let containers: BTreeSet<&str> = containers.lines().collect();
        let mut names = (1..).map(|number: u32| format!("{}s{number}", self.prefix));
        names.find(|name| !containers.contains(name.as_str()) && !taken(name)).context("no name is free")
    }

    /// Starts a node with these options of `docker run` besides its own, and returns its identifier.
    ///
    /// # Errors
    /// If it does not start; its container is removed.
    pub fn start(&self, name: &str, options: &[&str]) -> Result<String> {
        let mut arguments = vec!["run", "--detach", "--name", name, "--hostname", name, "--network", &self.network];
        arguments.extend(["--label", NODE]);
        let role = self.service.as_ref().map(|service| format!("ROLE={service}"));
        arguments.extend(role.iter().flat_map(|role| ["--env", role]));
        arguments.extend(options);
        arguments.extend(OPTIONS.lines());
        arguments.extend(self.options.iter().map(String::as_str));
        arguments.push(&self.image);
        match docker(&arguments, DOCKER_TIMEOUT) {
            Ok(id) => Ok(id.trim_end().to_owned()),
            Err(error) => {
                // It may have been created. Whatever goes wrong here, the first error is the one to tell.
                let name = format!("name=^/{name}$");
                let created = ["ps", "--all", "--quiet", "--filter", "status=created", "--filter", &name];
                for id in docker(&created, DOCKER_TIMEOUT).unwrap_or_default().lines() {
                    let _ = docker(&["rm", "--force", "--volumes", id], DOCKER_TIMEOUT);
                }
                Err(error)
            }
        }
    }

    /// Stops nodes: they leave the cluster and finish their requests. Then their containers are removed. One that is gone is no
    /// error.
    ///
    /// # Errors
    /// If one cannot be stopped.
    pub fn stop(&self, ids: &[&str]) -> Result<()> {
        let answer = output(&[&["stop"], ids].concat(), STOP)?;
        if !answer.status.success() && !answer.stderr.lines().all(is_missing) {
            bail!("docker stop: {}", reason(&answer));
        }
        // One that was started with --rm is gone already.
        let _ = docker(&[&["rm", "--force", "--volumes"], ids].concat(), DOCKER_TIMEOUT);
        Ok(())
    }

    /// Has the engine restart nodes that were not stopped, also after a reboot, as `start-containers.sh` does.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn restart_at_boot(&self, ids: &[&str]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        docker(&[&["update", "--restart", "unless-stopped"], ids].concat(), DOCKER_TIMEOUT).map(drop)
    }

    /// Tells a node to get no new sessions, or to get some again.
    ///
    /// # Errors
    /// If its agent does not answer.
    pub fn drain(&self, id: &str, drain: bool) -> Result<()> {
        let tag = if drain { ["-set", "drain=yes"] } else { ["-delete", "drain"] };
        docker(&[&["exec", id, "serf", "tags"], &tag[..]].concat(), DOCKER_TIMEOUT).map(drop)
    }

    /// The last lines that a container has printed.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn logs(&self, id: &str, lines: u8) -> Result<String> {
        let answer = output(&["logs", "--tail", &lines.to_string(), id], DOCKER_TIMEOUT)?;
        Ok(answer.stdout + &answer.stderr)
    }
}

fn docker(arguments: &[&str], limit: Duration) -> Result<String> {
    let answer = output(arguments, limit)?;
    if !answer.status.success() {
        let what = arguments.first().copied().unwrap_or_default();
        bail!("docker {what}: {}", reason(&answer));
    }
    Ok(answer.stdout)
}

fn output(arguments: &[&str], limit: Duration) -> Result<Output> {
    Ok(command::run("docker", arguments, "", limit)?)
}

fn reason(answer: &Output) -> &str {
    answer.stderr.lines().find(|line| !line.is_empty()).unwrap_or("no reason was given")
}

impl Container {
    /// Reads a line of [`Lab::nodes`], in which labels that are missing are empty.
    fn parse(line: &str, network: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ').map(str::to_owned);
        let (id, name, hostname, image) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (scaled, place) = (words.next()? == network, words.next().filter(|place| !place.is_empty()));
        let name = name.trim_start_matches('/').to_owned();
        let environment: Vec<String> = serde_json::from_str(&words.next()?).unwrap_or_default();
        let role = environment.iter().find_map(|variable| variable.strip_prefix("ROLE=")).unwrap_or_default().to_owned();
        Some(Self { place: place.unwrap_or_else(|| id.clone()), id, name, hostname, image, scaled, role })
    }
}

/// Whether the engine says that there is no such thing.
fn is_missing(line: &str) -> bool {
    line.to_lowercase().contains("no such")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_label_has_a_place_of_its_own() {
        let node = |labels: &str| {
            let line = format!("abc /s1 abcdef sha256:012 {labels} [\"SERF_TAGS=a b\",\"ROLE=shop\"]");
            Container::parse(&line, "heig").unwrap()
        };
        let plain = node(" ");
        assert_eq!(plain.role, "shop");
        assert_eq!((plain.id.as_str(), plain.name.as_str(), plain.hostname.as_str()), ("abc", "s1", "abcdef"));
        assert_eq!((plain.place.as_str(), plain.scaled, plain.image.as_str()), ("abc", false, "sha256:012"));
        let labelled = node("heig def");
        assert_eq!((labelled.place.as_str(), labelled.scaled), ("def", true));
        assert!(!node("other ").scaled, "that is another lab's");
    }
}
