//! What is the same in the `main` of every tool: options, one line for an error, the exit code.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::Resettable;
use nix::sys::stat::{Mode, umask};

pub mod handler;
mod options;
pub mod reporter;
pub mod wakeup;
mod watchdog;

pub use options::RunOptions;
use reporter::Reporter;
use watchdog::Watchdog;

/// How a tool ends.
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

/// The end of every tool's `--help`: its examples, and the exit codes.
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
    /// Its name, which begins each of its lines.
    const NAME: &'static str;

    /// Options for which a variable that is empty is not one that is not set.
    const EMPTY_COUNTS: &'static [&'static str] = &[];

    /// Where it logs, and how long it may take.
    fn run_options(&self) -> &RunOptions;

    /// It is meant to go on for longer than a run may take, and sees to that itself.
    fn goes_on(&self) -> bool {
        false
    }
}

/// Reads the options, runs the tool, and turns an error into one line on standard error and in the log.
pub fn main<T: Tool, E: Display>(run: impl FnOnce(&T, &Reporter) -> Result<Exit, E>) -> ExitCode {
    // Modes are explicit; where somebody forgot one, only the user may write.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let tool = match parse::<T>() {
        Ok(tool) => tool,
        Err(error) => {
            // Also prints --help and --version, which are no errors. A closed output is nobody's loss.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let options = tool.run_options();
    let handler = std::env::var_os("SERF_EVENT").is_some();
    let console = options.console.clone().filter(|_| handler);
    let reporter = Reporter::new(T::NAME, options.log_format, Some(options.log_file.clone()), console);
    // A person at the terminal may take their time, and can press Ctrl-C.
    let _deadline = (!tool.goes_on() && !io::stdin().is_terminal()).then(|| deadline(T::NAME, options, Duration::ZERO));
    match run(&tool, &reporter) {
        Ok(exit) => exit.into(),
        Err(error) => {
            reporter.say(format_args!("{error:#}"));
            Exit::Failed.into()
        }
    }
}

/// Reads the options. A variable that is empty is one that is not set: `docker run -e` and Compose can only make it so.
fn parse<T: Tool>() -> Result<T, clap::Error> {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let mut command = T::command().mut_args(|arg| {
        let unset = arg.get_env().is_some_and(is_empty) && !T::EMPTY_COUNTS.contains(&arg.get_id().as_str());
        if unset { arg.env(Resettable::Reset) } else { arg }
    });
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The deadline of a whole run, or, when it is put off by every round, of one round that begins after `pause` at most.
#[must_use]
pub fn deadline(name: &'static str, options: &RunOptions, pause: Duration) -> Watchdog {
    let (limit, format, file) = (Duration::from_secs(options.limit), options.log_format, options.log_file.clone());
    let said = format!("timed out after {limit:?}: the next run continues from here");
    Watchdog::start(limit + pause, move || Reporter::new(name, format, Some(file), None).say(said))
}
