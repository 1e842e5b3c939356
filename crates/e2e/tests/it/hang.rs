//! A handler that hangs while it holds the lock: the others wait for a while, say why they give up, and change nothing;
//! all is well as soon as it goes on or is killed.

use std::fs::{self, File};
use std::process::{Child, Stdio};

use e2e::live::member_list;
use e2e::{Live, State, eventually};
use lb_fixture::inject::{Fault, Injection};
use lb_fixture::only_line;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ONE: State = State { nodes: &["s1 127.0.0.2 port=9"], revision: "a" };
const TWO: State = State { nodes: &["s1 127.0.0.2 port=9", "s2 127.0.0.3 port=9"], revision: "a" };
const THREE: State = State { nodes: &["s1 127.0.0.2 port=9", "s2 127.0.0.3 port=9", "s3 127.0.0.4 port=9"], revision: "a" };

/// A handler that was stopped in the midst of its work, with the `strace` that stopped it.
struct Stopped {
    strace: Child,
    handler: Pid,
}

impl Stopped {
    /// Joins `s2`, up to this system call.
    fn at(live: &Live, call: &str, at: usize) -> Self {
        let event = live.world.path("event");
        fs::write(&event, "s2\t127.0.0.3\tbackend\tport=9\n").unwrap();
        let fault = Injection { call: call.to_owned(), at, fault: Fault::Stop };
        let mut command = live.tracer("member-join", &fault);
        command.stdin(File::open(event).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut strace = command.spawn().unwrap();
        let handler = eventually("the handler stops", 20, || {
            assert!(strace.try_wait().unwrap().is_none(), "it never came to {call} {at}");
            let trace = live.world.path("trace").exists().then(|| live.world.trace());
            trace.and_then(|trace| trace.stopped()).ok_or_else(|| "no sign of it".to_owned())
        });
        Self { strace, handler: Pid::from_raw(handler) }
    }

    /// Sends a signal, and waits for its end; says whether it ended well.
    fn end_by(mut self, signal: Signal) -> bool {
        kill(self.handler, signal).unwrap();
        self.strace.wait().unwrap().success()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // With strace ends whom it traces. All may have ended already.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Shows that a sync gives up in its bounded wait, in one clear line, and changes nothing.
fn assert_waits_in_vain(live: &Live) {
    let before = (live.world.snapshot(), live.servers().unwrap());
    let run = live.command("sync-nodes").args(["--from", "-"]).write_stdin(member_list(THREE.nodes)).assert().code(1);
    let folder = live.world.path("haproxy").display().to_string();
    assert_eq!(
        only_line(&run),
        format!("sync-nodes: {folder} is still locked by another tool after 5 s: look for a tool that hangs")
    );
    assert_eq!((live.world.snapshot(), live.servers().unwrap()), before);
}

#[test]
fn a_stopped_handler_goes_on_where_it_was() {
    let live = Live::start(&ONE);
    let stopped = Stopped::at(&live, "connect", 1);
    assert_waits_in_vain(&live);
    assert!(stopped.end_by(Signal::SIGCONT));
    live.is(&TWO).unwrap();
    live.set(&THREE);
    live.is(&THREE).unwrap();
}

#[test]
fn a_stopped_handler_that_is_killed_has_left_nothing_that_a_sync_does_not_heal() {
    let live = Live::start(&ONE);
    // It has registered the node and told HAProxy, and is about to replace the file.
    let stopped = Stopped::at(&live, "rename", 2);
    assert_waits_in_vain(&live);
    assert!(!stopped.end_by(Signal::SIGKILL));
    live.set(&THREE);
    live.is(&THREE).unwrap();
    assert_eq!(live.temporary_files(), [""; 0]);
}
