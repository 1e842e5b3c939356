//! The `main` function shared by all tools: options, error reporting, exit codes, and the time limit of a run.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Arg, Parser};
use nix::sys::stat::{Mode, umask};

pub mod handler;
mod options;
pub mod reporter;
pub mod wakeup;
mod watchdog;

pub use options::RunOptions;
use reporter::Reporter;
use watchdog::Watchdog;

/// The exit code of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or there was nothing to do.
    Done = 0,
    /// Failed; nothing is half-done.
    Failed = 1,
    /// The options are wrong.
    Usage = 2,
    /// Some input lines were rejected, each logged with its reason; the valid ones were applied.
    Rejected = 65,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The end of a tool's `--help`: examples and exit codes.
#[must_use]
pub fn after_help(examples: &str) -> String {
    format!(
        "Examples:\n{examples}\n\n\
         Exit codes:\n  0   done, or nothing to do\n  1   failed, nothing half-done\n  2   wrong options\n  \
         65  some input lines were rejected, the valid ones were applied"
    )
}

/// The options of a tool.
pub trait Tool: Parser {
    /// Name of the tool, the prefix of its log lines.
    const NAME: &'static str;

    /// Names of the options for which an empty environment variable is a value. For all others it counts as unset.
    const ALLOW_EMPTY: &'static [&'static str] = &[];

    /// Log file and time limit.
    fn run_options(&self) -> &RunOptions;

    /// Whether the time limit of a run does not apply, because the tool runs as a service or has limits of its own.
    fn is_unlimited(&self) -> bool {
        false
    }
}

/// Parses the options and runs the tool. An error is reported in one line on standard error and in the log.
pub fn main<T: Tool, E: Display>(run: impl FnOnce(&T, &Reporter) -> Result<Exit, E>) -> ExitCode {
    // Files are created with explicit modes; this is for the case that one was forgotten.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let tool = match parse::<T>() {
        Ok(tool) => tool,
        Err(error) => {
            // Also prints --help and --version, which are not errors. There is nothing to do about a closed output.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let options = tool.run_options();
    let handler = std::env::var_os("SERF_EVENT").is_some();
    let console = options.console.clone().filter(|_| handler);
    let reporter = Reporter::new(T::NAME, options.log_format, Some(options.log_file.clone()), console);
    // A person at a terminal may take longer, and can press Ctrl-C.
    let _deadline = (!tool.is_unlimited() && !io::stdin().is_terminal()).then(|| deadline(T::NAME, options, Duration::ZERO));
    match run(&tool, &reporter) {
        Ok(exit) => exit.into(),
        Err(error) => {
            reporter.log(format_args!("{error:#}"));
            Exit::Failed.into()
        }
    }
}

/// Parses the options. An empty variable counts as unset, because `docker run -e` and Compose cannot unset one.
fn parse<T: Tool>() -> Result<T, clap::Error> {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let without_empty = |arg: Arg| {
        let unset = arg.get_env().is_some_and(is_empty) && !T::ALLOW_EMPTY.contains(&arg.get_id().as_str());
        if unset { arg.env(Resettable::Reset) } else { arg }
    };
    let mut command = T::command().mut_args(without_empty).mut_subcommands(|command| command.mut_args(without_empty));
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Starts the time limit of a run. A service resets it in every round, and allows for a `pause` of up to this time between
/// two rounds.
#[must_use]
pub fn deadline(name: &'static str, options: &RunOptions, pause: Duration) -> Watchdog {
    let (limit, format, file) = (Duration::from_secs(options.limit), options.log_format, options.log_file.clone());
    let message = format!("timed out after {limit:?}: the next run continues from here");
    Watchdog::start(limit + pause, move || Reporter::new(name, format, Some(file), None).log(message))
}
