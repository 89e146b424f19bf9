//! The `etag` of a key: opaque to clients, base64url of a version byte and the number of the write that last changed the record.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// The version of the form.
const VERSION: u8 = 1;

/// The `etag` of a record of this version.
pub(super) fn of(version: u64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode([&[VERSION][..], &version.to_be_bytes()].concat())
}

/// The version of the record with this `etag`; `None`: no release made it.
pub(super) fn version(etag: &str) -> Option<u64> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(etag).ok()?;
    let (form, version) = bytes.split_first()?;
    let version = version.try_into().map(u64::from_be_bytes).ok()?;
    (*form == VERSION).then_some(version)
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
