//! Measuring the steps of a publish.

use std::time::{Duration, Instant};

/// A stopwatch with named laps.
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

    /// Ends a lap: adds the time since the last lap to this step.
    pub(super) fn lap(&mut self, step: &'static str) {
        let now = Instant::now();
        let time = now - self.last;
        self.last = now;
        match self.laps.iter_mut().find(|(name, _)| *name == step) {
            Some((_, sum)) => *sum += time,
            None => self.laps.push((step, time)),
        }
    }

    /// The durations of all steps, in the order of their first laps, and `total` at the end.
    pub(super) fn end(mut self) -> Vec<(&'static str, Duration)> {
        self.laps.push(("total", self.start.elapsed()));
        self.laps
    }
}
