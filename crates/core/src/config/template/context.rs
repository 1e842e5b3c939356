//! What a template knows besides the nodes and their services.

use std::path::Path;

use super::{RenderOptions, users};
use crate::certificates;
use crate::os::list_file::{ListError, load};

/// Texts that a template can use at its top level. They are empty without what they are about.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// `{{certificates}}`: the directory of the certificates that HAProxy is given.
    pub certificates: String,
    /// `{{acme}}`: the thumbprint of the ACME account.
    pub acme: String,
    /// `{{stats_users}}`: the lines of a `userlist` with those who may see the statistics.
    pub stats_users: String,
}

impl Context {
    /// That of a HAProxy with this master socket.
    ///
    /// # Errors
    /// [`ListError`] if the file of users cannot be used.
    pub fn load(options: &RenderOptions, master: &Path) -> Result<Self, ListError> {
        let users = options.stats_auth_file.as_deref().map(|path| load("users", path, users::parse)).transpose()?;
        Ok(Self {
            certificates: certificates::for_template(master),
            acme: certificates::thumbprint(&options.certs_dir).unwrap_or_default(),
            stats_users: users.unwrap_or_default(),
        })
    }
}
