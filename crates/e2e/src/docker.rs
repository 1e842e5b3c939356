//! The Docker command line.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `docker` with these arguments and returns what it did, whatever that was.
#[must_use]
pub fn try_docker(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker is installed");
    // A command need not read its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("docker ends")
}

/// Runs `docker` with these arguments and returns its standard output without the last line break.
///
/// # Panics
/// When it fails, with what it said.
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
