//! The names of reservations that were made without the store. They carry what a settlement needs, sealed, so that any replica can
//! book them once the store answers, also after the one that made them is gone.
//!
//! ```text
//! 02 and 30 hexadecimal digits . base64url( nonce (12 bytes) | AES-256-GCM ciphertext and tag )
//! ```
//!
//! The digits are random, name the reservation in logs, and are the id under which it is booked; they and the organization are
//! authenticated with the rest.
//! The key is derived from the one in the store that secrets are hashed with, which every replica reads with the registry.

use std::{fmt, str::FromStr};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use thiserror::Error;
use tracing::error;

use crate::{
    authorizer::{Failure, ticket},
    domain::{Timestamp, key::HashKey},
    store::{MAX_NOTE, NotAReservationId, ReservationId},
};

/// What the key is derived for: the same secret gives other keys elsewhere.
const KEY_OF: &str = "tollgate 2026 reservations made in an outage, AES-256-GCM key";
/// The format of what is sealed. New fields stand at the end.
const VERSION: u8 = 1;
/// Between the digits and what is sealed; neither has it.
const SEPARATOR: char = '.';
/// The most bytes of a name: a note, an instant, the nonce and the tag, as text.
const MAX_NAME: usize = (MAX_NOTE + 64) * 4 / 3 + 36;

/// What a gateway names in a report: a reservation of the store, or one that was made without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReservationName {
    /// One of the store.
    Stored(ReservationId),
    /// One that was made in an outage.
    Degraded(DegradedName),
}

/// The whole name of a reservation that was made in an outage. It is what [`fmt::Display`] writes; in logs it is the first 32 digits.
#[derive(Clone, PartialEq, Eq)]
pub struct DegradedName {
    pub(super) id: ReservationId,
    text: String,
}

/// The text is no name of a reservation.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotAReservation {
    /// It is no id either.
    #[error(transparent)]
    Id(#[from] NotAReservationId),
    /// It begins as one that was made in an outage does.
    #[error(
        "a reservation that was made in an outage has a longer id, which ends with what is behind its full stop"
    )]
    Cut,
}

impl ReservationName {
    /// The id under which it is booked.
    #[must_use]
    pub const fn id(&self) -> ReservationId {
        match self {
            Self::Stored(id) => *id,
            Self::Degraded(name) => name.id,
        }
    }
}

impl fmt::Display for ReservationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored(id) => id.fmt(f),
            Self::Degraded(name) => f.write_str(&name.text),
        }
    }
}

impl fmt::Debug for DegradedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

impl FromStr for ReservationName {
    type Err = NotAReservation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((digits, _)) = text.split_once(SEPARATOR) else {
            return match ReservationId::of_outage_text(text) {
                Some(_) => Err(NotAReservation::Cut),
                None => Ok(Self::Stored(text.parse()?)),
            };
        };
        let id = ReservationId::of_outage_text(digits).filter(|_| text.len() <= MAX_NAME);
        let id = id.ok_or(NotAReservationId)?;
        Ok(Self::Degraded(DegradedName { id, text: text.to_owned() }))
    }
}

/// The name of a reservation as logs have it: what is sealed is long, and says nothing to people.
pub(in crate::authorizer) fn shown(name: &str) -> &str {
    name.split(SEPARATOR).next().unwrap_or(name)
}

/// The key, and the organization: all organizations of a server share the key.
pub(super) type Keyed<'a> = (HashKey, &'a str);

/// What is known of a reservation that was made in an outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// When it was made, by the store's wall clock.
    pub(super) at: Timestamp,
    /// Its ticket.
    pub(super) note: Bytes,
}

impl Facts {
    /// The name that carries them.
    ///
    /// # Errors
    /// The cryptographic library fails, or they are too long.
    pub(super) fn seal(&self, id: ReservationId, (key, organization): Keyed<'_>) -> Result<String, Failure> {
        let mut text = id.to_string();
        let mut body = ticket::encode(VERSION, &(self.at, &*self.note))?.to_vec();
        let sealed = aead(key).and_then(|aead| {
            let nonce = aead.seal_in_place_append_tag(beside(organization, &text), &mut body).ok()?;
            let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
            Some([nonce.as_slice(), &body].concat())
        });
        let Some(sealed) = sealed else {
            error!("no reservation can be sealed");
            return Err(Failure::Internal);
        };
        text.push(SEPARATOR);
        URL_SAFE_NO_PAD.encode_string(sealed, &mut text);
        if text.len() > MAX_NAME { Err(Failure::Internal) } else { Ok(text) }
    }

    /// What `name` carries; `None` if it was not made with this key, or changed.
    pub(super) fn open(name: &DegradedName, (key, organization): Keyed<'_>) -> Option<Self> {
        let (digits, sealed) = name.text.split_once(SEPARATOR)?;
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, body) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let plain = aead(key)?.open_in_place(nonce, beside(organization, digits), &mut body).ok()?;
        let (at, note): (Timestamp, &[u8]) = ticket::decode(VERSION, plain).ok()?;
        Some(Self { at, note: Bytes::copy_from_slice(note) })
    }
}

/// What is authenticated beside what is sealed.
fn beside(organization: &str, digits: &str) -> Aad<Vec<u8>> {
    Aad::from([organization.as_bytes(), &[0], digits.as_bytes()].concat())
}

fn aead(key: HashKey) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, &key.derive(KEY_OF)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ReservationId = ReservationId([7; 16]);

    fn facts() -> Facts {
        Facts { at: Timestamp(1_795_428_000_123), note: Bytes::from_static(b"\x02chatbot") }
    }

    fn name(text: &str) -> Result<DegradedName, NotAReservation> {
        match text.parse::<ReservationName>()? {
            ReservationName::Degraded(name) => Ok(name),
            ReservationName::Stored(id) => panic!("{id} is one of the store"),
        }
    }

    #[test]
    fn only_what_was_sealed_with_the_key_opens() {
        let (key, other) = (HashKey::new([1; 32]), HashKey::new([2; 32]));
        let text = facts().seal(ID.of_outage(), (key, "acme")).unwrap();
        let sealed = name(&text).unwrap();
        assert_eq!(Facts::open(&sealed, (key, "acme")), Some(facts()));
        assert_eq!(Facts::open(&sealed, (other, "acme")), None);
        assert_eq!(Facts::open(&sealed, (key, "other")), None);
        assert_eq!(ReservationName::Degraded(sealed.clone()).to_string(), text);
        assert!(!text.contains("chatbot") && format!("{sealed:?}").len() == 32);
        assert_eq!((shown(&text), sealed.id), (&text[..32], ID.of_outage()));
        // Each letter counts, those of the id as well.
        for at in (2..text.len()).filter(|at| *at != 32) {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            let opened = name(&changed).ok().and_then(|name| Facts::open(&name, (key, "acme")));
            // The last letter has bits that are not used.
            assert!(opened.is_none() || at == text.len() - 1, "{at}");
        }
    }

    #[test]
    fn what_is_no_name_is_said() {
        let stored = ReservationId::versioned([9; 16]);
        assert_eq!(stored.to_string().parse(), Ok(ReservationName::Stored(stored)));
        let cut = ID.of_outage().to_string();
        assert_eq!(cut.parse::<ReservationName>(), Err(NotAReservation::Cut));
        for odd in ["", ".", "x", &format!("{stored}.AAAA"), &format!("{cut}.{}", "A".repeat(MAX_NAME))] {
            assert_eq!(odd.parse::<ReservationName>(), Err(NotAReservationId.into()), "{odd}");
        }
        let garbage = name(&format!("{cut}.not base64!")).unwrap();
        assert_eq!(Facts::open(&garbage, (HashKey::new([1; 32]), "acme")), None);
    }
}
