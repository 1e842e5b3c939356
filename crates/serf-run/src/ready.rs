//! Waiting for the service beside the agent.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_core::tool::reporter::Reporter;
use ureq::Agent;
use ureq::http::Uri;

/// Pause between two questions. A node is sent traffic this much later than it could be, at most.
const PAUSE: Duration = Duration::from_millis(20);
/// Time that one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What tells that the service is ready.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    /// Nothing: there is no such service.
    None,
    /// This URL answers with 2xx.
    Url(String),
}

impl FromStr for Ready {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An empty variable is one that is not set.
        if matches!(text, "" | "none") {
            return Ok(Self::None);
        }
        let has_host = text.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        has_host.then(|| Self::Url(text.to_owned())).ok_or("not http://ADDRESS[:PORT]/PATH, nor none")
    }
}

impl Ready {
    /// Returns when the service is ready. A service that takes longer than `patience` is logged once, with the reason.
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
