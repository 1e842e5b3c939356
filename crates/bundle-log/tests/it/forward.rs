//! The copy that goes to a syslog server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "what the tests share is test code, which the lint cannot know")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use lb_fixture::{World, eventually};

/// The logger with an input to write to; its outputs are files.
struct Logger {
    world: World,
    child: Child,
    input: ChildStdin,
}

impl Logger {
    fn start(target: &str) -> Self {
        let world = World::new();
        let mut command = world.process(env!("CARGO_BIN_EXE_bundle-log"));
        command.args(["--every", "1ms", "--from", "test"]).env("LOG_TARGET", target).stdin(Stdio::piped());
        let output = |name| File::create(world.path(name)).unwrap();
        let mut child = command.stdout(output("stdout")).stderr(output("stderr")).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        Self { world, child, input }
    }

    fn add(&mut self, lines: &str) {
        self.input.write_all(lines.as_bytes()).unwrap();
    }

    fn passed_on(&self) -> String {
        std::fs::read_to_string(self.world.path("stdout")).unwrap()
    }

    fn said(&self) -> Vec<String> {
        std::fs::read_to_string(self.world.path("stderr")).unwrap().lines().map(str::to_owned).collect()
    }

    /// Ends its input; returns what it said.
    fn end(mut self) -> Vec<String> {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(self.world.path("stderr")).unwrap().lines().map(str::to_owned).collect()
    }
}

/// What is after the head of a message, which is checked.
fn text_of(message: &str) -> &str {
    let words: Vec<&str> = message.splitn(8, ' ').collect();
    assert!(words.len() == 8 && words[0] == "<134>1" && words[3..7] == ["test", "-", "-", "-"], "{message}");
    assert!(humantime::parse_rfc3339(words[1]).is_ok(), "{message}");
    words[7]
}

/// Every line of every connection, as it comes. (The end of one that was given up may never arrive.)
fn accept(listener: TcpListener) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            thread::spawn(move || read(stream, &sender));
        }
    });
    lines
}

fn read(stream: TcpStream, sender: &Sender<String>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if sender.send(line).is_err() {
            return;
        }
    }
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn over_udp_every_line_is_a_datagram() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LONG)).unwrap();
    let mut logger = Logger::start(&format!("udp://{}", server.local_addr().unwrap()));
    logger.add("first\nsecond\n\nthi");
    logger.add("rd\n");
    for expected in ["first", "second", "third"] {
        let mut buffer = [0; 1024];
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(text_of(std::str::from_utf8(&buffer[..length]).unwrap()), expected);
    }
    assert_eq!(logger.passed_on(), "first\nsecond\n\nthird\n");
    assert!(logger.end().is_empty());
}

#[test]
fn over_tcp_nothing_is_lost_while_the_server_is_away_for_a_while() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut logger = Logger::start(&format!("tcp://{place}"));
    logger.add("one\n");
    eventually("it says that the server is away", || logger.said().len() == 1);
    logger.add("two\n");
    let lines = accept(TcpListener::bind(place).unwrap());
    for expected in ["one", "two"] {
        assert_eq!(text_of(&lines.recv_timeout(LONG).unwrap()), expected);
    }
    eventually("it says that the server is back", || logger.said().len() == 2);
    assert_eq!(logger.passed_on(), "one\ntwo\n");
    let said = logger.end();
    assert!(said[0].contains(&format!("LOG_TARGET tcp://{place}: Connection refused")), "{said:?}");
    assert!(said[1].ends_with("works again, 0 lines of test were lost"), "{said:?}");
}

#[test]
fn a_connection_that_the_server_has_closed_is_made_anew_and_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut logger = Logger::start(&format!("tcp://{}", listener.local_addr().unwrap()));
    for number in 0..3 {
        logger.add(&format!("line {number}\n"));
        // Read, then closed.
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
        assert_eq!(text_of(line.trim_end()), format!("line {number}"));
    }
    assert!(logger.end().is_empty());
}

#[test]
fn a_server_that_takes_nothing_delays_nothing_and_what_does_not_wait_is_counted_as_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut logger = Logger::start(&format!("tcp://{}", listener.local_addr().unwrap()));
    let (all, filler) = (200_000, "x".repeat(100));
    let text: String = (0..all).map(|number| format!("{number} {filler}\n")).collect();
    logger.add(&text);
    // Nobody has accepted the connection so far, and the system's buffers hold less than all of it.
    eventually("all of it was passed on", || logger.passed_on().len() == text.len());
    assert_eq!(logger.passed_on(), text);
    let says = |what: &str| logger.said().iter().any(|line| line.contains(what));
    eventually("it says so", || says("lines of test wait"));

    let lines = accept(listener);
    eventually("it says that the server is back", || says("works again"));
    let mut arrived = BTreeSet::new();
    let mut receive = |patience| {
        while let Ok(line) = lines.recv_timeout(patience) {
            // The line that was cut by the end of a connection comes again, whole.
            if line.ends_with(&filler) {
                arrived.insert(text_of(&line).to_owned());
            }
        }
    };
    receive(Duration::from_secs(1));
    let said = logger.end();
    let lost =
        |line: &String| -> Option<usize> { line.strip_suffix(" lines of test were lost")?.rsplit(' ').next()?.parse().ok() };
    let lost: usize = said.iter().filter_map(lost).sum();
    receive(Duration::from_secs(1));
    // Nobody can count what the system had taken for the connection that was given up.
    assert!(lost > 0 && !arrived.is_empty() && arrived.len() + lost <= all, "{} arrived: {said:?}", arrived.len());
}

#[test]
fn a_target_that_makes_no_sense_is_one_line_and_the_log_goes_on() {
    for target in ["logs", "udp://", "http://logs:514", "udp://logs:0", "\u{1b}[31m"] {
        let mut logger = Logger::start(target);
        logger.add("line\n");
        eventually("it is passed on", || logger.passed_on() == "line\n");
        let said = logger.end();
        assert_eq!(said.len(), 1, "{said:?}");
        let reason = "must be udp://HOST[:PORT] or tcp://HOST[:PORT]: no line of test is sent";
        assert!(said[0].starts_with("bundle-log: LOG_TARGET ") && said[0].ends_with(reason), "{said:?}");
        assert!(!said[0].contains(char::is_control), "{said:?}");
    }
}

#[test]
fn a_name_that_nobody_has_is_said_once_and_the_log_ends_in_time() {
    let mut logger = Logger::start("udp://no-such-host.invalid");
    logger.add("line\n");
    eventually("it is said", || logger.said().len() == 1);
    let began = std::time::Instant::now();
    let said = logger.end();
    assert!(said.len() == 1 && said[0].contains("nobody has this name"), "{said:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
