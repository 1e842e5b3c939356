//! What every run of a tool has: where it logs, how long it may take, and why it is run.

use std::path::PathBuf;

use clap::Args;

use super::reporter::Format;

/// What holds for every run: where it logs, and how long it may take.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// File that says who joined, who left and what was done; kept below 2 MiB
    #[arg(long, env = "SERF_LOG", value_name = "FILE", default_value = "/var/log/serf.log")]
    pub log_file: PathBuf,
    /// How lines look on standard error: text, or one JSON object each; the log file stays text
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Second place for the lines of an event handler, whose standard error Serf keeps to itself
    #[arg(long, env = "LOG_CONSOLE", value_name = "FILE", hide = true)]
    pub console: Option<PathBuf>,
    /// Longest time of a whole run, in seconds; of --follow, of one round
    #[arg(long, env = "RUN_LIMIT", value_name = "SECONDS", default_value = "60", hide = true)]
    pub limit: u64,
    /// Why it is run, for the log; else it is the event of Serf, or somebody's hand
    #[arg(long, env = "PUBLISH_CAUSE", value_name = "WORD", hide = true)]
    pub cause: Option<String>,
}

impl RunOptions {
    /// Why a tool that is not told by anybody else is run.
    #[must_use]
    pub fn cause(&self) -> String {
        let event = || std::env::var("SERF_EVENT").ok();
        self.cause.clone().or_else(event).unwrap_or_else(|| "by-hand".to_owned())
    }
}
