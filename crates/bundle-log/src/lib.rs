//! `bundle-log`: passes log lines on in batches, and sends a copy to a syslog server.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use lb_core::os::escape::Quoted;
use lb_core::tool::RunOptions;
use lb_core::tool::reporter::{Format, Reporter};
use lb_core::tool::{Exit, Tool, after_help};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

mod forward;
mod syslog;

use forward::Forward;

/// Size of the pipe in bytes, instead of 64 KiB: the maximum for an unprivileged process (pipe(7)).
const PIPE: i32 = 1 << 20;

const EXAMPLES: &str = "  exec bundle-log                                   # in the run script of a logger
  exec bundle-log --to udp://logs.example:514       # and to a syslog server";

/// Pass standard input on to standard output in batches.
///
/// The first input is passed on at once, and whatever arrives during the following interval is passed on in one write, so
/// that the reader wakes up less often. For a request log of some thousand lines per second, each of which would wake
/// Docker's processes, that is most of the cost. Ends at the end of its input.
///
/// With --to, each line is also sent to a syslog server (RFC 5424; over TCP, one message per line). Standard output never
/// waits for that: while the server is unreachable or slow, up to 1 MiB of lines is buffered, and further lines are
/// dropped and counted.
#[derive(Debug, Parser)]
#[command(name = "bundle-log", version, after_help = after_help(EXAMPLES))]
pub struct BundleLog {
    /// How long to collect lines for a batch
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    every: humantime::Duration,
    /// Syslog server to send a copy to, udp://HOST[:PORT] or tcp://HOST[:PORT]; an invalid URL is logged and ignored
    #[arg(long, env = "LOG_TARGET", value_name = "URL")]
    to: Option<String>,
    /// Name of the program that wrote the lines, for the syslog server
    #[arg(long, value_name = "NAME", default_value = "haproxy")]
    from: String,
    #[command(flatten)]
    run_options: RunOptions,
}

impl Tool for BundleLog {
    const NAME: &'static str = "bundle-log";

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
/// If standard input or output fails.
pub fn run(tool: &BundleLog, reporter: &Reporter) -> Result<Exit> {
    let mut input = io::stdin().lock();
    // HAProxy drops lines when the pipe is full. If it cannot be enlarged, it stays as it is.
    let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE));
    let forward = forward(tool, reporter);
    let mut bundle = vec![0; 1 << 20];
    loop {
        let length = match input.read(&mut bundle) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("read standard input"),
        };
        let lines = bundle.get(..length).unwrap_or_default();
        pass_on(lines).context("write standard output")?;
        if let Some(forward) = &forward {
            forward.add(lines);
        }
        thread::sleep(*tool.every);
    }
    if let Some(forward) = forward {
        forward.finish();
    }
    Ok(Exit::Done)
}

/// Writes everything, even if the output, which is shared with s6-log, was made non-blocking by it.
fn pass_on(mut lines: &[u8]) -> io::Result<()> {
    let output = io::stdout();
    while !lines.is_empty() {
        match write(&output, lines) {
            Ok(length) => lines = lines.get(length..).unwrap_or_default(),
            Err(Errno::EAGAIN) => drop(poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Starts sending the copy. An invalid target must not stop the log itself.
fn forward(tool: &BundleLog, reporter: &Reporter) -> Option<Forward> {
    let to = tool.to.as_deref().filter(|to| !to.is_empty())?;
    let log_file = tool.run_options.log_file.clone();
    match to.parse() {
        Ok(target) => {
            Some(Forward::start(target, &tool.from, Reporter::new(BundleLog::NAME, Format::Text, Some(log_file), None)))
        }
        Err(reason) => {
            reporter.log(format_args!("LOG_TARGET {}: {reason}: no line of {} is sent", Quoted(to), tool.from));
            None
        }
    }
}
