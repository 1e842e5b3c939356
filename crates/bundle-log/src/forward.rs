//! The copy of the lines: a thread sends them, and adding lines never waits for it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lb_core::tool::reporter::Reporter;
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};

use crate::syslog::{MAX_MESSAGE, Target, Transport, message};

/// Maximum size of the send buffer in bytes; further lines are dropped.
const MAX_BUFFER: usize = 1 << 20;
/// Time limit for the server to accept a connection, and to accept data.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);
/// Unacknowledged data is an error after this time; by default, Linux waits a quarter of an hour.
const UNACKNOWLEDGED_TIMEOUT_MS: u32 = 10_000;
/// Pause after an error.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a resolved address is used for datagrams.
const ADDRESS_AGE: Duration = Duration::from_secs(5);
/// Datagrams are not acknowledged, and errors arrive up to three seconds late (ARP): after this long without an error, it works
/// again.
const UDP_PROOF: Duration = Duration::from_secs(10);
/// Minimum interval between messages about lost lines while the server is slow.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Time to send what is buffered at the end of the input.
const END: Duration = Duration::from_secs(1);

/// Sends copies of lines to a syslog server.
#[derive(Debug)]
pub(crate) struct Forward {
    lines: Sender<(SystemTime, Vec<u8>)>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
    ended: Receiver<()>,
}

impl Forward {
    /// Starts sending the lines of `program`; failures and recoveries are logged to `reporter`.
    pub(crate) fn start(target: Target, program: &str, reporter: Reporter) -> Self {
        let (lines, receiver) = channel::<(SystemTime, Vec<u8>)>();
        let (end, ended) = channel();
        let (waiting, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut shipper = Shipper {
            host: nix::unistd::gethostname().map_or_else(|_| "-".to_owned(), |name| name.to_string_lossy().into_owned()),
            program: program.to_owned(),
            connection: None,
            trouble: None,
            said_lost: None,
            lost: lost.clone(),
            target,
            reporter,
        };
        let sent = waiting.clone();
        let send = move || {
            let mut rest = Vec::new();
            while let Ok((time, bytes)) = receiver.recv() {
                rest.extend(&bytes);
                // An endless line must not fill the memory.
                let unended = if rest.len() < MAX_MESSAGE { 0 } else { rest.len() };
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(unended, |at| at + 1);
                shipper.ship(time, rest.get(..whole).unwrap_or_default());
                rest.drain(..whole);
                sent.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            shipper.say_lost();
            // The receiver may be gone.
            let _ = end.send(());
        };
        // Even without a thread, the log itself is useful.
        let _ = thread::Builder::new().spawn(send);
        Self { lines, waiting, lost, ended }
    }

    /// Adds a piece of the log, or counts its lines as lost if the buffer is full.
    pub(crate) fn add(&self, piece: &[u8]) {
        let full = self.waiting.load(Ordering::Relaxed) + piece.len() > MAX_BUFFER;
        if full {
            self.lost.fetch_add(piece.iter().filter(|byte| **byte == b'\n').count(), Ordering::Relaxed);
            return;
        }
        self.waiting.fetch_add(piece.len(), Ordering::Relaxed);
        // The thread only ends on this value.
        let _ = self.lines.send((SystemTime::now(), piece.to_vec()));
    }

    /// Waits a moment for the buffer to be sent.
    pub(crate) fn finish(self) {
        drop(self.lines);
        // After that, the rest is lost.
        let _ = self.ended.recv_timeout(END);
    }
}

/// The thread's side.
struct Shipper {
    target: Target,
    host: String,
    program: String,
    reporter: Reporter,
    connection: Option<Connection>,
    /// Time of the last error since a failure was logged.
    trouble: Option<Instant>,
    said_lost: Option<Instant>,
    lost: Arc<AtomicUsize>,
}

impl Shipper {
    /// Sends complete lines, however long that takes.
    fn ship(&mut self, time: SystemTime, lines: &[u8]) {
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let messages = lines.map(|line| message(&self.host, &self.program, time, line));
        let parcels: Vec<Vec<u8>> = match self.target.transport {
            Transport::Udp => messages.collect(),
            // All at once, and again after an error: better twice than not at all.
            Transport::Tcp => vec![messages.flat_map(|message| [message, b"\n".to_vec()]).flatten().collect()],
        };
        for parcel in parcels {
            while let Err(error) = self.send(&parcel) {
                self.connection = None;
                if self.trouble.replace(Instant::now()).is_none() {
                    let (target, program) = (&self.target, &self.program);
                    self.reporter.log(format_args!("LOG_TARGET {target}: {error}: lines of {program} wait, up to 1 MiB of them"));
                }
                thread::sleep(PAUSE);
            }
            self.sent();
        }
    }

    fn send(&mut self, parcel: &[u8]) -> io::Result<()> {
        if self.connection.as_mut().is_none_or(|connection| !connection.is_good()) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::new(&self.target)?),
        };
        connection.send(parcel)
    }

    /// Logs a recovery, and occasionally the lines lost without a failure.
    fn sent(&mut self) {
        let proof = if self.target.transport == Transport::Udp { UDP_PROOF } else { Duration::ZERO };
        if self.trouble.is_some_and(|last| last.elapsed() >= proof) {
            self.trouble = None;
            let lost = self.lost.swap(0, Ordering::Relaxed);
            let (target, program) = (&self.target, &self.program);
            self.reporter.log(format_args!("LOG_TARGET {target}: works again, {lost} lines of {program} were lost"));
        } else if self.trouble.is_none() && self.said_lost.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.say_lost();
        }
    }

    fn say_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.said_lost = Some(Instant::now());
            let (target, program) = (&self.target, &self.program);
            self.reporter.log(format_args!("LOG_TARGET {target}: too slow, {lost} lines of {program} were lost"));
        }
    }
}

/// A connection to the server.
enum Connection {
    Udp(UdpSocket, Instant),
    Tcp(TcpStream),
}

impl Connection {
    fn new(target: &Target) -> io::Result<Self> {
        let address = target.resolve()?;
        match target.transport {
            Transport::Udp => {
                let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
                socket.connect(address)?;
                // Even the queue of a network interface may be full.
                socket.set_write_timeout(Some(SERVER_TIMEOUT))?;
                Ok(Self::Udp(socket, Instant::now()))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&address, SERVER_TIMEOUT)?;
                stream.set_write_timeout(Some(SERVER_TIMEOUT))?;
                setsockopt(&stream, TcpUserTimeout, &UNACKNOWLEDGED_TIMEOUT_MS)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// A server never sends anything; if there is something to read, it is the end of the connection.
    fn is_good(&mut self) -> bool {
        match self {
            Self::Udp(_, since) => since.elapsed() < ADDRESS_AGE,
            Self::Tcp(stream) => {
                let mut nothing = [0];
                let result = stream.set_nonblocking(true).and_then(|()| stream.read(&mut nothing));
                let open = matches!(&result, Err(error) if error.kind() == ErrorKind::WouldBlock);
                open && stream.set_nonblocking(false).is_ok()
            }
        }
    }

    fn send(&mut self, parcel: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket, _) => socket.send(parcel).map(drop),
            Self::Tcp(stream) => stream.write_all(parcel),
        }
    }
}
