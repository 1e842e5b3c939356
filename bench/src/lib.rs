//! Code shared by the benchmarks.
//!
//! Each benchmark is one command, `bench/<name>`, which installs and builds what is missing. Candidates are measured in turns
//! within one run, because machines are shared and noisy: ratios hold elsewhere, absolute times do not.

use std::fs::{Permissions, set_permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

/// The percentile of the values for this share (nearest rank).
///
/// # Panics
/// If there is no value, or one is not a number.
#[must_use]
pub fn percentile<T: Copy + PartialOrd>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// A duration in milliseconds, for a table.
#[must_use]
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1000.0)
}

/// A directory that a container's user can read.
///
/// # Errors
/// Those of the file system.
pub fn shared_folder() -> io::Result<TempDir> {
    let folder = TempDir::new()?;
    set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// The machine that the figures are from: processor, cores, memory, kernel.
#[must_use]
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map_or("?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kilobytes: u64 = value(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    format!(
        "{cores} cores of {}, {} GiB, Linux {}",
        value(&read("/proc/cpuinfo"), "model name"),
        kilobytes.div_ceil(1024 * 1024),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_by_their_rank() {
        let values: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0.5), Duration::from_millis(10));
        assert_eq!(percentile(&values, 0.95), Duration::from_millis(19));
        assert_eq!(percentile(&values, 1.0), Duration::from_millis(20));
        assert_eq!(percentile(&values[..1], 0.5), Duration::from_millis(20));
    }
}
