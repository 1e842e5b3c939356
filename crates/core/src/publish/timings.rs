//! How long each step of a publish takes.

use std::time::{Duration, Instant};

/// A stopwatch whose laps have names.
#[derive(Debug)]
pub(super) struct Timings {
    start: Instant,
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Timings {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, laps: Vec::new() }
    }

    /// Ends a lap: the time since the last one was spent on this step. A step that comes again adds up.
    pub(super) fn lap(&mut self, step: &'static str) {
        let now = Instant::now();
        let time = now - self.last;
        self.last = now;
        match self.laps.iter_mut().find(|(name, _)| *name == step) {
            Some((_, sum)) => *sum += time,
            None => self.laps.push((step, time)),
        }
    }

    /// The times of all steps in the order of their first laps, and at last the whole.
    pub(super) fn end(mut self) -> Vec<(&'static str, Duration)> {
        self.laps.push(("total", self.start.elapsed()));
        self.laps
    }
}
