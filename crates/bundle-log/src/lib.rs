//! `bundle-log`: passes log lines on in bundles.

use std::io::{self, Read, Write};
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use lb_core::cli::{Exit, Tool, after_help};
use lb_core::log::Reporter;
use lb_core::options::RunOptions;
use nix::fcntl::{FcntlArg, fcntl};

/// What the pipe can hold, in bytes, instead of 64 KiB: the most that an unprivileged process may ask for (pipe(7)).
const PIPE: i32 = 1 << 20;

const EXAMPLES: &str = "  exec bundle-log                                   # in the run script of a logger";

/// Pass standard input on to standard output in bundles.
///
/// Of what comes in, the first part is passed on at once, and what comes in the time after it as one piece. Whoever
/// reads the output wakes up less often: with a request log of some thousand lines a second, each of which wakes
/// Docker's processes, this is most of its price. It ends when its input does.
#[derive(Debug, Parser)]
#[command(name = "bundle-log", version, after_help = after_help(EXAMPLES))]
pub struct BundleLog {
    /// Time in which a bundle gathers
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    every: humantime::Duration,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for BundleLog {
    const NAME: &'static str = "bundle-log";

    fn run_options(&self) -> &RunOptions {
        &self.run_options
    }

    fn goes_on(&self) -> bool {
        true
    }
}

/// Runs the tool.
///
/// # Errors
/// When standard input or output fails.
pub fn run(tool: &BundleLog, _reporter: &Reporter) -> Result<Exit> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    // HAProxy drops lines that find the pipe full. Where it cannot be larger, it stays as it is.
    let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE));
    let mut bundle = vec![0; 1 << 20];
    loop {
        let length = match input.read(&mut bundle) {
            Ok(0) => return Ok(Exit::Done),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read standard input"),
        };
        output.write_all(bundle.get(..length).unwrap_or_default()).context("write standard output")?;
        output.flush().context("write standard output")?;
        thread::sleep(*tool.every);
    }
}
