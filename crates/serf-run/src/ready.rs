//! Waiting for the application next to the agent.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_core::tool::reporter::Reporter;
use ureq::Agent;
use ureq::http::Uri;

/// Pause between two requests, and the maximum delay that it adds before a node gets traffic.
const PAUSE: Duration = Duration::from_millis(20);
/// Time limit for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// How to find out that the application is ready.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    /// Not at all: there is no application.
    None,
    /// This URL answers with 2xx.
    Url(String),
}

impl FromStr for Ready {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An empty variable counts as unset.
        if matches!(text, "" | "none") {
            return Ok(Self::None);
        }
        let has_host = text.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        has_host.then(|| Self::Url(text.to_owned())).ok_or("not http://ADDRESS[:PORT]/PATH, nor none")
    }
}

impl Ready {
    /// Returns once the application is ready. If that takes longer than `patience`, it is logged once, with the reason.
    pub(crate) fn wait(&self, patience: Duration, reporter: &Reporter) {
        let client = client();
        let mut complain_at = Some(Instant::now() + patience);
        while let Err(error) = self.ask(&client) {
            if complain_at.is_some_and(|at| Instant::now() >= at) {
                complain_at = None;
                let patience = humantime::format_duration(patience);
                reporter.log(format_args!("{self} is not ready after {patience}, waiting on: {error}"));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks once.
    pub(crate) fn check(&self) -> Result<()> {
        self.ask(&client()).with_context(|| format!("{self} is not ready"))
    }

    fn ask(&self, client: &Agent) -> Result<(), ureq::Error> {
        match self {
            Self::None => Ok(()),
            Self::Url(url) => client.get(url).call().map(drop),
        }
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Url(url) => url,
        })
    }
}

fn client() -> Agent {
    Agent::new_with_config(Agent::config_builder().timeout_global(Some(ANSWER)).proxy(None).build())
}
