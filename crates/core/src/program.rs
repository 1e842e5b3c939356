//! Other programs, run with an argument list and a time limit.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Why a program gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such program.
    #[error("{program} is not installed")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started or read.
    #[error("run {program}")]
    Io {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not answer in {limit:?}")]
    TimedOut {
        /// Its name.
        program: String,
        /// The time that it had.
        limit: Duration,
    },
}

/// What a program did.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// Runs a program to its end with `input` on its standard input, and kills it when it takes longer than `limit`.
///
/// # Errors
/// [`ProgramError`]; that it ends with a failure is no error here, but told in the [`Answer`].
pub fn run(program: &str, arguments: &[&str], input: &str, limit: Duration) -> Result<Answer, ProgramError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing { program: program.to_owned() },
        _ => ProgramError::Io { program: program.to_owned(), source },
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_error)?;
    feed(&mut child, input);
    let output = collect(&mut child);
    let answer = output.recv_timeout(limit);
    if answer.is_err() {
        // It may have just ended by itself; `wait` below reaps it either way.
        let _ = child.kill();
    }
    let status = child.wait().map_err(io_error)?;
    match answer {
        Ok((stdout, stderr)) => Ok(Answer { status, stdout, stderr }),
        Err(_) => Err(ProgramError::TimedOut { program: program.to_owned(), limit }),
    }
}

/// Writes the input and closes it, without blocking the caller. A program need not read it to its end.
fn feed(child: &mut Child, input: &str) {
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        thread::spawn(move || stdin.write_all(input.as_bytes()));
    }
}

/// Reads both outputs of the child to their end, without blocking the caller.
fn collect(child: &mut Child) -> mpsc::Receiver<(String, String)> {
    let (sender, receiver) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let errors = thread::spawn(move || read_all(stderr));
        let output = read_all(stdout);
        // Nobody listens any more when the time is over.
        let _ = sender.send((output, errors.join().unwrap_or_default()));
    });
    receiver
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn both_outputs_and_the_status_are_told() {
        let answer = run("sh", &["-c", "cat; echo err >&2; exit 3"], "out\n", LONG).unwrap();
        assert_eq!((answer.stdout.as_str(), answer.stderr.as_str(), answer.status.code()), ("out\n", "err\n", Some(3)));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error = run("sleep", &["60"], "", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ProgramError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(run("no-such-program", &[], "", LONG).unwrap_err().to_string(), "no-such-program is not installed");
    }
}
