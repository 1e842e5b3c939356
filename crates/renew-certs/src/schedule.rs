//! When to ask for a certificate.

use std::time::{Duration, Instant, SystemTime};

use lb_core::certificates::Pem;

/// Maximum pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(12 * 60 * 60);

/// Whether a certificate should be renewed: two thirds of its time are over, or its times cannot be read. Of the 90 days of Let's
/// Encrypt, that leaves the 30 days that it recommends.
pub(crate) fn is_due(pem: &Pem, now: SystemTime) -> bool {
    let times = pem.validity().map(|times| times.map(humantime::parse_rfc3339));
    let Some([Ok(begin), Ok(end)]) = times else { return true };
    let lifetime = end.duration_since(begin).unwrap_or_default();
    end.duration_since(now).unwrap_or_default() < lifetime / 3
}

/// A try that has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    pause: Duration,
    /// When to try again.
    pub(crate) next: Instant,
}

impl Try {
    /// After a failure that came after the `last` one: the pause doubles, from `first` on. With two minutes, there are five tries
    /// in the first hour, which is as many as Let's Encrypt allows.
    pub(crate) fn after(last: Option<Self>, first: Duration) -> Self {
        let pause = last.map_or(first, |last| last.pause.saturating_mul(2)).min(MAX_PAUSE);
        Self { pause, next: Instant::now() + pause }
    }

    /// The pause, as text.
    pub(crate) fn pause(&self) -> humantime::FormattedDuration {
        humantime::format_duration(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use lb_fixture::certificate;

    use super::*;

    #[test]
    fn the_last_third_of_a_certificate_s_time_is_for_its_renewal() {
        let pem = Pem::parse(certificate(&["a.example"]).concat().as_bytes()).unwrap();
        let [begin, end] = pem.validity().unwrap().map(|time| humantime::parse_rfc3339(time).unwrap());
        assert_eq!(end.duration_since(begin).unwrap(), Duration::from_secs(86_400));
        let after = |hours: u64| begin + Duration::from_secs(hours * 3_600);
        for (now, due) in [(after(0), false), (after(15), false), (after(17), true), (after(25), true)] {
            assert_eq!(is_due(&pem, now), due, "{now:?}");
        }
    }

    #[test]
    fn pauses_grow_up_to_half_a_day() {
        let first = Duration::from_secs(120);
        let mut pauses = Vec::new();
        let mut last = None;
        for _ in 0..12 {
            let next = Try::after(last, first);
            pauses.push(next.pause().to_string());
            last = Some(next);
        }
        assert_eq!(pauses[..4], ["2m", "4m", "8m", "16m"]);
        assert_eq!(pauses[9..], ["12h", "12h", "12h"]);
    }
}
