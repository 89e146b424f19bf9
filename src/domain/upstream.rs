//! The organization's own Groq key.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// The most bytes of a Groq key; Groq's have 56.
const MAX_BYTES: usize = 512;

/// A Groq key. Nothing shows it; it is read only where a request to Groq is made.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamKey {
    bearer: Arc<str>,
}

/// Why a text is no Groq key. Says nothing of the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UpstreamKeyError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It is longer than any key.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
    /// It could not stand in a header.
    #[error("it is not one word of printable ASCII on one line")]
    NotOneWord,
    /// It is a line of an environment file.
    #[error("it holds `NAME=VALUE`; write the key alone, which begins with `gsk_`")]
    Assignment,
    /// Quotation marks would be sent to Groq as part of the key.
    #[error("it stands in quotation marks; write the key alone, which begins with `gsk_`")]
    Quoted,
    /// The word `Bearer` belongs to the header, not to the key.
    #[error("it begins with `Bearer`; write the key alone, which begins with `gsk_`")]
    Bearer,
}

impl UpstreamKey {
    /// The key in `text`, without a byte order mark and white space around it.
    ///
    /// # Errors
    /// Where it can be no key.
    pub fn parse(text: &str) -> Result<Self, UpstreamKeyError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(UpstreamKeyError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(UpstreamKeyError::TooLong);
        }
        let is_name =
            |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' '));
        if text.split_once('=').is_some_and(|(name, value)| is_name(name) && !value.is_empty()) {
            return Err(UpstreamKeyError::Assignment);
        }
        if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
            return Err(UpstreamKeyError::Quoted);
        }
        if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
            return Err(UpstreamKeyError::Bearer);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UpstreamKeyError::NotOneWord);
        }
        Ok(Self { bearer: format!("Bearer {text}").into() })
    }

    /// Tells one key from another, and nothing of either: the first 32 bits of a digest.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = blake3::derive_key("tollgate upstream key fingerprint", self.bearer.as_bytes());
        digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The value of the `authorization` header.
    #[must_use]
    pub fn bearer(&self) -> &str {
        &self.bearer
    }
}

impl fmt::Debug for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_never_shown() {
        let key = UpstreamKey::parse(" gsk_secret\n").unwrap();
        assert_eq!(key.bearer(), "Bearer gsk_secret");
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(UpstreamKey::parse("\u{feff}gsk_secret\r\n").unwrap(), key);
        assert_eq!(UpstreamKey::parse(" \n"), Err(UpstreamKeyError::Empty));
        for (text, error) in [
            ("GROQ_API_KEY=gsk_secret", UpstreamKeyError::Assignment),
            ("export GROQ_API_KEY=\"gsk_secret\"\n", UpstreamKeyError::Assignment),
            ("\"gsk_secret\"\n", UpstreamKeyError::Quoted),
            ("'gsk_secret", UpstreamKeyError::Quoted),
            ("Bearer gsk_secret", UpstreamKeyError::Bearer),
        ] {
            assert_eq!(UpstreamKey::parse(text), Err(error), "{text}");
            assert!(!error.to_string().contains("gsk_secret"));
        }
        for text in ["gsk_a\ngsk_b", "gsk a", "gsk_ä", "gsk_\0"] {
            assert_eq!(UpstreamKey::parse(text), Err(UpstreamKeyError::NotOneWord), "{text:?}");
        }
        assert_eq!(UpstreamKey::parse(&"x".repeat(513)), Err(UpstreamKeyError::TooLong));
    }
}
