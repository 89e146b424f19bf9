//! Bearer tokens: service tokens, and tokens of OpenID providers.
//!
//! ```text
//! bearer ─┬─ tgs_… ─► SHA-256 ─► the policy's tokens
//!         └─ a JWT ─► verified before? ─► its principal
//!                           └─ no ─► the issuer's keys (fetched when they are not known) ─► signature, claims ─► principal
//! ```
//!
//! A verified token is remembered until it expires, so no decision pays for the same signature twice. An entry counts only under
//! the policy and the keys that verified it.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::{
    issuer::SigningKeys,
    sessions::{Person, SignedIn, Who},
    token::{self, Verified},
};
use crate::domain::{
    Timestamp,
    policy::Policy,
    rbac::{AccessPolicy, Principal},
};

/// The prefix of every service token. Scanners of repositories and logs find leaked tokens by it.
pub const SERVICE_TOKEN_PREFIX: &str = "tgs_";
/// The most bytes of a bearer token. Providers that list hundreds of groups make tokens of some thousand bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The most bytes of an ID token, which comes from its issuer and not from a caller.
const MAX_ID_TOKEN_BYTES: usize = 64 * 1024;
/// The most verified tokens to remember; each takes a few hundred bytes.
const MAX_REMEMBERED: usize = 10_000;
/// The longest time to remember a verified token. After it the key is checked again, as the issuer may have withdrawn it.
const REMEMBERED_MS: u64 = 3_600_000;

/// Why a bearer token is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Invalid {
    /// It is malformed, or not a token of this service.
    #[error("the bearer token is not valid: {0}")]
    Token(&'static str),
    /// It has expired.
    #[error("the bearer token has expired")]
    Expired,
    /// Its key is unknown, and its issuer cannot be asked.
    #[error("the bearer token cannot be checked at the moment: its issuer does not answer")]
    IssuerUnavailable,
}

const UNKNOWN_ISSUER: Invalid = Invalid::Token("its issuer is not one of the policy's");

/// Identifies the holder of a bearer token. There is one for the whole process.
#[derive(Debug, Default)]
pub struct Verifier {
    /// The keys of each issuer. An entry is written when an issuer is first seen.
    issuers: RwLock<HashMap<Arc<str>, Arc<SigningKeys>>>,
    /// Tokens by their hash. Every call on every core reads this; each new token writes it.
    remembered: RwLock<HashMap<blake3::Hash, Remembered>>,
    /// Raised whenever an issuer's keys change. Tokens verified before are then verified again.
    epoch: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Remembered {
    verified: Verified,
    /// The revision of the policy, which maps claims to roles.
    revision: Arc<str>,
    epoch: u64,
    until: Timestamp,
}

impl Remembered {
    fn holds(&self, revision: &str, epoch: u64, now: Timestamp) -> bool {
        *self.revision == *revision && self.epoch == epoch && now < self.until
    }
}

impl Verifier {
    /// The holder of `token`, if no wait is needed: for a service token, or a token verified before. `None` means: call
    /// [`Verifier::verify`].
    pub fn known(
        &self,
        policy: &Policy,
        access: &AccessPolicy,
        token: &str,
        now: Timestamp,
    ) -> Option<Result<Arc<Principal>, Invalid>> {
        if token.len() > MAX_TOKEN_BYTES {
            return Some(Err(Invalid::Token("it is too long")));
        }
        if token.starts_with(SERVICE_TOKEN_PREFIX) {
            return Some(service_token(access, token, now));
        }
        let hash = blake3::hash(token.as_bytes());
        // A panic while holding the lock leaves only whole entries behind.
        let remembered = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = remembered.get(&hash).filter(|found| found.holds(&policy.revision, epoch, now))?;
        Some(match found.verified.ended(now) {
            true => Err(Invalid::Expired),
            false => Ok(Arc::clone(&found.verified.principal)),
        })
    }

    /// The holder of `token`, which its issuer signed. If the token's key is unknown, waits briefly for the issuer's keys.
    ///
    /// # Errors
    /// The token identifies no one.
    pub async fn verify(
        &self,
        policy: &Policy,
        access: &AccessPolicy,
        token: &str,
        now: Timestamp,
    ) -> Result<Arc<Principal>, Invalid> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Invalid::Token("it is too long"));
        }
        // Read before the keys: the token is then verified by the keys of this epoch or by newer ones.
        let epoch = self.epoch.load(Ordering::Acquire);
        let claimed = token::Claimed::read(token)?;
        let known = access.issuers.iter().find(|issuer| *issuer.issuer == *claimed.issuer);
        let issuer = known.ok_or(UNKNOWN_ISSUER)?;
        let key = self.keys_of(&issuer.issuer).key(&claimed).await?;
        let verified = token::verify(token, &claimed, &key, issuer, now)?;
        let principal = Arc::clone(&verified.principal);
        let (revision, until) = (policy.revision.clone(), now.plus(REMEMBERED_MS));
        self.remember(token, Remembered { verified, revision, epoch, until }, now);
        Ok(principal)
    }

    /// The person that `token` names, an ID token of `issuer` that was issued to `client_id` for the sign-in with `nonce`; and
    /// until when that holds.
    ///
    /// # Errors
    /// It is none, or the policy does not have its issuer.
    pub(super) async fn identify(
        &self,
        access: &AccessPolicy,
        token: &str,
        issuer: &str,
        client: (&str, &str),
        now: Timestamp,
    ) -> Result<(Person, Timestamp), Invalid> {
        if token.len() > MAX_ID_TOKEN_BYTES {
            return Err(Invalid::Token("it is too long"));
        }
        let claimed = token::Claimed::read(token)?;
        if claimed.issuer != issuer {
            return Err(Invalid::Token("its issuer is another"));
        }
        let known = access.issuers.iter().find(|known| *known.issuer == *issuer);
        let issuer = known.ok_or(UNKNOWN_ISSUER)?;
        let key = self.keys_of(&issuer.issuer).key(&claimed).await?;
        token::identify(token, &claimed, &key, issuer, client, now)
    }

    fn keys_of(&self, issuer: &Arc<str>) -> Arc<SigningKeys> {
        let known = self.issuers.read().unwrap_or_else(PoisonError::into_inner).get(issuer).cloned();
        known.unwrap_or_else(|| {
            let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(SigningKeys::new(Arc::clone(issuer), Arc::clone(&self.epoch)));
            Arc::clone(issuers.entry(Arc::clone(issuer)).or_insert_with(new))
        })
    }

    fn remember(&self, token: &str, entry: Remembered, now: Timestamp) {
        let mut remembered = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, other| {
                other.holds(&entry.revision, entry.epoch, now) && !other.verified.ended(now)
            });
            if remembered.len() >= MAX_REMEMBERED {
                // Clears everything, as an order of use would cost every call a write.
                remembered.clear();
            }
        }
        remembered.insert(blake3::hash(token.as_bytes()), entry);
    }
}

/// The digest finds the token and the comparison confirms it, so timing does not reveal how much of a secret was right.
fn service_token(access: &AccessPolicy, token: &str, now: Timestamp) -> Result<Arc<Principal>, Invalid> {
    of_digest(access, &digest(token), now)
}

/// The digest of a service token, by which the policy knows it.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The holder of a session, with the roles that `access` gives them.
pub(super) fn holder(
    access: &AccessPolicy,
    signed_in: &SignedIn,
    now: Timestamp,
) -> Result<Arc<Principal>, Invalid> {
    match &signed_in.who {
        Who::ServiceToken(digest) => of_digest(access, digest, now),
        Who::Person(person) => caller(access, person),
    }
}

/// The person, with the roles that `access` gives them.
pub(super) fn caller(access: &AccessPolicy, person: &Person) -> Result<Arc<Principal>, Invalid> {
    let known = access.issuers.iter().find(|issuer| *issuer.issuer == *person.issuer);
    known.map(|issuer| Arc::new(token::caller(person, issuer))).ok_or(UNKNOWN_ISSUER)
}

fn of_digest(access: &AccessPolicy, digest: &[u8; 32], now: Timestamp) -> Result<Arc<Principal>, Invalid> {
    let known = access.tokens.get(digest).filter(|known| known.sha256.ct_eq(digest).into());
    match known {
        None => Err(Invalid::Token("it is not one of the policy's")),
        Some(known) if known.expires_at.is_some_and(|end| now >= end) => Err(Invalid::Expired),
        Some(known) => Ok(Arc::clone(&known.principal)),
    }
}
