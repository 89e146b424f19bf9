//! The store of the state. The displayed form of an address never includes its password.

use std::{fmt, path::PathBuf, str::FromStr};

use thiserror::Error;

/// The store of the state.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// On this machine, in this directory: `embedded:./data`.
    Embedded {
        /// The directory.
        dir: PathBuf,
    },
    /// In Redis: `redis://user:password@host:6379/0`.
    Redis {
        /// The address as given; may contain a password.
        url: String,
        /// The password, if it was given separately from the address.
        password: Option<String>,
    },
}

/// An invalid store address. The error never repeats an address, which may contain a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StoreUrlError {
    /// It has no known prefix.
    #[error("not the address of a store; write embedded:DIRECTORY or redis://HOST:PORT")]
    UnknownKind,
    /// Nothing after `embedded:`.
    #[error("no directory after `embedded:`; write `embedded:./data`")]
    NoDirectory,
    /// Nothing after `redis://`.
    #[error("no host in the address of Redis; write `redis://HOST:PORT`")]
    NoHost,
    /// `rediss://`.
    #[error(
        "TLS to Redis (rediss://) is not built in yet; write redis://HOST:PORT and let the network, or a TLS proxy beside \
         this process, protect the connection"
    )]
    NoTls,
}

impl StoreUrl {
    /// Whether the address holds a password.
    pub(super) fn holds_password(&self) -> bool {
        match self {
            Self::Embedded { .. } => false,
            Self::Redis { url, .. } => {
                let login = parts(url).and_then(|(_, login, _)| login.split_once(':'));
                login.is_some_and(|(_, secret)| !secret.is_empty())
            }
        }
    }

    pub(super) fn with_password(&self, secret: &str) -> Self {
        match self {
            Self::Embedded { .. } => self.clone(),
            Self::Redis { url, .. } => Self::Redis { url: url.clone(), password: Some(secret.to_owned()) },
        }
    }
}

/// The scheme with its `://`, the login before the last `@` of the host part, and the rest.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_at_checked(url.find("://")? + 3)?;
    // The login ends at the last `@`, however the password was escaped: better to hide too much.
    let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
    Some((scheme, login, rest))
}

impl Default for StoreUrl {
    fn default() -> Self {
        Self::Embedded { dir: PathBuf::from("./data") }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if let Some(dir) = text.strip_prefix("embedded:") {
            if dir.is_empty() {
                return Err(StoreUrlError::NoDirectory);
            }
            return Ok(Self::Embedded { dir: PathBuf::from(dir) });
        }
        match parts(text) {
            Some(("rediss://", ..)) => Err(StoreUrlError::NoTls),
            Some(("redis://", _, "")) => Err(StoreUrlError::NoHost),
            Some(("redis://", ..)) => Ok(Self::Redis { url: text.to_owned(), password: None }),
            _ => Err(StoreUrlError::UnknownKind),
        }
    }
}

/// The address without its password: `redis://user:***@host:6379`.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { dir } => write!(f, "embedded:{}", dir.display()),
            Self::Redis { url, .. } => match parts(url) {
                // Parameters may contain a password too.
                Some((scheme, login, rest)) => {
                    let (address, parameters) = rest.split_once('?').map_or((rest, ""), |(a, _)| (a, "?***"));
                    match login.split_once(':') {
                        Some((user, _)) => write!(f, "{scheme}{user}:***@{address}{parameters}"),
                        None if login.is_empty() => write!(f, "{scheme}{address}{parameters}"),
                        None => write!(f, "{scheme}***@{address}{parameters}"),
                    }
                }
                None => f.write_str("***"),
            },
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_password() {
        for (text, shown) in [
            ("embedded:./data", "embedded:./data"),
            ("redis://localhost:6379", "redis://localhost:6379"),
            ("redis://:hunter2@localhost:6379/1", "redis://:***@localhost:6379/1"),
            ("redis://ann:hun@ter2@cache", "redis://ann:***@cache"),
            ("redis://hunter2@cache", "redis://***@cache"),
            ("redis://cache?password=hunter2", "redis://cache?***"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
        }
    }

    #[test]
    fn refuses_what_is_no_store_without_repeating_it() {
        for (text, error) in [
            ("", StoreUrlError::UnknownKind),
            ("data", StoreUrlError::UnknownKind),
            ("http://:hunter2@cache", StoreUrlError::UnknownKind),
            ("embedded:", StoreUrlError::NoDirectory),
            ("redis://", StoreUrlError::NoHost),
            ("redis://:hunter2@", StoreUrlError::NoHost),
            ("rediss://:hunter2@cache", StoreUrlError::NoTls),
        ] {
            assert_eq!(text.parse::<StoreUrl>(), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
