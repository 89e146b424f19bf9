//! The organization's own Groq key.

use std::{fmt, sync::Arc};

use super::secret::{self, MalformedSecret};

/// The most bytes of a Groq key; Groq's have 56.
const MAX_BYTES: usize = 512;
const SCHEME: &str = "Bearer ";

/// A Groq key. It is never displayed, and read only to send a request to Groq.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamKey {
    bearer: Arc<str>,
}

impl UpstreamKey {
    /// The key in `text`, without a byte order mark or surrounding white space.
    ///
    /// # Errors
    /// The text cannot be a key, or is not valid in a header.
    pub fn parse(text: &str) -> Result<Self, MalformedSecret> {
        let key = secret::word(text, MAX_BYTES)?;
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(MalformedSecret::NotOneWord);
        }
        Ok(Self { bearer: format!("{SCHEME}{key}").into() })
    }

    /// Whether it has the prefix of Groq's keys.
    #[must_use]
    pub fn looks_like_groq(&self) -> bool {
        self.bearer.strip_prefix(SCHEME).is_some_and(|key| key.starts_with("gsk_"))
    }

    /// Distinguishes keys without revealing them: the first 32 bits of a digest.
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
        assert!(key.looks_like_groq());
        assert!(!UpstreamKey::parse("sk-secret").unwrap().looks_like_groq());
        for (text, error) in [
            ("GROQ_API_KEY=gsk_secret", MalformedSecret::Assignment),
            ("\"gsk_secret\"\n", MalformedSecret::Quoted),
            ("Bearer gsk_secret", MalformedSecret::Bearer),
            ("gsk_ä", MalformedSecret::NotOneWord),
        ] {
            assert_eq!(UpstreamKey::parse(text), Err(error), "{text}");
        }
        assert_eq!(UpstreamKey::parse(&"x".repeat(513)), Err(MalformedSecret::TooLong));
    }
}
