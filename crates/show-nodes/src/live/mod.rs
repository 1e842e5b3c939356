//! The live page: the four states, once a second, for everybody who watches.
//!
//! The page ([`PAGE`]) listens to a stream of events (HTML Living Standard, "Server-sent events"). One thread looks at the
//! states, no matter how many watch, and not at all if nobody does. Each viewer has a thread of its own, which only waits and
//! writes.

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_core::tool::Exit;
use lb_core::tool::reporter::Reporter;

use crate::ShowNodes;

mod http;
mod hub;
mod look;
mod tail;

use hub::Hub;
use look::Looker;

/// The page, with its style and its script. `NONCE` is replaced in every answer.
const PAGE: &str = include_str!("page.html");
/// Time from one look to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of connections: the viewers, and those who ask for something else.
const MAX_CONNECTIONS: usize = hub::MAX_VIEWERS + 32;
/// A thread needs little: its buffers are on the heap.
const STACK: usize = 256 * 1024;

/// Serves the page until the process is stopped.
///
/// # Errors
/// If it cannot listen at the address.
pub fn serve(tool: &ShowNodes, address: SocketAddr, reporter: &Reporter) -> Result<Exit> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen at {address}"))?;
    // In a container, nobody could use this address.
    if io::stderr().is_terminal() {
        reporter.hint(format_args!("the live page is at http://{}/live", listener.local_addr()?));
    }
    let (hub, open) = (&Hub::new(&tool.run_options.log_file), &AtomicUsize::new(0));
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, move || look_for(hub, Looker::new(tool)))?;
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Such as too many open files, which does not end sooner by asking again at once.
                thread::sleep(Duration::from_millis(100));
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let answer = move || {
                // An error means that the client has gone, or is too slow.
                let _ = http::answer(stream, hub);
                open.fetch_sub(1, Ordering::Relaxed);
            };
            if thread::Builder::new().stack_size(STACK).spawn_scoped(scope, answer).is_err() {
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }
        Ok(Exit::Done)
    })
}

/// Looks once a second while somebody watches.
fn look_for(hub: &Hub, mut looker: Looker) {
    loop {
        if hub.wait_for_viewer() {
            looker.begin();
        }
        let begin = Instant::now();
        let look = looker.look();
        hub.publish(look);
        thread::sleep(INTERVAL.saturating_sub(begin.elapsed()));
    }
}
