//! Roles: which members are nodes, and of which service.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::config::SECTIONS;
use crate::node::{NodeError, is_name};

/// The role of the balancers, whose members are never nodes unless it is named.
const BALANCER: &str = "balancer";

/// Names that our template gives to sections of its own, and those of HAProxy's internal proxies.
const TAKEN: [&str; 7] = ["global", "http", "live", "master", "nodes", "stats", "unclaimed"];

/// The role of a node, which names its service: a name as of a node, but neither a keyword nor the name of another section of
/// `haproxy.cfg`.
///
/// The default role is `backend`; it also stands for the only role that is load-balanced, whatever its name is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Cow<'static, str>);

static DEFAULT: Role = Role(Cow::Borrowed("backend"));

impl Role {
    /// The default role.
    #[must_use]
    pub fn default_ref() -> &'static Self {
        &DEFAULT
    }

    /// The role as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the default, which no file of a node mentions.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == DEFAULT
    }

    /// Name of the section of `haproxy.cfg` for this service: `nodes` for the default one, as without services.
    #[must_use]
    pub fn section(&self) -> &str {
        if self.is_default() { "nodes" } else { &self.0 }
    }
}

impl Default for Role {
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl FromStr for Role {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
        let reason = match text {
            "backend" => return Ok(Self::default()),
            _ if !is_name(text) => "is not 1 to 128 of A-Z a-z 0-9 . _ - (not beginning with . or -)",
            _ if is_one_of(&TAKEN) => "is the name of a section of haproxy.cfg that is no service",
            _ if is_one_of(&SECTIONS) => "is a keyword of haproxy.cfg",
            _ => return Ok(Self(Cow::Owned(text.to_owned()))),
        };
        Err(NodeError::Role { role: text.to_owned(), reason })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which roles are load-balanced: `*` for all but that of the balancers, or one or more, separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roles {
    /// All but `balancer`.
    All,
    /// These, at least one.
    These(Vec<Role>),
}

impl Roles {
    /// The service of a member with this role, or `None` if it takes no traffic. The only role is always the default service.
    ///
    /// # Errors
    /// [`NodeError::Role`] if all roles are load-balanced, but none can have this name.
    pub fn service(&self, role: &str) -> Result<Option<Role>, NodeError> {
        match self {
            Self::All if role.is_empty() || role == BALANCER => Ok(None),
            Self::All => role.parse().map(Some),
            Self::These(roles) => Ok(match roles.as_slice() {
                [only] => (only.as_str() == role).then(Role::default),
                roles => roles.iter().find(|one| one.as_str() == role).cloned(),
            }),
        }
    }

    /// Whether members can be nodes of this service.
    #[must_use]
    pub fn has_service(&self, service: &Role) -> bool {
        match self {
            Self::All => true,
            Self::These(roles) if roles.len() == 1 => service.is_default(),
            Self::These(roles) => roles.contains(service),
        }
    }

    /// Whether a member with this role should take traffic.
    #[must_use]
    pub fn has(&self, role: &str) -> bool {
        !matches!(self.service(role), Ok(None))
    }
}

impl FromStr for Roles {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        let mut roles: Vec<Role> =
            text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() {
            return Err(NodeError::Role { role: text.to_owned(), reason: "is not * or names of roles, separated by spaces" });
        }
        Ok(Self::These(roles))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::These(roles) => f.write_str(&roles.iter().map(Role::as_str).collect::<Vec<_>>().join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_no_name_of_a_service_is_refused_with_its_reason() {
        let long = "x".repeat(129);
        for bad in ["", ".x", "-x", "a b", "a/b", "é", "a;b", "{{x}}", &long] {
            assert!(bad.parse::<Role>().unwrap_err().to_string().contains("1 to 128"), "{bad:?}");
        }
        for taken in ["stats", "http", "live", "nodes", "unclaimed", "Stats", "GLOBAL"] {
            assert!(taken.parse::<Role>().unwrap_err().to_string().contains("a section of haproxy.cfg"), "{taken}");
        }
        for keyword in ["frontend", "listen", "defaults", "peers", "http-errors", "Listen"] {
            assert!(keyword.parse::<Role>().unwrap_err().to_string().contains("a keyword"), "{keyword}");
        }
        for good in ["shop", "api", "a.b_c-D", "server", "1", &"x".repeat(128)] {
            let role: Role = good.parse().unwrap();
            assert_eq!((role.as_str(), role.section()), (good, good));
        }
        assert_eq!("backend".parse::<Role>().unwrap().section(), "nodes");
    }

    #[test]
    fn the_only_role_is_the_default_service_and_each_of_several_is_its_own() {
        let service =
            |roles: &str, role: &str| roles.parse::<Roles>().unwrap().service(role).map(|role| role.map(|role| role.to_string()));
        let is = |name: &str| Ok(Some(name.to_owned()));
        for roles in ["web", " web ", "web,web"] {
            assert_eq!((service(roles, "web"), service(roles, "backend")), (is("backend"), Ok(None)), "{roles:?}");
        }
        for roles in ["shop api", "api,shop", " shop  api shop "] {
            assert_eq!((service(roles, "shop"), service(roles, "api")), (is("shop"), is("api")), "{roles:?}");
            assert_eq!((service(roles, "backend"), service(roles, "")), (Ok(None), Ok(None)), "{roles:?}");
        }
        assert_eq!((service("*", "shop"), service("*", "backend")), (is("shop"), is("backend")));
        assert_eq!((service("*", "balancer"), service("*", "")), (Ok(None), Ok(None)));
        for (roles, of_shop, of_default) in [("web", false, true), ("shop api", true, false), ("*", true, true)] {
            let roles: Roles = roles.parse().unwrap();
            let has = [roles.has_service(&"shop".parse().unwrap()), roles.has_service(Role::default_ref())];
            assert_eq!(has, [of_shop, of_default], "{roles}");
        }
        assert!(service("*", "stats").is_err() && service("*", "a b").is_err());
        assert_eq!("shop api".parse::<Roles>().unwrap().to_string(), "api shop");
        for bad in ["", " ", "* shop", "shop stats", "shop a/b"] {
            assert!(bad.parse::<Roles>().is_err(), "{bad:?}");
        }
    }
}
