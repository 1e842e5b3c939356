//! What a publish aims at, and where the file stands.

use std::io;

use super::PublishError;
use crate::haproxy::ProcessOptions;
use crate::os::read_file::{read, read_text};

/// The text that file and process should have.
pub(super) struct Target {
    pub(super) text: String,
    /// The current text of the file, if it exists.
    pub(super) old: Option<String>,
}

impl Target {
    /// The file and the process should have `text`.
    pub(super) fn new(options: &ProcessOptions, text: String) -> Result<Self, PublishError> {
        let old = match read(&options.config) {
            // A file that is not UTF-8 is not a valid configuration, and is replaced like any other.
            Ok(bytes) => {
                Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(PublishError::Read { path: options.config.clone(), source }),
        };
        Ok(Self { text, old })
    }

    /// The process should have what is in the file now.
    pub(super) fn current(options: &ProcessOptions) -> Result<Self, PublishError> {
        let text = read_text(&options.config).map_err(|source| PublishError::Read { path: options.config.clone(), source })?;
        Ok(Self { old: Some(text.clone()), text })
    }

    pub(super) fn with_text(self, text: String) -> Self {
        Self { text, ..self }
    }

    pub(super) fn differs(&self) -> bool {
        self.old.as_ref() != Some(&self.text)
    }
}
