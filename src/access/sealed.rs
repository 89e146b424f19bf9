//! What browsers keep for the service: sealed, so that they can neither read nor change it.
//!
//! ```text
//! base64url( version | key id (4 bytes) | nonce (12 bytes) | AES-256-GCM ciphertext and tag )
//! ```
//!
//! The version, the key id and the purpose are authenticated with it: what was sealed for one purpose opens for no other.

use std::fmt;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

/// The first byte. Another layout has another one.
const VERSION: u8 = 1;
/// Enough to tell two keys apart.
const KEY_ID_LEN: usize = 4;
const HEAD_LEN: usize = 1 + KEY_ID_LEN;
/// The most bytes of a cookie that every browser keeps, with its name and attributes, is 4,096.
pub(super) const MAX_SEALED: usize = 3_800;
/// What the key in a file is derived for: a file that is also used elsewhere gives another key there.
const KEY_OF: &str = "tollgate 2026 console cookies, AES-256-GCM key";
const KEY_ID_OF: &str = "tollgate 2026 console cookies, id of the key";
/// What forms of callers without a session are known by.
const FORM_KEY_OF: &str = "tollgate 2026 console forms, key of their tokens";

/// The text cannot be sealed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// It is too long for a cookie.
    #[error("it is longer than a cookie may be")]
    TooLong,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoEntropy,
}

/// A key that seals. It is derived from a secret and never shown.
pub(super) struct SealKey {
    id: [u8; KEY_ID_LEN],
    aead: RandomizedNonceKey,
    form: [u8; 32],
}

impl SealKey {
    /// The key of `secret`, which no one can guess: at least 32 random bytes, written as text or not. `None` only if the
    /// cryptographic library fails.
    pub(super) fn of_secret(secret: &[u8]) -> Option<Self> {
        let [a, b, c, d, ..] = blake3::derive_key(KEY_ID_OF, secret);
        let aead = RandomizedNonceKey::new(&AES_256_GCM, &blake3::derive_key(KEY_OF, secret)).ok()?;
        Some(Self { id: [a, b, c, d], aead, form: blake3::derive_key(FORM_KEY_OF, secret) })
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// The keys in force: the first seals, all of them open.
#[derive(Debug)]
pub(super) struct Seal(ArcSwap<Vec<SealKey>>);

impl Seal {
    pub(super) fn new(keys: Vec<SealKey>) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// Puts other keys in force.
    pub(super) fn replace(&self, keys: Vec<SealKey>) {
        self.0.store(keys.into());
    }

    /// Seals `plain` for `purpose`.
    ///
    /// A random nonce may meet another one after some 2^32 texts of one key; a session is sealed at most a few times an hour.
    pub(super) fn seal(&self, purpose: &str, plain: Vec<u8>) -> Result<String, SealError> {
        let keys = self.0.load();
        let key = keys.first().ok_or(SealError::NoEntropy)?;
        let mut head = Vec::with_capacity(HEAD_LEN + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        head.push(VERSION);
        head.extend(key.id);
        let mut body = plain;
        let aad = Aad::from([&head, purpose.as_bytes()].concat());
        let nonce = key.aead.seal_in_place_append_tag(aad, &mut body).map_err(|_| SealError::NoEntropy)?;
        head.extend(nonce.as_ref());
        head.extend(body);
        let sealed = URL_SAFE_NO_PAD.encode(head);
        if sealed.len() > MAX_SEALED { Err(SealError::TooLong) } else { Ok(sealed) }
    }

    /// A hash of `parts` by each key in force, the first one's first. It tells where one part ends, and nothing of the key.
    pub(super) fn form_hashes(&self, parts: &[&[u8]]) -> Vec<blake3::Hash> {
        let hash = |key: &SealKey| {
            let mut hasher = blake3::Hasher::new_keyed(&key.form);
            for part in parts {
                hasher.update(&part.len().to_le_bytes());
                hasher.update(part);
            }
            hasher.finalize()
        };
        self.0.load().iter().map(hash).collect()
    }

    /// What was sealed for `purpose`; `None` if it was changed, is of another purpose, or its key is in force no more.
    pub(super) fn open(&self, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
        if sealed.len() > MAX_SEALED {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (head, rest) = bytes.split_at_checked(HEAD_LEN)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let (version, id) = head.split_first()?;
        if *version != VERSION {
            return None;
        }
        let keys = self.0.load();
        let key = keys.iter().find(|key| key.id == id)?;
        let aad = Aad::from([head, purpose.as_bytes()].concat());
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        key.aead.open_in_place(nonce, aad, &mut body).ok().map(|plain| plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str]) -> Vec<SealKey> {
        secrets.iter().map(|secret| SealKey::of_secret(secret.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn only_what_was_sealed_for_a_purpose_opens_for_it() {
        let seal = Seal::new(keys(&["one"]));
        let sealed = seal.seal("session", b"hello".to_vec()).unwrap();
        assert_eq!(seal.open("session", &sealed).as_deref(), Some(&b"hello"[..]));
        assert_eq!(seal.open("attempt", &sealed), None);
        assert_ne!(seal.seal("session", b"hello".to_vec()).unwrap(), sealed, "no nonce is used twice");
        assert!(!sealed.contains("hello"));
        // Each byte counts: the version, the key id, the nonce, the text and the tag.
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open("session", &URL_SAFE_NO_PAD.encode(changed)), None, "byte {at}");
        }
        for shorter in 0..bytes.len() {
            assert_eq!(seal.open("session", &URL_SAFE_NO_PAD.encode(&bytes[..shorter])), None);
        }
        for odd in ["", "=", "not base64!", &"A".repeat(MAX_SEALED + 1)] {
            assert_eq!(seal.open("session", odd), None, "{odd}");
        }
        assert_eq!(seal.seal("session", vec![0; MAX_SEALED]), Err(SealError::TooLong));
    }

    #[test]
    fn forms_are_known_by_every_key_in_force_and_by_no_other() {
        let hashes = |secrets: &[&str], parts: &[&[u8]]| Seal::new(keys(secrets)).form_hashes(parts);
        let (old, both) = (hashes(&["old"], &[b"acme", b"ada"]), hashes(&["new", "old"], &[b"acme", b"ada"]));
        assert_eq!((both.len(), both[1]), (2, old[0]));
        assert_eq!(both[0], hashes(&["new"], &[b"acme", b"ada"])[0]);
        for parts in [&[&b"acmea"[..], b"da"][..], &[b"acme"], &[b"acme", b"bob"]] {
            assert_ne!(hashes(&["old"], parts)[0], old[0]);
        }
        assert!(hashes(&[], &[b"acme"]).is_empty());
    }

    #[test]
    fn a_key_is_replaced_by_another_while_both_open() {
        let seal = Seal::new(keys(&["old"]));
        let of_old = seal.seal("session", b"a".to_vec()).unwrap();
        seal.replace(keys(&["new", "old"]));
        let of_new = seal.seal("session", b"b".to_vec()).unwrap();
        assert!(seal.open("session", &of_old).is_some() && seal.open("session", &of_new).is_some());
        seal.replace(keys(&["new"]));
        assert!(seal.open("session", &of_old).is_none() && seal.open("session", &of_new).is_some());
        seal.replace(keys(&["third"]));
        assert!(seal.open("session", &of_new).is_none());
    }
}
