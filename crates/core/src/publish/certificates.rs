//! The certificates in a publish.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};

use crate::certificates::{Certificates, Update, directory, fingerprint, installed, update};
use crate::haproxy::last_applied::LastApplied;
use crate::haproxy::{HaproxyError, Session, certificate};
use crate::os::command::ProgramError;

/// The certificates that HAProxy is given.
pub(super) struct Given {
    directory: PathBuf,
    certificates: Certificates,
    update: Update,
    /// Names of those that [`Given::renew`] has replaced.
    renewed: BTreeSet<String>,
}

impl Given {
    /// Those that are there.
    pub(super) fn new(master: &Path) -> Self {
        let directory = directory(master);
        Self { certificates: installed(&directory), directory, update: Update::default(), renewed: BTreeSet::new() }
    }

    /// Takes over what is new and good in `source`, and drops what is gone there.
    pub(super) fn update(&mut self, source: &Path) {
        self.update = update(source, &self.directory, |path| match certificate::rejection(path) {
            Ok(reason) => reason,
            // Without HAProxy installed, nothing will load it here.
            Err(HaproxyError::Program(ProgramError::Missing { .. })) => None,
            Err(error) => Some(error.to_string()),
        });
        if self.has_changed() {
            self.certificates = installed(&self.directory);
        }
    }

    /// Whether [`Given::update`] has changed anything.
    pub(super) fn has_changed(&self) -> bool {
        self.update.changed().next().is_some()
    }

    /// Restores what was there before [`Given::update`].
    pub(super) fn undo(&mut self) {
        mem::take(&mut self.update).undo();
    }

    /// Names of those that were changed, in the directory or in the process, and what is wrong with others.
    pub(super) fn into_outcome(self) -> (BTreeSet<String>, BTreeSet<String>) {
        (self.update.changed().cloned().chain(self.renewed).collect(), self.update.problems)
    }

    /// Whether a HAProxy with the configuration `text` loads the directory.
    fn are_loaded(&self, text: &str) -> bool {
        text.contains(&*self.directory.to_string_lossy())
    }

    /// Notes it as a problem if the configuration `text` makes no use of the certificates.
    pub(super) fn check_use(&mut self, text: &str) {
        if !self.certificates.is_empty() && !self.are_loaded(text) {
            self.update.problems.insert("certificates are not used: the template has no {{certificates}}".to_owned());
        }
    }

    /// Fingerprints of those that a HAProxy with the configuration `text` has loaded.
    pub(super) fn fingerprints(&self, text: &str) -> BTreeMap<String, u64> {
        let mut fingerprints = BTreeMap::new();
        if self.are_loaded(text) {
            for (name, pem) in &self.certificates {
                fingerprints.insert(name.clone(), fingerprint(pem));
            }
        }
        fingerprints
    }

    /// Names of those that have to be replaced in a process so that it has those of the configuration `text`.
    ///
    /// # Errors
    /// Why a reload is needed instead.
    pub(super) fn plan(&self, text: &str, running: Option<&LastApplied>) -> Result<Vec<String>, String> {
        // A process of which nothing is known is reloaded anyway.
        running.map_or_else(|| Ok(Vec::new()), |running| certificate::plan(&self.fingerprints(text), &running.certificates))
    }

    /// Replaces certificates at run time. Returns why a reload is needed instead, if so.
    ///
    /// # Errors
    /// [`HaproxyError`] if the worker does not answer.
    pub(super) fn renew(&mut self, names: &[String], session: &mut Session) -> Result<Option<String>, HaproxyError> {
        for (name, pem) in names.iter().filter_map(|name| self.certificates.get_key_value(name)) {
            if let Some(answer) = certificate::renew(session, &self.directory.join(name), pem)? {
                return Ok(Some(format!("certificate {name}: {answer}")));
            }
            self.renewed.insert(name.clone());
        }
        Ok(None)
    }
}
