//! Certificates: the files that an operator gives, and those of them that HAProxy is given.
//!
//! Good files are copied to a directory of the tools' own, which HAProxy loads as a whole: one bad file would otherwise keep
//! it from starting. What is in that directory is the last good state of each certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::{getegid, geteuid};

use crate::os::atomic_file::{Staged, TEMP_NAME, remove_if_exists, replace};
use crate::os::escape::Quoted;
use crate::os::permissions::check_directory;
use crate::os::read_file::{read, read_text};

mod pem;

pub use pem::{Pem, PemError};

/// Maximum size of a certificate file in bytes; a chain of three with an RSA key of 4,096 bits has less than 12 kB.
const MAX_SIZE: u64 = 100_000;
/// Permissions of a file with a private key.
const MODE: u32 = 0o600;

/// Certificates by the names of their files.
pub type Certificates = BTreeMap<String, Pem>;

/// The directory of the certificates that HAProxy is given, next to the master socket.
#[must_use]
pub fn directory(master: &Path) -> PathBuf {
    master.with_file_name("certs")
}

/// The certificates that HAProxy is given. A file that is not as the tools write it is left out.
#[must_use]
pub fn installed(directory: &Path) -> Certificates {
    let mut certificates = Certificates::new();
    for name in list(directory).unwrap_or_default() {
        let pem = read(&directory.join(&name)).ok().and_then(|text| Pem::parse(&text).ok());
        if let Some(pem) = pem {
            certificates.insert(name, pem);
        }
    }
    certificates
}

/// What a template knows as `{{certificates}}`: the directory of the certificates that HAProxy is given, or nothing if there are
/// none.
#[must_use]
pub fn for_template(master: &Path) -> String {
    let directory = directory(master);
    let has_any = list(&directory).is_ok_and(|names| !names.is_empty());
    if has_any { directory.to_string_lossy().into_owned() } else { String::new() }
}

/// The directory of the ACME account, in that of the certificates.
#[must_use]
pub fn acme_directory(source: &Path) -> PathBuf {
    source.join("acme")
}

/// The file with the thumbprint of the ACME account.
#[must_use]
pub fn thumbprint_path(source: &Path) -> PathBuf {
    acme_directory(source).join("thumbprint")
}

/// The thumbprint of the ACME account (RFC 8555, section 8.1), if there is one: with it, HAProxy can answer every challenge.
#[must_use]
pub fn thumbprint(source: &Path) -> Option<String> {
    read_text(&thumbprint_path(source)).ok().map(|text| text.trim_end().to_owned()).filter(|text| is_thumbprint(text))
}

/// Whether it is a SHA-256 in base64url (RFC 7638). It becomes a word in the configuration.
#[must_use]
pub fn is_thumbprint(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Identifies the content of a certificate file in the record of what HAProxy runs.
#[must_use]
pub fn fingerprint(pem: &Pem) -> u64 {
    let mut hasher = DefaultHasher::new();
    pem.hash(&mut hasher);
    hasher.finish()
}

/// What [`update`] has done.
#[derive(Debug, Default)]
pub struct Update {
    directory: PathBuf,
    /// The content before, by the names of all files that were changed; `None` for a new one.
    before: BTreeMap<String, Option<Pem>>,
    /// Files that are not used, with the reasons, and certificates that are used although they have ended.
    pub problems: BTreeSet<String>,
}

impl Update {
    /// Names of the files that are new, changed or gone.
    pub fn changed(&self) -> impl Iterator<Item = &String> {
        self.before.keys()
    }

    /// Restores the directory. If that fails, the next update repairs it.
    pub fn undo(self) {
        for (name, before) in self.before {
            let path = self.directory.join(name);
            let _ = match before {
                Some(pem) => replace(&path, pem.as_str().as_bytes(), MODE),
                None => remove_if_exists(&path).map(drop),
            };
        }
    }
}

/// Makes `directory` equal to the `*.pem` of `source`; a missing `source` is an empty one. A bad file changes nothing: what
/// was there before under its name stays. `judge` gives HAProxy's reason to reject a file, if it has one. The caller holds the
/// lock.
#[must_use]
pub fn update(source: &Path, directory: &Path, mut judge: impl FnMut(&Path) -> Option<String>) -> Update {
    let old = installed(directory);
    let mut update = Update { directory: directory.to_owned(), ..Update::default() };
    let names = match check_directory(source).and_then(|()| list(source)) {
        Ok(names) => names,
        Err(error) => {
            update.problems.insert(format!("certificates in {} not read: {error}", source.display()));
            return update;
        }
    };
    for name in list(directory).unwrap_or_default().difference(&names) {
        match remove_if_exists(&directory.join(name)) {
            Ok(_) => drop(update.before.insert(name.clone(), old.get(name).cloned())),
            Err(error) => drop(update.problems.insert(format!("certificate {name} not removed: {error}"))),
        }
    }
    for name in names {
        let before = old.get(&name);
        let taken = load(&source.join(&name)).and_then(|pem| {
            if before != Some(&pem) {
                install(directory, &name, &pem, &mut judge)?;
                update.before.insert(name.clone(), before.cloned());
            }
            Ok(pem)
        });
        match taken {
            Ok(pem) => update.problems.extend(ended(&name, &pem)),
            Err(reason) => {
                let stays = if before.is_some() { "; the previous one stays" } else { "" };
                update.problems.insert(format!("certificate {} rejected: {reason}{stays}", Quoted(&name)));
                update.problems.extend(before.and_then(|pem| ended(&name, pem)));
            }
        }
    }
    update
}

/// The names of the certificate files in a directory. None is hidden, so that an editor's or a tool's temporary file does not
/// count.
fn list(directory: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".pem") && !name.starts_with('.') {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Reads a certificate file, or says why it is not used.
fn load(path: &Path) -> Result<Pem, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // It becomes a word in commands to HAProxy.
    if name.len() > 128 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Err("its name is not 1 to 128 of A-Z a-z 0-9 . _ -".to_owned());
    }
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}: {}", private(path)),
        _ => error.to_string(),
    };
    let metadata = fs::metadata(path).map_err(told)?;
    if metadata.is_file() {
        let is_of_our_group = metadata.gid() == getegid().as_raw();
        if metadata.mode() & if is_of_our_group { 0o007 } else { 0o077 } != 0 {
            return Err(format!("others can read its private key: {}", private(path)));
        }
        if metadata.len() > MAX_SIZE {
            return Err(format!("it is larger than {MAX_SIZE} bytes"));
        }
    }
    Pem::parse(&read(path).map_err(told)?).map_err(|error| error.to_string())
}

/// The commands that make a file private to the user of the tools.
fn private(path: &Path) -> String {
    let path = path.display();
    format!("chown {} {path} && chmod 600 {path}", geteuid())
}

/// Writes a certificate to the directory if HAProxy accepts it.
fn install(directory: &Path, name: &str, pem: &Pem, judge: &mut impl FnMut(&Path) -> Option<String>) -> Result<(), String> {
    let told = |error: io::Error| format!("cannot be copied to {}: {error}", directory.display());
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(told(error)),
        _ => {}
    }
    let staged = Staged::write(&directory.join(name), &[pem.as_str().as_bytes()], MODE).map_err(told)?;
    let temporary = directory.join(TEMP_NAME);
    if let Some(reason) = judge(&temporary) {
        return Err(reason.replace(&*temporary.to_string_lossy(), name));
    }
    staged.commit().map_err(told)
}

/// The message about a certificate that has ended.
fn ended(name: &str, pem: &Pem) -> Option<String> {
    let [_, end] = pem.validity()?;
    // In this format, the order of times is that of their texts.
    let has_ended = end < &*humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    has_ended.then(|| format!("certificate {name} expired at {end}, and is served nevertheless"))
}
