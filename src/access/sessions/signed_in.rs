//! What a session holds: who signed in and for how long, and no roles. Those come from the policy in force, at each request.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::domain::Timestamp;

/// A person as their OpenID provider knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// The provider.
    pub issuer: String,
    /// Who they are to it, at most 255 bytes.
    pub subject: String,
    /// Their name for people, at most 64 characters; not unique.
    pub name: String,
    /// By claim, the values that a policy mapped to roles when they signed in. Each policy reads those of its own claim.
    pub values: Vec<(String, Vec<String>)>,
}

impl Person {
    /// The same person, with the values that another policy maps to roles as well.
    pub(in crate::access) fn with(mut self, other: &Self) -> Self {
        for (claim, more) in &other.values {
            match self.values.iter_mut().find(|(known, _)| known == claim) {
                Some((_, values)) => {
                    values.extend_from_slice(more);
                    values.sort_unstable();
                    values.dedup();
                }
                None => self.values.push((claim.clone(), more.clone())),
            }
        }
        self
    }

    /// Those of `claim`.
    pub(in crate::access) fn values(&self, claim: &str) -> &[String] {
        self.values.iter().find(|(known, _)| known == claim).map_or(&[], |(_, values)| values)
    }
}

/// Who signed in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// The holder of a service token, by the SHA-256 of its secret: the policy in force knows whose it is, and whether it still
    /// counts.
    ServiceToken([u8; 32]),
    /// A person.
    Person(Person),
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceToken(_) => f.write_str("ServiceToken"),
            Self::Person(person) => person.fmt(f),
        }
    }
}

/// The holder of a session, as the browser's cookie has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// Who it is.
    pub who: Who,
    began_ms: u64,
    renewed_ms: u64,
    until_ms: u64,
    /// Random: the forms of this session are known by it.
    secret: [u8; 32],
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("who", &self.who).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl SignedIn {
    pub(super) const fn new(who: Who, secret: [u8; 32], now: Timestamp, until: Timestamp) -> Self {
        Self { who, began_ms: now.0, renewed_ms: now.0, until_ms: until.0, secret }
    }

    /// The same session, renewed at `now`.
    pub(super) fn renewed(&self, now: Timestamp) -> Self {
        Self { renewed_ms: now.0, ..self.clone() }
    }

    /// The same session, of which the provider has said again who holds it: at `now`, good until `until`.
    pub(super) fn proven_again(&self, person: Person, now: Timestamp, until: Timestamp) -> Self {
        Self { who: Who::Person(person), renewed_ms: now.0, until_ms: until.0, ..self.clone() }
    }

    /// The name of a person, for people; the holder of a token has that of the token.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.who {
            Who::Person(person) => Some(&person.name),
            Who::ServiceToken(_) => None,
        }
    }

    /// When the person signed in.
    #[must_use]
    pub const fn began(&self) -> Timestamp {
        Timestamp(self.began_ms)
    }

    /// When the cookie was last made.
    #[must_use]
    pub const fn last_renewed(&self) -> Timestamp {
        Timestamp(self.renewed_ms)
    }

    /// When it ends at the latest: with its age, or with what the provider said of its holder.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        Timestamp(self.until_ms)
    }

    /// Tells sessions apart, in the audit log and where they are counted. It reveals nothing by which one could be taken over.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = self.derived(b"id");
        hash.as_bytes().iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
            text
        })
    }

    /// What each form of this session holds: another site can neither read nor guess it.
    #[must_use]
    pub fn form_token(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.derived(b"form").as_bytes())
    }

    /// Whether `token` is of a form of this session.
    #[must_use]
    pub fn knows_form(&self, token: &str) -> bool {
        self.form_token().as_bytes().ct_eq(token.as_bytes()).into()
    }

    fn derived(&self, what: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.secret, what)
    }
}
