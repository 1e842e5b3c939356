//! The ACME client, which is the program uacme.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lb_core::certificates::{Pem, acme_directory};
use lb_core::os::atomic_file::{remove_if_exists, replace};
use lb_core::os::command::run_command;
use lb_core::service::Host;
use serde_json::Value;

use crate::challenge;

/// Time limit of uacme. It tries three times when the authority does not answer, and waits for its checks.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum length of what the authority is quoted with, in characters.
const MAX_QUOTED: usize = 300;

/// An e-mail address, as far as it matters here: it is no option of uacme.
#[derive(Debug, Clone)]
pub(crate) struct Email(String);

impl FromStr for Email {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_address = text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        let is_word = !text.starts_with('-') && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if is_address && is_word { Ok(Self(text.to_owned())) } else { Err("must be an e-mail address") }
    }
}

/// The URL of an authority's directory.
#[derive(Debug, Clone)]
pub(crate) struct Url(String);

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_url = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace));
        if is_url { Ok(Self(text.to_owned())) } else { Err("must begin with https://") }
    }
}

/// How to run uacme.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    /// This program, which is also uacme's hook.
    pub(crate) program: PathBuf,
    pub(crate) directory: Option<&'a Url>,
    pub(crate) email: &'a Email,
    pub(crate) certs_dir: &'a Path,
    pub(crate) master_socket: &'a Path,
}

impl Client<'_> {
    /// Makes sure that there is an account.
    pub(crate) fn register(&self) -> Result<()> {
        let email = self.email.0.as_str();
        let wanted = format!("{email} {}\n", self.directory.map_or("", |url| &url.0));
        if fs::read_to_string(self.account()).is_ok_and(|account| account == wanted) {
            return Ok(());
        }
        if let Err(reason) = self.uacme(&["--yes", "new", email])? {
            // With the same key, of which only the address may differ.
            if !reason.starts_with("Account already exists") {
                bail!("no account: {reason}");
            }
            if let Err(reason) = self.uacme(&["update", email])? {
                bail!("no account: {reason}");
            }
        }
        replace(&self.account(), wanted.as_bytes(), 0o600).with_context(|| format!("write {}", self.account().display()))
    }

    /// Gets a new certificate for a host.
    pub(crate) fn issue(&self, host: &Host) -> Result<()> {
        let Err(reason) = self.uacme(&["--force", "issue", host.as_str()])? else { return Ok(()) };
        if reason.contains("account") {
            // The authority may have forgotten it: the next try makes sure that it is there.
            let _ = remove_if_exists(&self.account());
        }
        bail!(reason)
    }

    /// The last certificate for a host, with its key.
    pub(crate) fn stored(&self, host: &Host) -> Option<Pem> {
        let state = acme_directory(self.certs_dir);
        let certificate = fs::read(state.join(host.as_str()).join("cert.pem")).ok()?;
        let key = fs::read(state.join("private").join(host.as_str()).join("key.pem")).ok()?;
        Pem::parse(&[certificate, b"\n".to_vec(), key].concat()).ok()
    }

    /// The file that says which account there is.
    fn account(&self) -> PathBuf {
        acme_directory(self.certs_dir).join("account")
    }

    /// Runs uacme. The inner error is its reason in one line.
    fn uacme(&self, arguments: &[&str]) -> Result<Result<(), String>> {
        let mut command = Command::new("uacme");
        command.arg("--confdir").arg(acme_directory(self.certs_dir)).arg("--hook").arg(&self.program);
        if let Some(url) = self.directory {
            command.args(["--acme-url", &url.0]);
        }
        command.args(arguments).envs(self.hook_options());
        let output = run_command(command, "", TIMEOUT)?;
        Ok(if output.status.success() { Ok(()) } else { Err(cause(&output.stderr)) })
    }

    /// The options of this program as uacme's hook, which is called without any.
    fn hook_options(&self) -> [(&'static str, OsString); 6] {
        [
            ("ACME_EMAIL", self.email.0.clone().into()),
            ("CERTS_DIR", self.certs_dir.into()),
            ("HAPROXY_MASTER_SOCKET", self.master_socket.into()),
            // What the hook says becomes a part of the line that this program logs.
            ("SERF_LOG", "/dev/null".into()),
            ("LOG_FORMAT", "text".into()),
            ("LC_ALL", "C".into()),
        ]
    }
}

/// What went wrong, in one line: what this program said as the hook, or the authority's own words, or uacme's first error.
fn cause(said: &str) -> String {
    let hook = || said.lines().find_map(|line| line.strip_prefix(challenge::PREFIX)).map(str::to_owned);
    let uacme = || {
        said.lines()
            .filter_map(|line| line.strip_prefix("uacme: "))
            .find(|line| !line.starts_with("terms at "))
            .map(str::to_owned)
    };
    let text = hook().or_else(|| detail(said)).or_else(uacme).unwrap_or_else(|| "uacme does not say why".to_owned());
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The field `detail` of the authority's answer (RFC 7807), with the type of the error if that says more than it.
fn detail(said: &str) -> Option<String> {
    let (_, answer) = said.split_once("the server reported the following error:")?;
    let answer = serde_json::Deserializer::from_str(answer).into_iter::<Value>().next()?.ok()?;
    let kind = answer.get("type").and_then(Value::as_str).and_then(|kind| kind.rsplit(':').next()).unwrap_or_default();
    let detail = answer.get("detail").and_then(Value::as_str).unwrap_or_default();
    Some(format!("{kind}: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_s_own_words_come_before_uacme_s() {
        let refused = "uacme: failed to create new order at https://localhost/order
uacme: the server reported the following error:
{
    \"type\": \"urn:ietf:params:acme:error:rejectedIdentifier\",
    \"detail\": \"forbidden by\\npolicy\",
    \"status\": 400
}
uacme: failed to authorize order at https://localhost/my-order/1
";
        assert_eq!(cause(refused), "rejectedIdentifier: forbidden by policy");
        let hook = "renew-certs: haproxy.cfg does not answer\nuacme: no challenge completed\n";
        assert_eq!(cause(hook), "haproxy.cfg does not answer");
    }

    #[test]
    fn without_them_the_first_error_counts() {
        let away = "uacme: curl_get: GET https://localhost/dir failed: Could not connect to server
uacme: curl_get: waiting 5 seconds before retrying
uacme: failed to fetch directory at https://localhost/dir
";
        assert_eq!(cause(away), "curl_get: GET https://localhost/dir failed: Could not connect to server");
        assert_eq!(
            cause("uacme: the server reported the following error:\n{nonsense"),
            "the server reported the following error:"
        );
        assert_eq!(cause(""), "uacme does not say why");
        assert_eq!(cause(&format!("uacme: {}", "é".repeat(500))).chars().count(), MAX_QUOTED + 1);
    }

    #[test]
    fn addresses_and_urls_are_no_options() {
        for bad in ["", "me", "@x", "me@", "-e@x", "me @x", "me@x\n"] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
        for bad in ["", "https://", "http://x/dir", "https://x y", "--staging"] {
            assert!(bad.parse::<Url>().is_err(), "{bad:?}");
        }
        assert!("me+acme@shop.example".parse::<Email>().is_ok() && "https://ca.example/dir".parse::<Url>().is_ok());
    }
}
