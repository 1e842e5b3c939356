//! `reload-ha`: makes the running HAProxy match its file.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Parser;
use lb_core::haproxy::ProcessOptions;
use lb_core::haproxy::plan::Plan;
use lb_core::publish::lock::Lock;
use lb_core::publish::{Applied, apply_file, plan_file};
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::Reporter;
use lb_core::tool::{Exit, Tool, after_help};

const EXAMPLES: &str = "  docker exec ha reload-ha
  docker exec ha reload-ha --dry-run
  docker exec ha reload-ha --force";

/// Make the running HAProxy match its configuration file.
///
/// If only server lines differ, sends commands at run time, which affect no other connection; otherwise HAProxy reloads
/// the file, without downtime. If it rejects the file, the old worker stays in service. It is not an error if HAProxy is
/// not running: it will read the file when it starts.
#[derive(Debug, Parser)]
#[command(name = "reload-ha", version, after_help = after_help(EXAMPLES))]
pub struct ReloadHa {
    /// Reload even if nothing differs
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
    /// Only print the commands, or the reason for a reload
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    process: ProcessOptions,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for ReloadHa {
    const NAME: &'static str = "reload-ha";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }
}

/// Runs the tool.
///
/// # Errors
/// If HAProxy does not answer, or rejects the file.
pub fn run(tool: &ReloadHa, reporter: &Reporter) -> Result<Exit> {
    let lock = Lock::take(&tool.process.config)?;
    if tool.dry_run {
        let text = match plan_file(&tool.process)? {
            None => format!("# {}\n", Applied::NotRunning),
            Some(Plan::Reload(reason)) => format!("# reload: {reason}\n"),
            Some(Plan::Commands(commands)) if commands.is_empty() => format!("# {}\n", Applied::Nothing),
            Some(Plan::Commands(commands)) => commands.iter().fold(String::new(), |text, command| text + &format!("{command}\n")),
        };
        io::stdout().write_all(text.as_bytes()).context("write standard output")?;
    } else {
        let published = apply_file(&tool.process, tool.force, &lock)?;
        if published.changed() {
            reporter.published(&published, &tool.run_options.cause());
        } else {
            reporter.log(published.applied);
        }
    }
    Ok(Exit::Done)
}
