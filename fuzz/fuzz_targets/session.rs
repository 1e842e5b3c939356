//! A conversation on HAProxy's sockets, in which every answer may be anything, cut off anywhere.
//!
//! The input is a row of answers between lines `--`; after the last one, and after one without a prompt at its end,
//! HAProxy closes the connection.
#![no_main]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::{process, thread};

use lb_core::haproxy::{find, parse_servers, reload};
use libfuzzer_sys::fuzz_target;

/// The sockets' path, and what the next connection is answered.
static MASTER: LazyLock<(PathBuf, Sender<Vec<Vec<u8>>>)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory").keep();
    let path = directory.join("master.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let (sender, answers) = channel();
    thread::spawn(move || {
        for answers in answers {
            let (stream, _) = listener.accept().expect("a connection");
            serve(&stream, answers);
        }
    });
    (path, sender)
});

/// One answer a line, as far as there are any.
fn serve(mut stream: &UnixStream, answers: Vec<Vec<u8>>) {
    let mut commands = BufReader::new(stream).split(b'\n');
    for answer in answers {
        // Whoever has heard enough goes away.
        let gone = commands.next().is_none() || stream.write_all(&answer).is_err();
        if gone || !ends_in_prompt(&answer) {
            return;
        }
    }
}

/// Whether an answer looks complete; for the rest of one that does not, the other side waits as long as it may.
fn ends_in_prompt(answer: &[u8]) -> bool {
    let name = answer.rsplit(|&b| b == b'\n').next().and_then(|line| line.strip_suffix(b"> "));
    name.is_some_and(|name| name.iter().all(|b| b.is_ascii_alphanumeric() || b"[]".contains(b)))
}

/// How many commands are given after the beginning.
const COMMANDS: usize = 3;

/// What a session begins with: this very process is the worker.
fn beginning() -> Vec<Vec<u8>> {
    let pid = process::id();
    let processes = format!("#<PID> <type>\n1 master\n# workers\n{pid} worker 0\n# old workers\n# programs\n\n\nmaster> ");
    vec![b"\nmaster> ".to_vec(), processes.into_bytes(), format!("\n{pid}> ").into_bytes()]
}

fuzz_target!(|input: &[u8]| {
    let (path, sender) = &*MASTER;
    let prompt = format!("\n{}> ", process::id());
    // In the input, `$$` is the process id in a prompt.
    let text = String::from_utf8_lossy(input).replace("$$", &process::id().to_string());
    let answers: Vec<&str> = text.split("\n--\n").take(COMMANDS).collect();

    let all = beginning().into_iter().chain(answers.iter().map(|answer| answer.as_bytes().to_vec())).collect();
    sender.send(all).expect("the other side");
    let mut session = find(path, path).expect("it answers").expect("it runs");
    if let Ok(answer) = session.ask("show servers state") {
        assert!(answers[0].starts_with(&answer) && answers[0].ends_with("> "), "{answer:?}");
        let _ = parse_servers(&answer);
        if let Ok(got) = session.ask_all(&["del server a/b".to_owned(), "del server a/c".to_owned()]) {
            assert!(got.len() <= 2, "{got:?}");
            assert!(got.iter().all(|answer| !answer.contains(&prompt)), "{got:?}");
        }
    }
    drop(session);

    sender.send(vec![text.clone().into_bytes()]).expect("the other side");
    match reload(path) {
        Ok(()) => assert!(text.starts_with("Success=1")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
