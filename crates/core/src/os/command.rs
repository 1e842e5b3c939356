//! Running other programs with a time limit.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Maximum size of an output in bytes; the rest is dropped.
const MAX_OUTPUT: u64 = 1 << 20;

/// Why a program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The program does not exist.
    #[error("{program} is not installed")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be started, fed or waited for.
    #[error("run {program}")]
    Io {
        /// Its name.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not answer in {limit:?}")]
    TimedOut {
        /// Its name.
        program: String,
        /// The time limit.
        limit: Duration,
    },
}

/// The result of a program that has ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a program with `input` on its standard input, and kills it if it takes longer than `limit`.
///
/// # Errors
/// [`ProgramError`]. A non-zero exit is not an error; see [`Output::status`].
pub fn run(program: &str, arguments: &[&str], input: &str, limit: Duration) -> Result<Output, ProgramError> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, input, limit)
}

/// The same for a program with an environment of its own.
///
/// Input and outputs are files in memory. So no thread has to feed or drain the program, and a child that it leaves behind
/// with an open output is not waited for.
///
/// The program is in a process group of its own: Ctrl-C at a terminal ends the tool, not what it has asked another program for.
///
/// # Errors
/// [`ProgramError`]. A non-zero exit is not an error; see [`Output::status`].
pub fn run_command(mut command: Command, input: &str, limit: Duration) -> Result<Output, ProgramError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let io_error = |source: io::Error| ProgramError::Io { program: program.clone(), source };
    let memory = |content: &str| in_memory(content).map_err(io_error);
    let (stdin, stdout, stderr) = (memory(input)?, memory("")?, memory("")?);
    let output = |file: &File| file.try_clone().map(Stdio::from).map_err(io_error);
    command.stdin(stdin).stdout(output(&stdout)?).stderr(output(&stderr)?).process_group(0);
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing { program: program.clone() },
        _ => io_error(source),
    })?;
    match wait(&mut child, limit) {
        Ok(Some(status)) => Ok(Output { status, stdout: text(stdout), stderr: text(stderr) }),
        result => {
            // It may have ended in the meantime; `wait` reaps it either way.
            let _ = child.kill();
            let _ = child.wait();
            Err(result.err().map_or_else(|| ProgramError::TimedOut { program: program.clone(), limit }, io_error))
        }
    }
}

/// Waits for a child; `None` if it does not end in time.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// A file in memory with this content, positioned at its start.
fn in_memory(content: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("program", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// The beginning of an output, as text.
fn text(mut output: File) -> String {
    let mut bytes = Vec::new();
    // Whatever was read before an error is still worth showing.
    let _ = output.rewind().and_then(|()| output.take(MAX_OUTPUT).read_to_end(&mut bytes));
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
    fn a_program_is_in_a_process_group_of_its_own() {
        // Process id and process group (proc(5), /proc/pid/stat).
        let answer = run("sh", &["-c", "cut -d ' ' -f 1,5 /proc/$$/stat"], "", LONG).unwrap();
        let (pid, group) = answer.stdout.trim_end().split_once(' ').unwrap();
        assert_eq!(pid, group);
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error = run("sleep", &["60"], "", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ProgramError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_program_that_hides_is_killed_and_what_it_leaves_behind_is_not_waited_for() {
        let error = run("sh", &["-c", "exec >&- 2>&-; exec sleep 60"], "", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ProgramError::TimedOut { .. }), "{error}");
        let answer = run("sh", &["-c", "sleep 1 & echo done"], "", LONG).unwrap();
        assert_eq!(answer.stdout, "done\n");
    }

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(run("no-such-program", &[], "", LONG).unwrap_err().to_string(), "no-such-program is not installed");
    }
}
