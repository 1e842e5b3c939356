//! Publishing: rendering the registry into the configuration file, and applying that to the running process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use crate::config::{Config, ServerKey, ServerLine};
use crate::haproxy::ProcessOptions;
use crate::haproxy::command::{Action, Command};
use crate::haproxy::last_applied::{LastApplied, RecordedFor, record_path};
use crate::haproxy::observe::{Process, SERVERS, discard_start, record_start};
use crate::haproxy::plan::{Plan, plan};
use crate::haproxy::{self, HaproxyError, Observation, Session, parse_servers};
use crate::os::atomic_file::{Staged, TEMP_NAME, remove_if_exists, replace};
use crate::os::command::ProgramError;
use crate::registry::Registry;

mod candidate;
mod certificates;
mod error;
pub mod lock;
mod options;
pub mod outcome;
pub mod stats;
pub mod summary;
mod target;
mod timings;

pub use candidate::{Candidate, known};
use certificates::Given;
pub use error::PublishError;
use lock::Lock;
pub use options::PublishOptions;
pub use outcome::{Applied, Outcome};
use stats::{Stats, stats_path};
use target::Target;
use timings::Timings;

/// Permissions of the configuration file: everyone in the container may read it.
const MODE: u32 = 0o644;

/// Reads the registry, changes it, renders it, replaces the file if it changes, and makes the running HAProxy equal to it.
/// `change` may ask the observed HAProxy whom it reaches. Nodes that would make HAProxy reject the configuration are excluded,
/// and bad certificates are not used. When anything fails, the last good file and process stay. The caller holds the lock.
///
/// # Errors
/// [`PublishError`].
pub fn publish(
    options: &PublishOptions,
    _lock: &Lock,
    change: impl FnOnce(&mut Registry, &mut Observation) -> Result<(), PublishError>,
) -> Result<Outcome, PublishError> {
    let mut publisher = Publisher::new(&options.process);
    let result = publisher.publish(options, change);
    publisher.count(result)
}

/// Renders the registry, and replaces the file if it changes and HAProxy finds it valid, without the nodes that it would
/// reject; the process is not changed. `settings` are additional names for the template. If HAProxy is not running, the
/// caller's parent may be about to become HAProxy, so what it will read is recorded. The caller holds the lock.
///
/// # Errors
/// [`PublishError`].
pub fn write_file(options: &PublishOptions, settings: BTreeMap<String, String>, _lock: &Lock) -> Result<Outcome, PublishError> {
    let mut publisher = Publisher::new(&options.process);
    let result = publisher.write_file(options, settings);
    publisher.count(result)
}

/// Makes the running HAProxy equal to the file as it is; `force` reloads even if nothing differs.
/// The caller holds the lock.
///
/// # Errors
/// [`PublishError`].
pub fn apply_file(options: &ProcessOptions, force: bool, _lock: &Lock) -> Result<Outcome, PublishError> {
    let mut publisher = Publisher::new(options);
    let result = publisher.apply_file(force);
    publisher.count(result)
}

/// What [`apply_file`] would do; `None` if HAProxy is not running.
///
/// # Errors
/// [`PublishError`].
pub fn plan_file(options: &ProcessOptions) -> Result<Option<Plan>, PublishError> {
    let observation = Observation::begin(options);
    let target = Target::current(options)?;
    let process = observation.end(target.old.as_deref())?;
    let Some(process) = process else { return Ok(None) };
    let publisher = Publisher::new(options);
    match (plan_for(&target.text, &process)?, publisher.certificates.plan(&target.text, process.last_applied.as_ref())) {
        (Plan::Commands(_), Err(reason)) => Ok(Some(Plan::Reload(reason))),
        (plan, _) => Ok(Some(plan)),
    }
}

/// One publish under way.
struct Publisher<'a> {
    options: &'a ProcessOptions,
    timings: Timings,
    /// Whether some commands were executed, but not all that were needed.
    is_half_applied: bool,
    certificates: Given,
}

impl<'a> Publisher<'a> {
    fn new(options: &'a ProcessOptions) -> Self {
        let certificates = Given::new(&options.master_socket);
        Self { options, timings: Timings::start(), is_half_applied: false, certificates }
    }

    fn publish(
        &mut self,
        options: &PublishOptions,
        change: impl FnOnce(&mut Registry, &mut Observation) -> Result<(), PublishError>,
    ) -> Result<Outcome, PublishError> {
        // HAProxy prepares its answer while the registry is read.
        let mut observation = Observation::begin(self.options);
        let mut registry = Registry::read(&options.render.nodes_dir)?;
        change(&mut registry, &mut observation)?;
        self.certificates.update(&options.render.certs_dir);
        let mut candidate = Candidate::of(registry, options, BTreeMap::new())?;
        let mut target = Target::new(self.options, candidate.text()?)?;
        self.certificates.check_use(&target.text);
        self.timings.lap("render");
        let process = observation.end(target.old.as_deref())?;
        self.timings.lap("ask");

        let mut applied = self.apply(&target, process, false);
        if self.exclude_offenders(&mut candidate, &applied) {
            target = target.with_text(candidate.text()?);
            let observed = Observation::begin(self.options).end(target.old.as_deref());
            applied = observed.map_err(PublishError::from).and_then(|process| self.apply(&target, process, false));
        }
        let applied = applied.inspect_err(|_| self.restore_process())?;
        Ok(Outcome::new(target.old.as_deref(), &target.text, applied).with_omitted(candidate))
    }

    fn write_file(&mut self, options: &PublishOptions, settings: BTreeMap<String, String>) -> Result<Outcome, PublishError> {
        self.certificates.update(&options.render.certs_dir);
        let mut candidate = Candidate::read(options, settings)?;
        let mut target = Target::new(self.options, candidate.text()?)?;
        self.certificates.check_use(&target.text);
        self.timings.lap("render");

        let mut written = self.write(&target);
        if self.exclude_offenders(&mut candidate, &written) {
            target = target.with_text(candidate.text()?);
            written = self.write(&target);
        }
        let applied = written?;
        if haproxy::is_down(&self.options.master_socket) {
            record_start(self.options, &self.applied(&target, BTreeMap::new()));
        }
        Ok(Outcome::new(target.old.as_deref(), &target.text, applied).with_omitted(candidate))
    }

    fn apply_file(&mut self, force: bool) -> Result<Outcome, PublishError> {
        let observation = Observation::begin(self.options);
        let target = Target::current(self.options)?;
        let process = observation.end(target.old.as_deref())?;
        self.timings.lap("ask");
        let applied = self.apply(&target, process, force).inspect_err(|_| self.restore_process())?;
        Ok(Outcome::new(target.old.as_deref(), &target.text, applied))
    }

    /// Makes the process equal to the target, and the file with it.
    fn apply(&mut self, target: &Target, process: Option<Process>, force: bool) -> Result<Applied, PublishError> {
        let Some(process) = process else {
            if target.differs() || self.certificates.has_changed() {
                // A HAProxy that is starting may read this file or the previous one.
                discard_start(self.options);
            }
            return self.write(target).map(|_| Applied::NotRunning);
        };
        let plan = plan_for(&target.text, &process)?;
        let renewed = self.certificates.plan(&target.text, process.last_applied.as_ref());
        self.timings.lap("plan");
        match (plan, renewed) {
            _ if force => self.reload(target, "forced".to_owned()),
            (Plan::Reload(reason), _) | (_, Err(reason)) => self.reload(target, reason),
            (Plan::Commands(commands), Ok(renewed)) => self.run(target, commands, renewed, process),
        }
    }

    /// Replaces the file if it differs and HAProxy accepts it.
    fn write(&mut self, target: &Target) -> Result<Applied, PublishError> {
        if let Some(staged) = self.stage(target)? {
            self.check(&target.text)?;
            self.commit(staged)?;
        }
        Ok(Applied::Nothing)
    }

    /// Runs the commands, then replaces the file and records the running configuration.
    fn run(
        &mut self,
        target: &Target,
        commands: Vec<Command>,
        renewed: Vec<String>,
        mut process: Process,
    ) -> Result<Applied, PublishError> {
        // A full disk is noticed here, before anything is changed.
        let staged = self.stage(target)?;
        // Servers are only recreated after a change of the template. If that is invalid, a working server must not be lost.
        if commands.iter().any(|command| command.action == Action::Delete) {
            self.check(&target.text)?;
        }
        // After an error it is unknown which commands were executed, so the next run must reload.
        let forget = |_: &HaproxyError| drop(remove_if_exists(&record_path(&self.options.master_socket)));
        let lines: Vec<String> = commands.iter().map(ToString::to_string).collect();
        let answers = process.session.ask_all(&lines).inspect_err(forget)?;
        let refusal = self.certificates.renew(&renewed, &mut process.session).inspect_err(forget)?;
        self.timings.lap("apply");
        if let Some(reason) = refusal {
            drop(staged);
            self.is_half_applied = true;
            return self.reload(target, reason);
        }
        let (mut done, mut leaving) = (Vec::new(), BTreeSet::new());
        for (command, answer) in commands.into_iter().zip(answers) {
            if command.action.is_done(&answer) {
                done.push(command);
            } else if command.action == Action::DeleteWhenIdle {
                leaving.insert(command.server);
            } else {
                drop(staged);
                self.is_half_applied = true;
                return self.reload(target, format!("HAProxy answered '{answer}' to '{command}'"));
            }
        }
        if let Some(staged) = staged {
            self.commit(staged)?;
        }
        self.record_commands(target, &process, &leaving)?;
        Ok(if done.is_empty() && renewed.is_empty() { Applied::Nothing } else { Applied::Commands(done) })
    }

    /// Updates the record after commands, if it differs. The servers in `leaving` still have connections.
    fn record_commands(&mut self, target: &Target, process: &Process, leaving: &BTreeSet<ServerKey>) -> Result<(), PublishError> {
        let Some(before) = &process.last_applied else { return Ok(()) };
        let mut lines = BTreeMap::new();
        if !leaving.is_empty() {
            lines = Config::parse(&before.text).servers;
            lines.extend(before.leaving.clone());
            lines.retain(|key, _| leaving.contains(key));
        }
        let now = self.applied(target, lines);
        if process.is_recorded && *before == now { Ok(()) } else { self.store(&now, &process.session) }
    }

    /// Replaces the file if HAProxy accepts it, reloads HAProxy, and records that.
    fn reload(&mut self, target: &Target, reason: String) -> Result<Applied, PublishError> {
        let staged = self.stage(target)?;
        let is_replaced = staged.is_some();
        if let Some(staged) = staged {
            self.check(&target.text)?;
            self.commit(staged)?;
        }
        haproxy::reload(&self.options.master_socket).inspect_err(|_| {
            if is_replaced {
                self.restore_file(target);
            }
        })?;
        self.is_half_applied = false;
        self.timings.lap("apply");
        if let Some(session) = haproxy::find(&self.options.master_socket, &self.options.admin_socket)? {
            self.store(&self.applied(target, BTreeMap::new()), &session)?;
        }
        Ok(Applied::Reload(reason))
    }

    /// Restores the last good file. If that fails as well, the next run repairs it.
    fn restore_file(&self, target: &Target) {
        let _ = match &target.old {
            Some(old) => replace(&self.options.config, old.as_bytes(), MODE),
            None => remove_if_exists(&self.options.config).map(drop),
        };
    }

    /// After an error, makes a process that was partly changed read the old file again.
    fn restore_process(&mut self) {
        self.certificates.undo();
        if self.is_half_applied {
            // The error that led here is the one to report; if this fails as well, the next run repairs it.
            let _ = remove_if_exists(&self.record());
            let _ = haproxy::reload(&self.options.master_socket);
        }
    }

    /// If HAProxy rejected the candidate, finds and excludes the nodes that caused it. Returns whether the candidate is worth
    /// another try.
    fn exclude_offenders(&mut self, candidate: &mut Candidate, applied: &Result<Applied, PublishError>) -> bool {
        let Err(PublishError::Haproxy(HaproxyError::Rejected(reason))) = applied else { return false };
        // If the search fails, the rejection is the error to report.
        candidate.exclude_offenders(reason, |text| self.rejection(text)).unwrap_or(false)
    }

    /// The record of a process that has the target's text.
    fn applied(&self, target: &Target, leaving: BTreeMap<ServerKey, ServerLine>) -> LastApplied {
        LastApplied { text: target.text.clone(), leaving, certificates: self.certificates.fingerprints(&target.text) }
    }

    fn stage(&mut self, target: &Target) -> Result<Option<Staged>, PublishError> {
        if !target.differs() {
            return Ok(None);
        }
        let staged =
            Staged::write(&self.options.config, &[target.text.as_bytes()], MODE).map_err(|source| self.write_error(source))?;
        self.timings.lap("write");
        Ok(Some(staged))
    }

    fn commit(&mut self, staged: Staged) -> Result<(), PublishError> {
        staged.commit().map_err(|source| self.write_error(source))?;
        self.timings.lap("write");
        Ok(())
    }

    fn write_error(&self, source: io::Error) -> PublishError {
        PublishError::Write { path: self.options.config.clone(), source }
    }

    fn store(&mut self, last_applied: &LastApplied, session: &Session) -> Result<(), PublishError> {
        let path = self.record();
        last_applied
            .store(&path, RecordedFor::Worker(session.worker()))
            .map_err(|source| PublishError::Write { path, source })?;
        self.timings.lap("write");
        Ok(())
    }

    fn record(&self) -> PathBuf {
        record_path(&self.options.master_socket)
    }

    fn check(&mut self, text: &str) -> Result<(), PublishError> {
        self.rejection(text)?.map_or(Ok(()), |reason| Err(HaproxyError::Rejected(reason).into()))
    }

    /// HAProxy's message about a text that it rejects.
    fn rejection(&mut self, text: &str) -> Result<Option<String>, PublishError> {
        let answer = haproxy::check(text, &self.options.config);
        self.timings.lap("check");
        match answer {
            // Without HAProxy installed, nothing will run the file here.
            Ok(()) | Err(HaproxyError::Program(ProgramError::Missing { .. })) => Ok(None),
            Err(HaproxyError::Rejected(reason)) => Ok(Some(reason)),
            Err(error) => Err(error.into()),
        }
    }

    /// Updates the statistics. A publish that changes nothing is not counted, and writes nothing.
    fn count(mut self, result: Result<Outcome, PublishError>) -> Result<Outcome, PublishError> {
        let path = stats_path(&self.options.master_socket);
        let mut outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                self.certificates.undo();
                Stats::update(&path, |stats| stats.failed += 1);
                return Err(error);
            }
        };
        (outcome.certificates, outcome.certificate_problems) = self.certificates.into_outcome();
        if outcome.changed() {
            outcome.times = self.timings.end();
            outcome.generation = Stats::update(&path, |stats| stats.add(&outcome)).generation();
        } else {
            // Without a write, the temporary file of a killed writer would stay.
            let _ = remove_if_exists(&path.with_file_name(TEMP_NAME));
        }
        Ok(outcome)
    }
}

fn plan_for(text: &str, process: &Process) -> Result<Plan, PublishError> {
    let servers = parse_servers(&process.servers).ok_or_else(|| process.session.unexpected(SERVERS))?;
    Ok(plan(text, process.last_applied.as_ref(), &servers))
}
