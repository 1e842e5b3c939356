//! Options shared by all tools: logging, the time limit, and the logged cause.

use std::path::PathBuf;

use clap::Args;

use super::reporter::Format;

/// Logging, time limit, and cause of a run.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Log file: who joined, who left, and what was done; at most 2 MiB, with the rotated one
    #[arg(long, env = "SERF_LOG", value_name = "FILE", default_value = "/var/log/serf.log")]
    pub log_file: PathBuf,
    /// Format of the lines on standard error: text, or one JSON object each; the log file is always text
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Second destination for the lines of an event handler, because Serf swallows its standard error
    #[arg(long, env = "LOG_CONSOLE", value_name = "FILE", hide = true)]
    pub console: Option<PathBuf>,
    /// Time limit of a run, or of one round with --follow, in seconds
    #[arg(long, env = "RUN_LIMIT", value_name = "SECONDS", default_value = "60", hide = true)]
    pub limit: u64,
    /// Logged cause of a publish; by default the Serf event, or by-hand
    #[arg(long, env = "PUBLISH_CAUSE", value_name = "WORD", hide = true)]
    pub cause: Option<String>,
}

impl RunOptions {
    /// The logged cause: `--cause`, the Serf event, or `by-hand`.
    #[must_use]
    pub fn cause(&self) -> String {
        let event = || std::env::var("SERF_EVENT").ok();
        self.cause.clone().or_else(event).unwrap_or_else(|| "by-hand".to_owned())
    }
}
