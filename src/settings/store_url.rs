//! The store of the state. The displayed form of an address never includes its password.

use std::{fmt, path::PathBuf, str::FromStr};

use thiserror::Error;

use crate::syntax::redis_url::{RedisUrl, RedisUrlError};

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
        url: RedisUrl,
        /// The password, if it was given separately from the address.
        password: Option<String>,
        /// The password for Sentinels, if they have one of their own.
        sentinel_password: Option<String>,
    },
}

/// An invalid store address. The error never repeats an address, which may contain a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum StoreUrlError {
    /// It has no known prefix.
    #[error(
        "not the address of a store; write embedded:DIRECTORY or redis://HOST:PORT (or rediss://, redis+unix://, redis+sentinel://, \
         rediss+sentinel://, redis+cluster://, rediss+cluster://)"
    )]
    UnknownKind,
    /// Nothing after `embedded:`.
    #[error("no directory after `embedded:`; write `embedded:./data`")]
    NoDirectory,
    /// An address of Redis that is none.
    #[error(transparent)]
    Redis(RedisUrlError),
}

impl StoreUrl {
    /// Whether the address holds a password.
    pub(super) fn holds_password(&self) -> bool {
        matches!(self, Self::Redis { url, .. } if url.password.is_some())
    }

    /// Where Redis is, if that is the store.
    pub(super) const fn redis(&self) -> Option<&RedisUrl> {
        match self {
            Self::Embedded { .. } => None,
            Self::Redis { url, .. } => Some(url),
        }
    }
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
        match text.parse() {
            Ok(url) => Ok(Self::Redis { url, password: None, sentinel_password: None }),
            Err(RedisUrlError::Scheme) => Err(StoreUrlError::UnknownKind),
            Err(error) => Err(StoreUrlError::Redis(error)),
        }
    }
}

/// The address without its password: `redis://user:***@host:6379`.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { dir } => write!(f, "embedded:{}", dir.display()),
            Self::Redis { url, .. } => fmt::Display::fmt(url, f),
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
            ("redis://ann:hun@ter2@cache", "redis://ann:***@cache:6379"),
            ("redis://hunter2@cache", "redis://***@cache:6379"),
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
            ("redis://", StoreUrlError::Redis(RedisUrlError::NoHost)),
            ("redis://:hunter2@", StoreUrlError::Redis(RedisUrlError::NoHost)),
            ("redis://cache?password=hunter2", StoreUrlError::Redis(RedisUrlError::Parameters)),
        ] {
            assert_eq!(text.parse::<StoreUrl>(), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
