//! The format of a key's secret, and what is stored of it.
//!
//! `tgk_`, 43 letters of base 62 that hold 256 random bits, and 6 letters that hold the CRC-32 of everything before them.
//! Scanners of repositories and logs find a leaked secret and can tell it from a word that only looks like one.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The prefix of every secret.
pub const PREFIX: &str = "tgk_";
/// The letters that hold the random bits: 62^43 is just above 2^256.
const LETTERS: usize = 43;
/// The letters of the checksum: 62^6 is above 2^32.
const CHECKSUM: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A secret, to be shown once. It has no `Display`, so formatting cannot leak it into a log.
pub struct Secret(String);

impl Secret {
    /// The secret of a virtual key that contains these random bits.
    #[must_use]
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self::with_prefix(PREFIX, bytes)
    }

    /// A secret of another kind, with the prefix `prefix`.
    #[must_use]
    pub fn with_prefix(prefix: &str, bytes: [u8; 32]) -> Self {
        let mut text = prefix.to_owned();
        push_base62(&mut text, bytes, LETTERS);
        let sum = checksum(&text);
        text.push_str(&sum);
        Self(text)
    }

    /// The text, for its only reader.
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

/// Whether `text` has the form of a secret but the wrong checksum: it was mistyped or cut off.
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

/// Appends the last `count` base-62 digits of a 256-bit number, the highest first.
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

/// The CRC-32 of gzip and zip, bit by bit: it covers 47 bytes, once per request that uses a key.
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

/// The key that secrets are hashed with. Without it, a reader of the hashes cannot test a guess.
#[derive(Clone, Copy)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// The key made of these bytes, which must be random and secret.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a store alone.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// A key for something else, of which this one cannot be told; `context` names what it is for.
    #[must_use]
    pub fn derive(&self, context: &'static str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }

    /// The hash that is stored for the secret with this SHA-256.
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

/// The keyed hash of a secret. `blake3::Hash` guarantees comparison in constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(blake3::Hash);

impl SecretHash {
    /// The first bytes, used to find a few candidates. They reveal nothing without the hash key.
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
