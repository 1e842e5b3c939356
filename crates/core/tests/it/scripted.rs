//! A HAProxy that a test can script: the servers of the model behind real sockets, where a master and a worker answer as
//! those of HAProxy 3.0 do (management guide, sections 9.3 and 9.4) unless the test wants another answer.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use lb_core::haproxy::ProcessOptions;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{getppid, gettid};

use super::model::Haproxy;

/// What is asked without changing anything. `prompt` and `@!<pid>` only begin a conversation.
const QUESTIONS: [&str; 5] = ["prompt", "show proc", "show servers state", "show cli level", "show info"];

/// An answer other than the usual one.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This text; nothing is done.
    Text(String),
    /// It is done, but the connection ends in the middle of the answer.
    BreakOff,
    /// None, and the connection ends; nothing is done.
    HangUp,
    /// None at all; nothing is done.
    Silence,
}

/// The socket that a command came in on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// The master's, which may lead to the worker.
    Master,
    /// The worker's own.
    Admin,
}

/// A running HAProxy. It ends with the value; the files of its sockets stay, as those of a killed one do.
#[derive(Debug)]
pub struct Scripted {
    listeners: [UnixListener; 2],
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    config: PathBuf,
    servers: Haproxy,
    worker: Worker,
    /// How often the master has reloaded.
    reloads: usize,
    has_failed: bool,
    /// Answers to the next command that begins so.
    replies: Vec<(String, Reply)>,
    log: Vec<(Socket, String)>,
}

/// A process id that is taken as long as the value lives. It is that of a thread, which is in `/proc` as a process is.
#[derive(Debug)]
struct Worker {
    pid: i32,
    _alive: Sender<()>,
}

impl Worker {
    fn start() -> Self {
        let ((alive, end), (tell, told)) = (channel::<()>(), channel());
        thread::spawn(move || {
            tell.send(gettid().as_raw()).unwrap();
            // Nobody sends anything: it waits for the sender to be dropped.
            let _ = end.recv();
        });
        Self { pid: told.recv().unwrap(), _alive: alive }
    }
}

impl Scripted {
    /// Starts with the configuration file that is there. The master is the parent of this process, so that a tool run from
    /// here may have foretold it.
    pub fn start(options: &ProcessOptions) -> Self {
        let text = fs::read_to_string(&options.config).unwrap();
        let state = State {
            config: options.config.clone(),
            servers: Haproxy::start(&text).expect("the model knows this file"),
            worker: Worker::start(),
            reloads: 0,
            has_failed: false,
            replies: Vec::new(),
            log: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let listen = |path, socket| listen(path, socket, &state).unwrap();
        let listeners = [listen(&options.master_socket, Socket::Master), listen(&options.admin_socket, Socket::Admin)];
        Self { listeners, state }
    }

    /// Gives another answer to the next command that begins so, once.
    pub fn reply(&self, command: &str, reply: Reply) {
        self.state().replies.push((command.to_owned(), reply));
    }

    /// Answers the next command that begins so with this text, and does nothing.
    pub fn answer(&self, command: &str, text: &str) {
        self.reply(command, Reply::Text(text.to_owned()));
    }

    /// Lets somebody else do something to the servers.
    pub fn by_hand<T>(&self, change: impl FnOnce(&mut Haproxy) -> T) -> T {
        change(&mut self.state().servers)
    }

    /// Lets somebody else reload it.
    pub fn reload_by_hand(&self) {
        let answer = self.state().reload();
        assert!(answer.starts_with("Success=1"), "{answer}");
    }

    /// The worker's process id.
    pub fn worker(&self) -> i32 {
        self.state().worker.pid
    }

    /// Ends the worker's own socket, as in a configuration that has none.
    pub fn close_admin_socket(&self) {
        close(&self.listeners[1]);
    }

    /// The answer to `show servers state`.
    pub fn servers(&self) -> String {
        self.state().servers.show()
    }

    /// All that was asked since the last look, with the sockets.
    pub fn asked(&self) -> Vec<(Socket, String)> {
        mem::take(&mut self.state().log)
    }

    /// Of what was asked since the last look, what is no question.
    pub fn commands(&self) -> Vec<String> {
        let is_command = |line: &String| !QUESTIONS.contains(&line.as_str()) && !line.starts_with("@!");
        self.asked().into_iter().map(|(_, line)| line).filter(is_command).collect()
    }

    /// Takes back what was scripted and did not come to pass.
    pub fn forget_replies(&self) {
        self.state().replies.clear();
    }

    /// Shows that it has the servers that it would have if it were started now.
    pub fn assert_runs_its_file(&self) {
        let state = self.state();
        let text = fs::read_to_string(&state.config).unwrap();
        assert_eq!(state.servers.show(), Haproxy::start(&text).expect("the model knows this file").show(), "{text}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.listeners.iter().for_each(close);
    }
}

/// Nobody can connect any more, and the thread that accepts connections ends.
fn close(listener: &UnixListener) {
    // It may be closed already.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
}

fn listen(path: &Path, socket: Socket, state: &Arc<Mutex<State>>) -> io::Result<UnixListener> {
    // What an earlier one has left.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let (incoming, state) = (listener.try_clone()?, Arc::clone(state));
    thread::spawn(move || {
        for stream in incoming.incoming().map_while(Result::ok) {
            let state = Arc::clone(&state);
            // A client that hangs up is none of the test's concern.
            thread::spawn(move || Conversation { socket, worker: None, state }.hold(&stream));
        }
    });
    Ok(listener)
}

struct Conversation {
    socket: Socket,
    /// The worker that a conversation with the master was pinned to.
    worker: Option<i32>,
    state: Arc<Mutex<State>>,
}

impl Conversation {
    fn hold(mut self, mut stream: &UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        while let Some(line) = lines.next() {
            let line = line?;
            if line.ends_with(" <<") {
                // A payload follows, up to an empty line.
                lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            }
            let mut state = self.state.lock().unwrap();
            state.log.push((self.socket, line.clone()));
            if self.worker.is_some_and(|pid| pid != state.worker.pid) {
                return Ok(());
            }
            let scripted = state.replies.iter().position(|(command, _)| line.starts_with(command));
            let reply = scripted.map(|at| state.replies.remove(at).1);
            let answer = match &reply {
                Some(Reply::Text(text)) => text.clone(),
                Some(Reply::Silence) => continue,
                Some(Reply::HangUp) => return Ok(()),
                Some(Reply::BreakOff) | None => match line.strip_prefix("@!") {
                    Some(pid) => {
                        self.worker = pid.parse().ok();
                        String::new()
                    }
                    None if self.socket == Socket::Master && self.worker.is_none() => state.master(&line),
                    None => state.worker(&line),
                },
            };
            let name = match (self.socket, self.worker) {
                (Socket::Admin, _) => String::new(),
                (Socket::Master, Some(pid)) => pid.to_string(),
                (Socket::Master, None) if state.has_failed => "master[ReloadFailed]".to_owned(),
                (Socket::Master, None) => "master".to_owned(),
            };
            drop(state);
            let end = if answer.is_empty() { "" } else { "\n" };
            let text = format!("{answer}{end}\n{name}> ");
            if matches!(reply, Some(Reply::BreakOff)) {
                return stream.write_all(&text.as_bytes()[..text.len() / 2]);
            }
            // A master begins anew with a reload, and ends its conversations.
            if line == "reload" {
                return stream.write_all(answer.as_bytes());
            }
            stream.write_all(text.as_bytes())?;
        }
        Ok(())
    }
}

impl State {
    /// The master's answer.
    fn master(&mut self, command: &str) -> String {
        match command {
            "prompt" => String::new(),
            "show proc" => format!(
                "#<PID>          <type>          <reloads>       <uptime>        <version>\n\
                 {:<15} master          {} [failed: {}]   0d00h00m29s     3.0.11-1+deb13u3\n\
                 # workers\n\
                 {:<15} worker          0               0d00h00m29s     3.0.11-1+deb13u3\n\
                 # programs",
                getppid(),
                self.reloads,
                u8::from(self.has_failed),
                self.worker.pid
            ),
            "reload" => self.reload(),
            _ => "Unknown command: but maybe one of the following ones is a better match:".to_owned(),
        }
    }

    /// Reads the file anew, and gives the master's answer.
    fn reload(&mut self) -> String {
        self.reloads += 1;
        let servers = fs::read_to_string(&self.config).ok().and_then(|text| Haproxy::start(&text));
        self.has_failed = servers.is_none();
        let Some(servers) = servers else {
            return "Success=0\n--\n[ALERT]    (1) : config : the model does not know this file".to_owned();
        };
        (self.servers, self.worker) = (servers, Worker::start());
        "Success=1\n--\n[NOTICE]   (1) : New worker (1) forked".to_owned()
    }

    /// The worker's answer.
    fn worker(&mut self, command: &str) -> String {
        match command {
            "prompt" => String::new(),
            "show servers state" => format!("{}\n", self.servers.show()),
            "show cli level" => "admin".to_owned(),
            "show info" => format!("Name: HAProxy\nVersion: 3.0.11-1+deb13u3\nPid: {}\nStopping: 0\n", self.worker.pid),
            _ if command.starts_with("set ssl cert ") => "+ + Transaction created for a certificate!".to_owned(),
            _ if command.starts_with("commit ssl cert ") => "Committing a certificate.\nSuccess!".to_owned(),
            _ => match self.servers.command(command) {
                Some(answer) => answer.to_owned(),
                None if command.starts_with("del server") => {
                    "Server still has connections attached to it, cannot remove it.".to_owned()
                }
                None => "No such server.".to_owned(),
            },
        }
    }
}
