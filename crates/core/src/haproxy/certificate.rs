//! Certificates and HAProxy: whether it accepts one, and replacing one at run time.

use std::collections::BTreeMap;
use std::path::Path;

use super::{HaproxyError, Session, check};
use crate::certificates::Pem;

/// Maximum size of a certificate in a command, in bytes. With the command it has to fit into one of HAProxy's buffers of 16 kB,
/// of which a kilobyte is kept free (`tune.bufsize`, `tune.maxrewrite`).
const MAX_PAYLOAD: usize = 14_000;

/// HAProxy's reason to reject the certificate file `path`, if it has one.
///
/// # Errors
/// [`HaproxyError::Program`] if `haproxy` cannot be run.
pub fn rejection(path: &Path) -> Result<Option<String>, HaproxyError> {
    let path = path.to_string_lossy();
    // Nothing is bound by a check.
    let text = format!("defaults\n    mode http\n    timeout client 1s\nfrontend f\n    bind :1 ssl crt {path}\n");
    match check(&text, Path::new("")) {
        Err(HaproxyError::Rejected(reason)) => {
            // What is before it is about the line above.
            let reason = reason.rsplit_once("' : ").map_or(reason.as_str(), |(_, reason)| reason);
            Ok(Some(reason.to_owned()))
        }
        result => result.map(|()| None),
    }
}

/// Names of the certificates that have to be replaced at run time. `wanted` and `running` are the fingerprints of those that
/// HAProxy should have and those that it has loaded.
///
/// # Errors
/// Why a reload is needed instead.
pub fn plan(wanted: &BTreeMap<String, u64>, running: &BTreeMap<String, u64>) -> Result<Vec<String>, String> {
    if let Some(name) = running.keys().find(|name| !wanted.contains_key(*name)) {
        return Err(format!("certificate {name} is gone"));
    }
    let mut renewed = Vec::new();
    for (name, fingerprint) in wanted {
        match running.get(name) {
            None => return Err(format!("certificate {name} is new")),
            Some(running) if running == fingerprint => {}
            Some(_) => renewed.push(name.clone()),
        }
    }
    Ok(renewed)
}

/// Replaces a certificate at run time. Connections that exist keep the old one. Returns why that needs a
/// reload instead, if so.
///
/// # Errors
/// [`HaproxyError`] if the worker does not answer.
pub fn renew(session: &mut Session, path: &Path, pem: &Pem) -> Result<Option<String>, HaproxyError> {
    if pem.as_str().len() > MAX_PAYLOAD {
        return Ok(Some("it is too long for a command".to_owned()));
    }
    let path = path.display();
    let created = session.ask(&format!("set ssl cert {path} <<\n{}", pem.as_str()))?;
    if !created.contains("Transaction created") && !created.contains("Transaction updated") {
        // HAProxy prompts for each line of a certificate.
        return Ok(Some(created.trim_start_matches("+ ").replace('\n', " ")));
    }
    let committed = session.ask(&format!("commit ssl cert {path}"))?;
    if committed.contains("Success!") {
        return Ok(None);
    }
    session.ask(&format!("abort ssl cert {path}"))?;
    Ok(Some(committed.replace('\n', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_certificate_is_renewed_and_another_set_of_them_needs_a_reload() {
        let run = |wanted: &[(&str, u64)], running: &[(&str, u64)]| {
            let [wanted, running] =
                [wanted, running].map(|all| all.iter().map(|(name, hash)| ((*name).to_owned(), *hash)).collect());
            plan(&wanted, &running).map(|names| names.join(" "))
        };
        for (wanted, running, expected) in [
            (&[][..], &[][..], Ok("")),
            (&[("a", 1), ("b", 2)], &[("a", 1), ("b", 2)], Ok("")),
            (&[("a", 3), ("b", 4)], &[("a", 1), ("b", 2)], Ok("a b")),
            (&[("a", 1), ("b", 3)], &[("a", 1), ("b", 2)], Ok("b")),
            (&[("a", 1), ("b", 2)], &[("a", 3)], Err("certificate b is new")),
            (&[("a", 1)], &[("a", 3), ("b", 2)], Err("certificate b is gone")),
        ] {
            assert_eq!(run(wanted, running), expected.map(str::to_owned).map_err(str::to_owned));
        }
    }
}
