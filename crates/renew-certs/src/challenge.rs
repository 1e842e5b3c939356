//! This program as uacme's hook: whether a challenge can be answered, and the answer.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_core::certificates::{is_thumbprint, thumbprint, thumbprint_path};
use lb_core::haproxy::last_applied::{LastApplied, record_path};
use lb_core::os::atomic_file::replace;
use lb_core::tool::Exit;
use lb_core::tool::wakeup::{pipe_path, wake};

use crate::RenewCerts;

/// What lines of this program begin with.
pub(crate) const PREFIX: &str = "renew-certs: ";
/// Time for `sync-nodes` to publish the account's thumbprint: it looks every 10 s without being woken.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Accepts a challenge of HTTP-01 once HAProxy answers it, and no other. `answer` is `TOKEN.THUMBPRINT` (RFC 8555, section 8.1).
/// Only the first one of an account has anything to wait for.
pub(crate) fn accept(tool: &RenewCerts, method: &str, kind: &str, answer: &str) -> Result<Exit> {
    if method != "begin" || kind != "http-01" {
        return Ok(if method == "begin" { Exit::Failed } else { Exit::Done });
    }
    let (_, wanted) = answer.rsplit_once('.').unwrap_or_default();
    ensure!(is_thumbprint(wanted), "uacme's answer to a challenge has no thumbprint");
    if thumbprint(&tool.certs_dir).as_deref() != Some(wanted) {
        let path = thumbprint_path(&tool.certs_dir);
        replace(&path, format!("{wanted}\n").as_bytes(), 0o644).with_context(|| format!("write {}", path.display()))?;
        // If nobody listens, the next look of `sync-nodes` is soon enough.
        let _ = wake(&pipe_path(&tool.master_socket));
    }
    let record = record_path(&tool.master_socket);
    let is_answered = || LastApplied::load(&record).is_some_and(|(_, running)| running.text.contains(wanted));
    let deadline = Instant::now() + TIMEOUT;
    while !is_answered() {
        ensure!(
            Instant::now() < deadline,
            "HAProxy does not answer challenges: is sync-nodes running, and does the template use {{{{acme}}}}?"
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok(Exit::Done)
}
