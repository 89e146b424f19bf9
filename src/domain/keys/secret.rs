//! What a key's secret looks like, and what is kept of it.
//!
//! `tgk_`, 43 letters of base 62 that hold 256 random bits, and 6 letters that hold the CRC-32 of everything before them.
//! Scanners of repositories and logs find one that leaked, and know it from a word that only looks like it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What every secret begins with.
pub const PREFIX: &str = "tgk_";
/// The letters that hold the random bits: 62^43 is just above 2^256.
const LETTERS: usize = 43;
/// The letters of the checksum: 62^6 is above 2^32.
const CHECKSUM: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A secret, to be shown once. It has no `Display`, so that none gets into a log by being formatted.
pub struct Secret(String);

impl Secret {
    /// The secret of a virtual key that holds these random bits.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self::with_prefix(PREFIX, bytes)
    }

    /// A secret of another kind, which begins with `prefix`.
    #[must_use]
    pub fn with_prefix(prefix: &str, bytes: [u8; 32]) -> Self {
        let mut text = prefix.to_owned();
        push_base62(&mut text, bytes, LETTERS);
        let sum = checksum(&text);
        text.push_str(&sum);
        Self(text)
    }

    /// The text, for its one reader.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether `text` has the form of a secret, but not its checksum: somebody mistyped or cut it.
#[must_use]
pub fn is_mistyped(text: &str) -> bool {
    let well_formed = text.len() == PREFIX.len() + LETTERS + CHECKSUM
        && text.strip_prefix(PREFIX).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    well_formed
        && text.split_at_checked(text.len() - CHECKSUM).is_some_and(|(start, sum)| checksum(start) != sum)
}

fn checksum(text: &str) -> String {
    let mut bytes = [0; 32];
    for (byte, of_sum) in bytes.iter_mut().rev().zip(crc32(text.as_bytes()).to_le_bytes()) {
        *byte = of_sum;
    }
    let mut sum = String::with_capacity(CHECKSUM);
    push_base62(&mut sum, bytes, CHECKSUM);
    sum
}

/// Appends the last `count` digits, in base 62, of a number of 256 bits, the highest first.
fn push_base62(text: &mut String, mut number: [u8; 32], count: usize) {
    let mut digits = Vec::with_capacity(count);
    for _ in 0..count {
        let mut rest = 0_u16;
        for byte in &mut number {
            let value = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        digits.push(ALPHABET.get(usize::from(rest)).map_or('0', |letter| char::from(*letter)));
    }
    text.extend(digits.into_iter().rev());
}

/// The CRC-32 that gzip and zip have, bit by bit: it runs over 47 bytes, once for a request by key.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            crc ^= carry * 0xEDB8_8320;
        }
    }
    !crc
}

/// What secrets are hashed with, so that who reads the hashes alone cannot test a guess.
#[derive(Clone, Copy)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// The key of these bytes, which are to be random and secret.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash that is kept of the secret with this SHA-256.
    #[must_use]
    pub fn hash(&self, sha256: &[u8; 32]) -> SecretHash {
        SecretHash(blake3::keyed_hash(&self.0, sha256))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

/// The keyed hash of a secret. Comparing two takes as long wherever they differ: `blake3::Hash` promises that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(blake3::Hash);

impl SecretHash {
    /// The first bytes, to find a few candidates by. They tell nothing to who does not have the hash key.
    #[must_use]
    pub fn prefix(&self) -> [u8; 8] {
        self.0.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// As hexadecimal digits.
impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_hex())
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(text).map(Self).map_err(|_| D::Error::custom("not a hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        // 2^32 - 1 in base 62.
        let mut text = String::new();
        let mut number = [0; 32];
        number[28..].fill(0xff);
        push_base62(&mut text, number, 6);
        assert_eq!(text, "4gfFC3");
    }

    #[test]
    fn a_secret_holds_all_of_its_bits() {
        let of = |bytes| Secret::from_random(bytes).expose().to_owned();
        assert_eq!(of([0; 32]).len(), 53);
        assert_eq!(&of([0; 32])[..47], format!("tgk_{}", "0".repeat(43)));
        let mut seen = std::collections::HashSet::new();
        for byte in 0..32 {
            for bit in 0..8 {
                let mut bytes = [0x5a; 32];
                bytes[byte] ^= 1 << bit;
                let secret = of(bytes);
                assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{secret}");
                assert!(!is_mistyped(&secret));
                assert!(seen.insert(secret));
            }
        }
    }

    #[test]
    fn every_wrong_letter_and_every_swap_is_noticed() {
        let secret = Secret::from_random(*b"any 32 bytes do for this purpose");
        let text = secret.expose();
        for at in PREFIX.len()..text.len() {
            for letter in ALPHABET {
                let mut typo = text.as_bytes().to_vec();
                let before = std::mem::replace(&mut typo[at], *letter);
                assert_eq!(is_mistyped(str::from_utf8(&typo).unwrap()), before != *letter);
            }
            let mut swapped = text.as_bytes().to_vec();
            if at + 1 < text.len() {
                swapped.swap(at, at + 1);
                assert_eq!(is_mistyped(str::from_utf8(&swapped).unwrap()), swapped != text.as_bytes());
            }
        }
    }

    #[test]
    fn what_has_another_form_is_not_judged() {
        for text in
            ["", "tgk_", "gsk_abc", "tgk_abc", "ü", &format!("tgk_{}", "a".repeat(43)), &"x".repeat(53)]
        {
            assert!(!is_mistyped(text), "{text}");
        }
        assert!(is_mistyped(&format!("tgk_{}", "a".repeat(49))));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let (secret, key) = (Secret::from_random([7; 32]), HashKey::new([7; 32]));
        assert_eq!(format!("{secret:?} {key:?} {:?}", key.hash(&[1; 32])), "Secret HashKey SecretHash");
        assert_ne!(key.hash(&[1; 32]), key.hash(&[2; 32]));
        assert_ne!(key.hash(&[1; 32]), HashKey::new([8; 32]).hash(&[1; 32]));
    }
}
