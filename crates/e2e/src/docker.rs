//! The Docker command line.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `docker` with these arguments and returns its output, whether it succeeded or not.
#[must_use]
pub fn try_docker(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker is installed");
    // A command does not have to read its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("docker ends")
}

/// Runs `docker` with these arguments and returns its standard output without the last line break.
///
/// # Panics
/// If it fails, with its error.
#[must_use]
pub fn docker(arguments: &[&str]) -> String {
    let output = try_docker(arguments, "");
    assert!(output.status.success(), "docker {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout).trim_end().to_owned()
}

/// Bytes as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
