//! Answering one connection. The library `httparse` reads the request; only `GET` is answered, once a connection.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use httparse::Status;
use nix::sys::socket::{setsockopt, sockopt};
use percent_encoding::percent_decode_str;

use super::PAGE;
use super::hub::Hub;
use crate::table::Style;
use crate::text;

/// Maximum size of a request in bytes.
const MAX_REQUEST: usize = 8 * 1024;
/// Maximum number of headers; HAProxy's own limit is 101.
const MAX_HEADERS: usize = 128;
/// Size of the kernel's buffer for what a viewer has not taken yet, which would grow to several MB.
const SEND_BUFFER: usize = 128 * 1024;
/// Time limit for a request, and for an answer or an event to be taken. A viewer that is slower is dropped.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Answers the request of a connection.
///
/// # Errors
/// If the client is gone, or too slow.
pub fn answer(mut stream: TcpStream, hub: &Hub) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER)?;
    let target = match request(&mut stream)? {
        Ok(target) => target,
        Err(status) => return respond(&mut stream, status, "text/plain", "", status),
    };
    match target.as_str() {
        "/live" => page(&mut stream),
        "/live/events" => watch(&mut stream, hub),
        target => match target.strip_prefix("/live/node?name=") {
            Some(name) => node(&mut stream, hub, &percent_decode_str(name).decode_utf8_lossy()),
            None => respond(&mut stream, "404 Not Found", "text/plain", "", "the live page is at /live"),
        },
    }
}

/// Reads a request and returns its target, or the status that it is refused with.
fn request(stream: &mut TcpStream) -> io::Result<Result<String, &'static str>> {
    let deadline = Instant::now() + TIMEOUT;
    let (mut buffer, mut length) = (vec![0; MAX_REQUEST], 0);
    loop {
        let Some(free) = buffer.get_mut(length..).filter(|free| !free.is_empty()) else {
            return Ok(Err("431 Request Header Fields Too Large"));
        };
        let more = stream.read(free)?;
        length += more;
        if more == 0 || Instant::now() > deadline {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        return Ok(match request.parse(buffer.get(..length).unwrap_or_default()) {
            Ok(Status::Partial) => continue,
            Ok(Status::Complete(_)) if request.method == Some("GET") => Ok(request.path.unwrap_or_default().to_owned()),
            Ok(Status::Complete(_)) => Err("405 Method Not Allowed"),
            Err(_) => Err("400 Bad Request"),
        });
    }
}

fn page(stream: &mut TcpStream) -> io::Result<()> {
    let nonce = nonce()?;
    // Nothing from elsewhere, and no script but this one, whatever gets into the page.
    let policy = format!(
        "Content-Security-Policy: default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    );
    respond(stream, "200 OK", "text/html", &policy, &PAGE.replace("NONCE", &nonce))
}

/// A random number, in hexadecimal digits.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// What `show-nodes NAME` says.
fn node(stream: &mut TcpStream, hub: &Hub, name: &str) -> io::Result<()> {
    let Some(mut viewer) = hub.admit() else { return refuse(stream) };
    let (last, _) = viewer.next();
    match text::one(&last.look.view, name, hub.log, false, Style::PLAIN) {
        Some((text, _)) => respond(stream, "200 OK", "text/plain", "", &text),
        None => respond(stream, "404 Not Found", "text/plain", "", "neither the four states nor the log have this name"),
    }
}

/// Sends events until the viewer goes, or is too slow.
fn watch(stream: &mut TcpStream, hub: &Hub) -> io::Result<()> {
    let Some(mut viewer) = hub.admit() else { return refuse(stream) };
    // The browser tries again after half a second.
    send(stream, &format!("{}\r\nretry: 500\n\n", head("200 OK", "text/event-stream")))?;
    let mut worker = None;
    loop {
        let (last, lines) = viewer.next();
        // After a reload, HAProxy's old worker would live until this connection ends; the browser comes back through the new one.
        let current = last.worker();
        if worker.is_some() && current.is_some() && worker != current {
            return Ok(());
        }
        worker = worker.or(current);
        if !lines.is_empty() {
            send(stream, &format!("event: log\ndata: [{}]\n\n", lines.join(",")))?;
        }
        send(stream, &format!("event: state\ndata: {}\n\n", last.look.json))?;
    }
}

fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    respond(
        stream,
        "503 Service Unavailable",
        "text/plain",
        "Retry-After: 5\r\n",
        "64 viewers are watching, which is the maximum",
    )
}

/// The status line and the headers that all answers have.
fn head(status: &str, kind: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nCache-Control: no-store\r\nConnection: close\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
    )
}

fn respond(stream: &mut TcpStream, status: &str, kind: &str, headers: &str, body: &str) -> io::Result<()> {
    send(stream, &format!("{}{headers}Content-Length: {}\r\n\r\n{body}", head(status, kind), body.len()))
}

/// Writes the text. The time limit is for all of it: a client that takes a byte now and then is too slow.
fn send(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let length = stream.write(rest)?;
        rest = rest.get(length..).unwrap_or_default();
        if length == 0 || (Instant::now() > deadline && !rest.is_empty()) {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}
