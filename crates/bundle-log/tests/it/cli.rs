//! `bundle-log` from outside.
#![allow(clippy::unwrap_used, reason = "what the tests share is test code, which the lint cannot know")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lb_fixture::{World, assert_page, eventually};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;

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

/// s6-log makes the output of a container such a one, and Docker may be slow to read it.
#[test]
fn an_output_that_does_not_wait_gets_all_of_it() {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bundle-log"));
    let mut child = command.args(["--every", "1ms"]).stdin(Stdio::piped()).stdout(writer).spawn().unwrap();
    drop(command);
    let lines = "line\n".repeat(1_000_000);
    let (mut input, text) = (child.stdin.take().unwrap(), lines.clone());
    // Nobody reads before the pipes are full: the one in, 1 MiB, and the one out.
    let sent = Arc::new(AtomicUsize::new(0));
    let writer = std::thread::spawn({
        let sent = sent.clone();
        move || {
            for piece in text.as_bytes().chunks(4096) {
                input.write_all(piece).unwrap();
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
    });
    eventually("the pipes are full", || sent.load(Ordering::Relaxed) > 1 << 20);
    let mut passed = String::new();
    std::fs::File::from(reader).read_to_string(&mut passed).unwrap();
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

#[test]
fn the_page_shows_what_it_does() {
    let world = World::new();
    assert_page(&world, &world.process(env!("CARGO_BIN_EXE_bundle-log")));
}
