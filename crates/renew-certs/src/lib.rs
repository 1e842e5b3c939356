//! `renew-certs`: gets and renews certificates by ACME (RFC 8555). The protocol is uacme's; when to ask for what, and how HAProxy
//! answers challenges, is said here.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Parser;
use lb_core::certificates::{Pem, acme_directory};
use lb_core::os::atomic_file::replace;
use lb_core::publish::lock::{Lock, LockError};
use lb_core::service::Host;
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

mod challenge;
mod client;
mod hosts;
mod schedule;

use client::{Client, Email, Url};
use schedule::Try;

const EXAMPLES: &str = "  renew-certs --email me@shop.example --domains shop.example
  docker exec ha renew-certs                        # now, instead of after the next pause
  renew-certs --follow                              # in a run script";

/// Get and renew certificates by ACME.
///
/// Asks a certificate authority for a certificate for each host, and for a new one when two thirds of its time are over, and puts
/// it into the directory of the certificates as acme-HOST.pem. The authority checks by HTTP, on port 80, that the host leads to
/// this HAProxy (HTTP-01). Runs uacme, which keeps its account in the subdirectory acme. If a certificate cannot be had, the
/// one that is there stays, and --follow tries again after growing pauses.
#[derive(Debug, Parser)]
#[command(name = "renew-certs", version, after_help = after_help(EXAMPLES))]
pub struct RenewCerts {
    /// E-mail address of the account; by giving one, you agree to the authority's terms of service
    #[arg(long, env = "ACME_EMAIL", value_name = "ADDRESS")]
    email: Email,
    /// Directory URL of the certificate authority; Let's Encrypt's by default
    #[arg(long, env = "ACME_DIRECTORY", value_name = "URL")]
    directory: Option<Url>,
    /// Hosts that get a certificate each, separated by spaces; by default those of the file of routes
    #[arg(long, env = "ACME_DOMAINS", value_name = "HOSTS")]
    domains: Option<String>,
    /// File that says which service answers where
    #[arg(long, env = "ROUTES", value_name = "FILE")]
    routes_file: Option<PathBuf>,
    /// Directory of the certificates
    #[arg(long, env = "CERTS_DIR", value_name = "DIR", default_value = "/certs")]
    certs_dir: PathBuf,
    /// HAProxy's master socket, next to which is the record of what it runs
    #[arg(long, env = "HAPROXY_MASTER_SOCKET", value_name = "SOCKET", default_value = "/run/haproxy/master.sock")]
    master_socket: PathBuf,
    /// Keep running, and look every minute
    #[arg(long)]
    follow: bool,
    /// Interval between two looks of --follow
    #[arg(long, env = "ACME_EVERY", value_name = "TIME", default_value = "1m", hide = true)]
    every: humantime::Duration,
    /// Pause after the first failure; it doubles with each further one, up to twelve hours
    #[arg(long, env = "ACME_RETRY", value_name = "TIME", default_value = "2m")]
    retry: humantime::Duration,
    /// What uacme asks of its hook: method, type, host, token, and answer of a challenge
    // One token in 64 begins with a hyphen.
    #[arg(hide = true, num_args = 5, trailing_var_arg = true)]
    challenge: Vec<String>,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for RenewCerts {
    const NAME: &'static str = "renew-certs";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }

    fn is_unlimited(&self) -> bool {
        true
    }
}

/// Runs the tool.
///
/// # Errors
/// If the options cannot be used. That a certificate cannot be had is logged.
pub fn run(tool: &RenewCerts, reporter: &Reporter) -> Result<Exit> {
    if let [method, kind, _, _, answer] = tool.challenge.as_slice() {
        return challenge::accept(tool, method, kind, answer);
    }
    let client = Client {
        program: std::env::current_exe().context("find this program")?,
        directory: tool.directory.as_ref(),
        email: &tool.email,
        certs_dir: &tool.certs_dir,
        master_socket: &tool.master_socket,
    };
    let mut rounds = Rounds { tool, client, reporter, tries: BTreeMap::new() };
    loop {
        let are_all_good = rounds.look();
        if !tool.follow {
            return Ok(if are_all_good { Exit::Done } else { Exit::Failed });
        }
        thread::sleep(*tool.every);
    }
}

/// What one look passes on to the next.
struct Rounds<'a> {
    tool: &'a RenewCerts,
    client: Client<'a>,
    reporter: &'a Reporter,
    /// Hosts for which the last try has failed.
    tries: BTreeMap<Host, Try>,
}

impl Rounds<'_> {
    /// Looks after the certificate of each host. Returns whether each has one.
    fn look(&mut self) -> bool {
        let (hosts, problems) = hosts::wanted(self.tool.domains.as_deref(), self.tool.routes_file.as_deref());
        let mut are_all_good = problems.is_empty();
        self.reporter.log_new("hosts", problems);
        self.tries.retain(|host, _| hosts.contains(host));
        for host in hosts {
            are_all_good &= self.look_after(host);
        }
        are_all_good
    }

    fn look_after(&mut self, host: Host) -> bool {
        let last = self.tries.remove(&host);
        if let Some(last) = last.filter(|last| last.next > Instant::now()) {
            self.tries.insert(host, last);
            return false;
        }
        let Err(error) = self.ensure(&host) else { return true };
        let next = Try::after(last, *self.tool.retry);
        let pause = if self.tool.follow { format!("; next try in {}", next.pause()) } else { String::new() };
        self.reporter.log(format_args!("no new certificate for {host}: {error:#}{pause}"));
        self.tries.insert(host, next);
        false
    }

    /// Makes sure that the host has a certificate that is not about to end.
    fn ensure(&self, host: &Host) -> Result<()> {
        if self.fresh(host).is_none() {
            let state = acme_directory(&self.tool.certs_dir);
            fs::create_dir_all(&state)
                .with_context(|| format!("create {}: chown 10001 {}", state.display(), self.tool.certs_dir.display()))?;
            // Several balancers may share the directory.
            let _lock = match Lock::take(&state.join("thumbprint")) {
                Err(LockError::Held { .. }) if self.tool.follow => return Ok(()),
                Err(LockError::Held { .. }) => bail!("another renew-certs is asking: try again in a minute"),
                lock => lock?,
            };
            if self.fresh(host).is_none() {
                self.client.register()?;
                self.client.issue(host)?;
                let until = self.client.stored(host).and_then(|pem| pem.validity().map(|[_, end]| end.to_owned()));
                self.reporter.log(format_args!("got a certificate for {host}, valid until {}", until.unwrap_or_default()));
            }
        }
        self.install(host)
    }

    /// The certificate that the authority has given, unless it should be renewed.
    fn fresh(&self, host: &Host) -> Option<Pem> {
        self.client.stored(host).filter(|pem| !schedule::is_due(pem, SystemTime::now()))
    }

    /// Puts the certificate where `sync-nodes` finds it.
    fn install(&self, host: &Host) -> Result<()> {
        let Some(pem) = self.client.stored(host) else { return Ok(()) };
        let path = self.tool.certs_dir.join(format!("acme-{host}.pem"));
        if fs::read(&path).ok().as_deref() != Some(pem.as_str().as_bytes()) {
            replace(&path, pem.as_str().as_bytes(), 0o600).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}
