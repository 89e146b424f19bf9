//! The rules for names, each once: what a policy may call something, and the most bytes that a caller may send.

/// The most bytes in the name of an organization, team, key, project or token, also in requests and headers: it is part of
/// counters' names.
pub const MAX_NAME_BYTES: usize = 64;
/// The most bytes of a model's name.
pub const MAX_MODEL_BYTES: usize = 256;
/// The most bytes of an end user's name.
pub const MAX_USER_BYTES: usize = 256;

/// Whether `name` is valid for an organization, a team or a key: 1 to 64 lower-case letters, digits, `_`, `.` and `-`,
/// beginning with a letter or a digit. Separators of counter names (`/`, `|`, `@`) are not allowed.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|b| is_letter(b) || matches!(b, b'_' | b'.' | b'-'))
        && name.len() <= MAX_NAME_BYTES
}

/// Whether `name` is valid for the holder of a token: as [`is_name`], without dots.
#[must_use]
pub fn is_token_name(name: &str) -> bool {
    is_name(name) && !name.contains('.')
}

const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_lower_case_letters_digits_and_three_signs() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for name in ["a", "9", "chat-bot_2.x", &longest] {
            assert!(is_name(name), "{name}");
        }
        let too_long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in ["", "-a", ".a", "A", "a/b", "a|b", "a@b", "ä", "a b", &too_long] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_token_name("edge-gateway_2") && !is_token_name("edge.gateway"));
    }
}
