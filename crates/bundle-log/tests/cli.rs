//! `bundle-log` from outside.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lb_fixture::World;

fn start(every: &str) -> (Child, ChildStdin, ChildStdout) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bundle-log"));
    let mut child = command.args(["--every", every]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, input, output)
}

#[test]
fn all_that_comes_in_goes_out_in_its_order() {
    let (mut child, mut input, mut output) = start("1ms");
    let lines: String = (0..100_000).map(|number| format!("request {number}\n")).collect();
    let text = lines.clone();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let mut passed = String::new();
    output.read_to_string(&mut passed).unwrap();
    writer.join().unwrap();
    assert!(passed == lines, "{} of {} bytes", passed.len(), lines.len());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_first_line_comes_at_once_and_the_others_together() {
    let (mut child, mut input, mut output) = start("3s");
    let mut buffer = [0; 1024];
    input.write_all(b"first\n").unwrap();
    assert_eq!(output.read(&mut buffer).unwrap(), 6);
    for line in ["second\n", "third\n"] {
        input.write_all(line.as_bytes()).unwrap();
    }
    drop(input);
    let length = output.read(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), "second\nthird\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_output_that_is_gone_is_an_error() {
    let world = World::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = world.process(env!("CARGO_BIN_EXE_bundle-log"));
    let mut child = command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"line\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("bundle-log: write standard output: ") && errors.lines().count() == 1, "{errors}");
}
