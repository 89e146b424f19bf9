//! The `etag` of a key: opaque to clients, base64url of a version byte and the number of the write that last changed the record.

/// The version of the form.
const VERSION: u8 = 1;
/// The letters: nine bytes are twelve groups of six bits, so none is padded.
const LETTERS: u32 = 12;
/// Base64url (RFC 4648, section 5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The `etag` of a record of this version.
pub(super) fn of(version: u64) -> String {
    let bits = u128::from(VERSION) << u64::BITS | u128::from(version);
    let letter = |place: u32| {
        let group = usize::try_from(bits >> (6 * place) & 0x3f).unwrap_or_default();
        ALPHABET.get(group).map_or('-', |letter| char::from(*letter))
    };
    (0..LETTERS).rev().map(letter).collect()
}

/// The version of the record with this `etag`; `None`: no release made it.
pub(super) fn version(etag: &str) -> Option<u64> {
    if etag.len() != LETTERS as usize {
        return None;
    }
    let mut bits: u128 = 0;
    for letter in etag.bytes() {
        let group = ALPHABET.iter().position(|known| *known == letter)?;
        bits = bits << 6 | u128::try_from(group).ok()?;
    }
    if bits >> u64::BITS != u128::from(VERSION) {
        return None;
    }
    u64::try_from(bits & u128::from(u64::MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_as_it_was_made() {
        assert_eq!(of(1), "AQAAAAAAAAAB");
        for number in [0, 1, 63, 64, 1 << 53, u64::MAX - 1, u64::MAX] {
            assert_eq!(version(&of(number)), Some(number));
        }
        let [mut shorter, mut foreign] = [of(7), of(7)];
        shorter.pop();
        foreign.replace_range(..2, "Ag");
        for text in ["", "7", "AQAAAAAAAAA=", "AQAAAAAAAA+/", "ÄÄÄÄÄÄ", &shorter, &foreign] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}
