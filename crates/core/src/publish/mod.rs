//! Publishing: registry to file to process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::config::template::RenderError;
use crate::haproxy::ProcessOptions;
use crate::haproxy::last_applied::{LastApplied, Reader, record_path};
use crate::haproxy::observe::{Observation, Process, SERVERS, discard_start, record_start};
use crate::haproxy::plan::{Action, Command, Plan, plan};
use crate::haproxy::{self, HaproxyError, Session, parse_servers};
use crate::os::atomic_file::{Staged, TEMPORARY, remove_if_there, replace};
use crate::os::command::ProgramError;
use crate::os::read_file::{read, read_text};
use crate::registry::{Registry, RegistryError};

mod candidate;
pub mod lock;
mod options;
pub mod outcome;
pub mod stats;

pub use candidate::Candidate;
use lock::{Lock, LockError};
pub use options::PublishOptions;
pub use outcome::{Applied, Outcome};
use outcome::{Servers, Timings};
use stats::{Stats, stats_path};

/// Permissions of the configuration file: everybody in the container may look at it.
const MODE: u32 = 0o644;

/// Why file and process stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another tool holds the lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The registry cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The template gives no text.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// HAProxy does not answer, or refuses the configuration.
    #[error(transparent)]
    Haproxy(#[from] HaproxyError),
    /// The configuration file cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration file, or the record of what runs, cannot be written.
    #[error("write {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the registry, changes it, renders it, replaces the file if it changes, and makes the running HAProxy equal to it.
/// Nodes because of which HAProxy would refuse the whole are left out. When anything fails, the last good file and process
/// stay. The caller holds the lock.
///
/// # Errors
/// [`PublishError`].
pub fn publish(
    options: &PublishOptions,
    _lock: &Lock,
    change: impl FnOnce(&mut Registry) -> Result<(), RegistryError>,
) -> Result<Outcome, PublishError> {
    counted(&options.process.master_socket, |steps| {
        // HAProxy works on its answer while the registry is read.
        let mut look = Some(Observation::begin(&options.process));
        let rendering = steps.time("render", || {
            let mut registry = Registry::read(&options.render.nodes_dir)?;
            change(&mut registry)?;
            Candidate::of(registry, &options.render, BTreeMap::new())
        })?;
        Target::make(&options.process, rendering, steps, |target| {
            target.apply(look.take().unwrap_or_else(|| Observation::begin(&options.process)), false)
        })
    })
}

/// Renders the registry, and replaces the file if it changes, after HAProxy found it valid, without the nodes that it would
/// refuse; the process is left alone. `settings` are further names for the template. If HAProxy does not run, the
/// caller's parent may be about to become it: then it is known what it reads. The caller holds the lock.
///
/// # Errors
/// [`PublishError`].
pub fn write_file(options: &PublishOptions, settings: BTreeMap<String, String>, _lock: &Lock) -> Result<Outcome, PublishError> {
    counted(&options.process.master_socket, |steps| {
        let rendering = steps.time("render", || Candidate::read(&options.render, settings))?;
        Target::make(&options.process, rendering, steps, |target| {
            target.write()?;
            if haproxy::is_down(&options.process.master_socket) {
                record_start(&options.process, target.text.clone());
            }
            Ok(Applied::Nothing)
        })
    })
}

/// Makes the running HAProxy equal to the file as it is; `force` reloads even if nothing differs.
/// The caller holds the lock.
///
/// # Errors
/// [`PublishError`].
pub fn apply_file(options: &ProcessOptions, force: bool, _lock: &Lock) -> Result<Outcome, PublishError> {
    counted(&options.master_socket, |steps| {
        let look = Observation::begin(options);
        let mut target = Target::of_file(options, steps)?;
        let applied = target.apply(look, force).inspect_err(|_| target.settle())?;
        Ok(target.published(applied))
    })
}

/// What [`apply_file`] would do, or `None` when HAProxy does not run.
///
/// # Errors
/// [`PublishError`].
pub fn plan_file(options: &ProcessOptions) -> Result<Option<Plan>, PublishError> {
    let (look, steps) = (Observation::begin(options), Timings::begin());
    let target = Target::of_file(options, &steps)?;
    let Some(process) = look.end(target.old.as_deref())? else { return Ok(None) };
    Ok(Some(target.plan(&process)?))
}

/// Publishes, counts it, and says how long it took. One that changes nothing is not counted, and writes nothing.
fn counted(master: &Path, publish: impl FnOnce(&Timings) -> Result<Outcome, PublishError>) -> Result<Outcome, PublishError> {
    let (path, steps) = (stats_path(master), Timings::begin());
    match publish(&steps) {
        Ok(mut published) if published.changed() => {
            published.times = steps.end();
            let micros = published.times.last().map_or(0, |(_, total)| total.as_micros());
            let counters = Stats::update(&path, |counters| {
                counters.micros = counters.micros.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX));
                match published.applied {
                    Applied::Commands(_) => counters.run_time += 1,
                    Applied::Reload(_) => counters.reload += 1,
                    Applied::NotRunning | Applied::Nothing => counters.file += 1,
                }
            });
            published.generation = counters.generation();
            Ok(published)
        }
        Err(error) => {
            Stats::update(&path, |counters| counters.failed += 1);
            Err(error)
        }
        unchanged => {
            // Where nothing is written, nothing else takes away what a writer that was killed has left.
            let _ = remove_if_there(&path.with_file_name(TEMPORARY));
            unchanged
        }
    }
}

/// The text that file and process shall have.
struct Target<'a> {
    options: &'a ProcessOptions,
    text: String,
    /// The file's text before, if there is a file.
    old: Option<String>,
    differs: bool,
    /// The process was changed, and not to the end.
    touched: bool,
    record: PathBuf,
    steps: &'a Timings,
}

impl<'a> Target<'a> {
    fn new(options: &'a ProcessOptions, text: String, steps: &'a Timings) -> Result<Self, PublishError> {
        let old = match read(&options.config) {
            // Bytes that are no text are no good configuration; they are replaced like any other text.
            Ok(bytes) => {
                Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(PublishError::Read { path: options.config.clone(), source }),
        };
        let differs = old.as_ref() != Some(&text);
        Ok(Self { options, text, old, differs, touched: false, record: record_path(&options.master_socket), steps })
    }

    /// Does `work` for the text of a rendering, and if HAProxy refuses that, for the text without the offenders.
    fn make(
        options: &'a ProcessOptions,
        mut rendering: Candidate,
        steps: &'a Timings,
        mut work: impl FnMut(&mut Self) -> Result<Applied, PublishError>,
    ) -> Result<Outcome, PublishError> {
        let text = steps.time("render", || rendering.text())?;
        let mut target = Self::new(options, text, steps)?;
        let mut applied = work(&mut target);
        let found = match &applied {
            // Whatever keeps us from finding them, the refusal is what to tell.
            Err(PublishError::Haproxy(HaproxyError::Refused(words))) => {
                rendering.leave_out_offenders(words, |text| target.refusal(text)).unwrap_or(false)
            }
            _ => false,
        };
        if found {
            target.text = rendering.text()?;
            target.differs = target.old.as_ref() != Some(&target.text);
            applied = work(&mut target);
        }
        let applied = applied.inspect_err(|_| target.settle())?;
        let mut published = target.published(applied);
        (published.skipped, published.left_out) = rendering.into_skipped();
        Ok(published)
    }

    fn of_file(options: &'a ProcessOptions, steps: &'a Timings) -> Result<Self, PublishError> {
        let text = read_text(&options.config).map_err(|source| PublishError::Read { path: options.config.clone(), source })?;
        Ok(Self {
            options,
            old: Some(text.clone()),
            text,
            differs: false,
            touched: false,
            record: record_path(&options.master_socket),
            steps,
        })
    }

    /// What was done with it.
    fn published(&self, applied: Applied) -> Outcome {
        let servers = Servers::of(self.old.as_deref().unwrap_or_default(), &self.text, &applied);
        Outcome { written: self.differs, applied, servers, ..Outcome::default() }
    }

    fn apply(&mut self, look: Observation, force: bool) -> Result<Applied, PublishError> {
        let Some(process) = self.steps.time("ask", || look.end(self.old.as_deref()))? else {
            if self.differs {
                // A HAProxy that is just starting may read this file or the one before.
                discard_start(self.options);
            }
            self.write()?;
            return Ok(Applied::NotRunning);
        };
        match self.steps.time("plan", || self.plan(&process))? {
            _ if force => self.reload("asked for".to_owned()),
            Plan::Reload(reason) => self.reload(reason),
            Plan::Commands(commands) => self.run(commands, process),
        }
    }

    fn plan(&self, process: &Process) -> Result<Plan, PublishError> {
        let servers = parse_servers(&process.servers).ok_or_else(|| process.session.unexpected(SERVERS))?;
        Ok(plan(&self.text, process.running.as_ref(), &servers))
    }

    /// Replaces the file if it differs and HAProxy, which is to start with it, finds it valid.
    fn write(&self) -> Result<(), PublishError> {
        let Some(staged) = self.stage()? else { return Ok(()) };
        self.check()?;
        self.commit(staged)
    }

    /// Runs the commands, then replaces the file and records what runs.
    fn run(&mut self, commands: Vec<Command>, mut process: Process) -> Result<Applied, PublishError> {
        // A full disk shows here, before anything is changed.
        let staged = self.stage()?;
        // Only a changed template makes servers anew, and it may be wrong: a server that works must not be lost for it.
        if commands.iter().any(|command| command.action == Action::Delete) {
            self.check()?;
        }
        let words: Vec<String> = commands.iter().map(ToString::to_string).collect();
        let answers = self.steps.time("apply", || process.session.ask_all(&words)).inspect_err(|_| {
            // What was carried out is not known: the next run reloads.
            let _ = remove_if_there(&self.record);
        })?;
        let (mut done, mut kept) = (Vec::new(), Vec::new());
        for (command, answer) in commands.into_iter().zip(answers) {
            if command.action.is_done(&answer) {
                done.push(command);
            } else if command.action == Action::DeleteWhenIdle {
                kept.push(command.server);
            } else {
                drop(staged);
                self.touched = true;
                return self.reload(format!("HAProxy answers '{answer}' to '{command}'"));
            }
        }
        if let Some(staged) = staged {
            self.commit(staged)?;
        }
        self.note(&process, &kept)?;
        Ok(if done.is_empty() { Applied::Nothing } else { Applied::Commands(done) })
    }

    /// Records what runs after commands, if that differs from what is recorded. `kept` are the servers that wait for
    /// their last connections.
    fn note(&self, process: &Process, kept: &[String]) -> Result<(), PublishError> {
        let Some(before) = &process.running else { return Ok(()) };
        let mut leaving = Vec::new();
        if !kept.is_empty() {
            let known = Config::parse(&before.text).servers;
            let all = known.into_iter().chain(before.leaving()).map(|(key, line)| (key.to_string(), line));
            leaving.extend(all.filter(|(key, _)| kept.contains(key)).map(|(key, line)| format!("{key} {line}")));
        }
        if process.is_recorded && before.text == self.text && before.leaving == leaving {
            return Ok(());
        }
        self.store(&LastApplied { text: self.text.clone(), leaving }, &process.session)
    }

    /// Replaces the file after HAProxy found it valid, and lets HAProxy read it.
    fn reload(&mut self, reason: String) -> Result<Applied, PublishError> {
        self.read_anew()?;
        self.touched = false;
        if let Some(session) = haproxy::find(&self.options.master_socket, &self.options.admin_socket)? {
            self.store(&LastApplied { text: self.text.clone(), leaving: Vec::new() }, &session)?;
        }
        Ok(Applied::Reload(reason))
    }

    /// After an error: a process that was changed already reads the old file again.
    fn settle(&self) {
        if self.touched {
            // The error that led here is the one to tell; what fails here as well is mended by the next run.
            let _ = remove_if_there(&self.record);
            let _ = haproxy::reload(&self.options.master_socket);
        }
    }

    fn read_anew(&self) -> Result<(), PublishError> {
        let staged = self.stage()?;
        let replaced = staged.is_some();
        if let Some(staged) = staged {
            self.check()?;
            self.commit(staged)?;
        }
        self.steps.time("apply", || haproxy::reload(&self.options.master_socket)).inspect_err(|_| {
            if replaced {
                self.put_back();
            }
        })?;
        Ok(())
    }

    /// Puts the last good file back. If that fails as well, the next run mends it.
    fn put_back(&self) {
        let _ = match &self.old {
            Some(old) => replace(&self.options.config, old.as_bytes(), MODE),
            None => remove_if_there(&self.options.config).map(drop),
        };
    }

    fn stage(&self) -> Result<Option<Staged>, PublishError> {
        if !self.differs {
            return Ok(None);
        }
        let staged = self.steps.time("write", || Staged::write(&self.options.config, &[self.text.as_bytes()], MODE));
        staged.map(Some).map_err(|source| PublishError::Write { path: self.options.config.clone(), source })
    }

    fn commit(&self, staged: Staged) -> Result<(), PublishError> {
        staged.commit().map_err(|source| PublishError::Write { path: self.options.config.clone(), source })
    }

    fn store(&self, running: &LastApplied, session: &Session) -> Result<(), PublishError> {
        self.steps
            .time("write", || running.store(&self.record, Reader::Worker(session.worker())))
            .map_err(|source| PublishError::Write { path: self.record.clone(), source })
    }

    fn check(&self) -> Result<(), PublishError> {
        self.refusal(&self.text)?.map_or(Ok(()), |words| Err(HaproxyError::Refused(words).into()))
    }

    /// HAProxy's words about a text that it refuses.
    fn refusal(&self, text: &str) -> Result<Option<String>, PublishError> {
        match self.steps.time("check", || haproxy::check(text, &self.options.config)) {
            // Without the program nothing can run the file here either.
            Ok(()) | Err(HaproxyError::Program(ProgramError::Missing { .. })) => Ok(None),
            Err(HaproxyError::Refused(words)) => Ok(Some(words)),
            Err(error) => Err(error.into()),
        }
    }
}
