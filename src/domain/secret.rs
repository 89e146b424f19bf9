//! Secrets as people store them in files and variables: one word on one line.

use thiserror::Error;

/// Why a text is not a secret. Reveals nothing about the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MalformedSecret {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than a secret may be.
    #[error("it is longer than a secret may be")]
    TooLong,
    /// It contains white space or control characters.
    #[error("it is not one word on one line")]
    NotOneWord,
    /// It is a line of an environment file.
    #[error("it holds `NAME=VALUE`; write the value alone")]
    Assignment,
    /// Quotation marks would be taken as part of the secret.
    #[error("it stands in quotation marks; write it without them")]
    Quoted,
    /// The word `Bearer` belongs to the header.
    #[error("it begins with `Bearer`; write what follows alone")]
    Bearer,
}

/// `text` without the byte order mark that some editors put before it.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.trim_start_matches('\u{feff}')
}

/// Whether `text` begins or ends with quotation marks.
#[must_use]
pub fn is_quoted(text: &str) -> bool {
    text.starts_with(['"', '\'']) || text.ends_with(['"', '\''])
}

/// The password in the text of a file that holds nothing else: all but a byte order mark and the end of the last line.
///
/// # Errors
/// There is none, or it stands in quotation marks, which are hardly part of it.
pub fn password(text: &str) -> Result<&str, MalformedSecret> {
    let password = without_mark(text).trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(MalformedSecret::Empty);
    }
    if is_quoted(password) {
        return Err(MalformedSecret::Quoted);
    }
    Ok(password)
}

/// The secret in `text`, at most `max_bytes` long, without a byte order mark or surrounding white space.
///
/// # Errors
/// The text cannot be a secret.
pub fn word(text: &str, max_bytes: usize) -> Result<&str, MalformedSecret> {
    let text = without_mark(text).trim();
    if text.is_empty() {
        return Err(MalformedSecret::Empty);
    }
    if is_assignment(text) {
        return Err(MalformedSecret::Assignment);
    }
    if is_quoted(text) {
        return Err(MalformedSecret::Quoted);
    }
    if text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        return Err(MalformedSecret::Bearer);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(MalformedSecret::NotOneWord);
    }
    if text.len() > max_bytes {
        return Err(MalformedSecret::TooLong);
    }
    Ok(text)
}

/// A name, `=` and more text. Base64 has `=` at its end only.
fn is_assignment(text: &str) -> bool {
    let is_name = |name: &str| {
        name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b' '))
    };
    let names = |(name, value): (&str, &str)| is_name(name) && !value.trim_matches('=').trim().is_empty();
    text.split_once('=').is_some_and(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_one_word() {
        for (text, expected) in [
            (" secret\n", Ok("secret")),
            ("\u{feff}secret\r\n", Ok("secret")),
            ("c2VjcmV0cw==\n", Ok("c2VjcmV0cw==")),
            ("a\"b", Ok("a\"b")),
            (" \n", Err(MalformedSecret::Empty)),
            ("\u{feff}", Err(MalformedSecret::Empty)),
            ("TOLLGATE_TOKEN=secret", Err(MalformedSecret::Assignment)),
            ("export TOKEN=\"secret\"\n", Err(MalformedSecret::Assignment)),
            ("groq.api-key=secret", Err(MalformedSecret::Assignment)),
            ("\"secret\"\n", Err(MalformedSecret::Quoted)),
            ("'secret", Err(MalformedSecret::Quoted)),
            ("Bearer secret", Err(MalformedSecret::Bearer)),
            ("one\ntwo", Err(MalformedSecret::NotOneWord)),
            ("one two", Err(MalformedSecret::NotOneWord)),
            ("one\0", Err(MalformedSecret::NotOneWord)),
            ("longer than sixteen", Err(MalformedSecret::NotOneWord)),
            ("longer-than-sixteen", Err(MalformedSecret::TooLong)),
        ] {
            assert_eq!(word(text, 16), expected, "{text:?}");
        }
    }
}
