//! Where the thread that looks and the viewers' threads meet.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lb_core::haproxy::last_applied::ProcessId;

use crate::View;

/// Maximum number of viewers.
pub const MAX_VIEWERS: usize = 64;
/// Number of lines of the log that are kept for new viewers.
const MAX_LINES: usize = 200;

/// One look at the four states.
pub struct Look {
    /// What was seen.
    pub view: View,
    /// The same, as the page gets it: one line of JSON.
    pub json: String,
    /// Lines of the log since the look before, each as one line of JSON.
    pub lines: Vec<String>,
}

/// A look and its number.
#[derive(Clone)]
pub struct Numbered {
    /// Counts from 1.
    pub number: u64,
    /// The look.
    pub look: Arc<Look>,
}

impl Numbered {
    /// The worker of HAProxy that was seen.
    pub fn worker(&self) -> Option<ProcessId> {
        self.look.view.states.worker
    }
}

/// The viewers, the last look, and the last lines of the log.
pub struct Hub<'a> {
    state: Mutex<State>,
    changed: Condvar,
    /// The log file.
    pub log: &'a Path,
}

#[derive(Default)]
struct State {
    viewers: usize,
    looks: u64,
    /// Lines of the log so far.
    lines: u64,
    /// The last of them.
    story: VecDeque<String>,
    /// `None` if nobody was watching.
    last: Option<Numbered>,
}

/// One viewer, as long as the value lives.
pub struct Viewer<'a> {
    hub: &'a Hub<'a>,
    /// Number of the last look that it got.
    look: u64,
    /// Number of lines of the log that it got.
    lines: u64,
}

impl<'a> Hub<'a> {
    /// A hub without viewers.
    pub fn new(log: &'a Path) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), log }
    }

    /// Admits a viewer; `None` if there are [`MAX_VIEWERS`] already.
    pub fn admit(&self) -> Option<Viewer<'_>> {
        let mut state = self.lock();
        if state.viewers >= MAX_VIEWERS {
            return None;
        }
        state.viewers += 1;
        self.changed.notify_all();
        drop(state);
        Some(Viewer { hub: self, look: 0, lines: 0 })
    }

    /// Waits until there is a viewer, and returns whether there was none before.
    pub fn wait_for_viewer(&self) -> bool {
        let mut state = self.lock();
        let is_idle = state.viewers == 0;
        while state.viewers == 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        is_idle
    }

    /// Gives the look to all viewers.
    pub fn publish(&self, look: Look) {
        let mut state = self.lock();
        state.lines += look.lines.len() as u64;
        state.story.extend(look.lines.iter().cloned());
        let surplus = state.story.len().saturating_sub(MAX_LINES);
        state.story.drain(..surplus);
        state.looks += 1;
        // Nobody may have waited for it to end; the next viewer gets a new one.
        state.last = (state.viewers > 0).then(|| Numbered { number: state.looks, look: Arc::new(look) });
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewer<'_> {
    /// Waits for a look that it has not got yet, and returns it with the lines of the log that it has not got. If it was slow,
    /// it gets the last one, and no others.
    pub fn next(&mut self) -> (Numbered, Vec<String>) {
        let mut state = self.hub.lock();
        loop {
            if let Some(last) = state.last.clone().filter(|last| last.number > self.look) {
                let new = usize::try_from(state.lines - self.lines).unwrap_or(usize::MAX).min(state.story.len());
                let lines = state.story.iter().skip(state.story.len() - new).cloned().collect();
                (self.look, self.lines) = (last.number, state.lines);
                return (last, lines);
            }
            state = self.hub.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.viewers -= 1;
        if state.viewers == 0 {
            state.last = None;
        }
    }
}
