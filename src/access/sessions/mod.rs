//! Sessions of people who signed in to the console.
//!
//! A session lives in a sealed cookie and nowhere else, so every replica with the key knows it. It says who signed in and when, and
//! not what they may do: on each request [`Guard::resume`] makes the caller from the policy in force.
//!
//! ```text
//! sign in ─► begin ─► cookie ─► resume ─┬─ past half of the timeout: the same cookie, made again
//!                                       ├─ idle, too old, signed out: ended
//!                                       └─ older than what the provider said: stale, to be asked again
//! ```

mod counts;
mod keys;
mod signed_in;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;

pub use counts::SessionCounts;
pub use keys::SessionKeyError;
pub use signed_in::{Person, SignedIn, Who};

use self::keys::SessionKeys;
use super::{
    Guard, Organizations, Refusal,
    sealed::{Seal, SealError},
};
use crate::{
    domain::{Timestamp, rbac::Principal},
    runtime::{NoEntropy, Runtime},
};

/// What the cookie of a session is sealed for. Another layout of what it holds has another number.
const PURPOSE: &str = "tollgate console session 2";
/// How far the clocks of two replicas may be apart. A cookie from further in the future is not taken: by a clock that was set back
/// it would live too long.
const MAX_SKEW_MS: u64 = 60_000;
/// What a provider says of a person holds at least this long, so that one whose tokens expire at once is not asked without end.
const MIN_PROOF_MS: u64 = 60_000;

/// How long sessions last, and what seals them.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Files with keys: the first seals, all open. None: a key of this process alone.
    pub key_files: Vec<PathBuf>,
    /// How long a session lasts without a request.
    pub timeout: Duration,
    /// How long it lasts at all.
    pub max_age: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        let (timeout, max_age) = (Duration::from_secs(900), Duration::from_secs(12 * 3_600));
        Self { key_files: Vec::new(), timeout, max_age }
    }
}

/// A session of the request at hand.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Its holder, with the roles of the policy in force.
    pub principal: Arc<Principal>,
    /// What the cookie holds.
    pub signed_in: SignedIn,
    /// The cookie to set with the answer; `None`: the one that came is new enough.
    pub cookie: Option<String>,
}

/// Why a cookie is no session, or none any more.
#[derive(Clone, Debug, Error)]
pub enum Ended {
    /// It was changed, or its key is not in force here, or it is of another release.
    #[error("the session cannot be read")]
    Unreadable,
    /// There was no request for too long.
    #[error("the session was idle for too long")]
    Idle,
    /// It is older than a session may be.
    #[error("the session is too old")]
    Old,
    /// Its holder signed out, on this replica.
    #[error("the session was ended")]
    SignedOut,
    /// What the provider said of its holder has expired; the provider can be asked again without them noticing.
    #[error("the provider has to say again who this is")]
    Stale(Box<SignedIn>),
    /// The policy in force does not know its holder.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why there is no new session.
#[derive(Clone, Debug, Error)]
pub enum BeginError {
    /// It has no room in a cookie.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The system gives no random numbers.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// The sessions of the console. Clones share them.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
    /// Says who is known in the organization that is asked.
    guard: Guard,
}

struct Shared {
    keys: SessionKeys,
    timeout_ms: u64,
    max_age_ms: u64,
    organizations: Organizations,
    runtime: Runtime,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// Sessions of callers that one of `organizations` knows, as the first sees them, by the clock and the random numbers of `runtime`. Reads
    /// the keys.
    ///
    /// # Errors
    /// There is no key to seal with, or no organization.
    pub fn open(
        settings: &SessionSettings,
        organizations: Organizations,
        runtime: Runtime,
    ) -> Result<Self, SessionKeyError> {
        let keys = SessionKeys::open(&settings.key_files, &runtime.entropy)?;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (timeout_ms, max_age_ms) = (ms(settings.timeout), ms(settings.max_age));
        let guard = organizations.first().clone();
        let shared = Arc::new(Shared { keys, timeout_ms, max_age_ms, organizations, runtime });
        Ok(Self { shared, guard })
    }

    /// The same sessions, as the organization of `guard` sees them.
    #[must_use]
    pub fn of(&self, guard: &Guard) -> Self {
        Self { shared: Arc::clone(&self.shared), guard: guard.clone() }
    }

    /// All organizations.
    #[must_use]
    pub fn organizations(&self) -> &Organizations {
        &self.shared.organizations
    }

    /// A new session of `who`, and its cookie. `proven_until`: until when a provider vouches for them. Never one that existed
    /// before: a cookie that another person planted in the browser does not become theirs.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn begin(&self, who: Who, proven_until: Option<Timestamp>) -> Result<(SignedIn, String), BeginError> {
        let now = self.now();
        let until = self.end_of(now, now, proven_until);
        let signed_in = SignedIn::new(who, self.shared.runtime.entropy.bytes()?, now, until);
        let cookie = self.sealed(&signed_in)?;
        self.see(&signed_in, now);
        Ok((signed_in, cookie))
    }

    /// The session `stale`, of which the provider has said again that it is `person`'s, and its cookie. It does not grow older
    /// than a session may: its age counts from when it began. `None`: it is another's, or has ended.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn prove_again(
        &self,
        cookie: &str,
        person: &Person,
        proven_until: Timestamp,
    ) -> Result<Option<(SignedIn, String)>, BeginError> {
        let now = self.now();
        let Some(signed_in) = self.unsealed(cookie).filter(|found| self.fault(found, now).is_none()) else {
            return Ok(None);
        };
        let is_same = matches!(&signed_in.who, Who::Person(known)
            if known.issuer == person.issuer && known.subject == person.subject);
        if !is_same {
            return Ok(None);
        }
        let until = self.end_of(signed_in.began(), now, Some(proven_until));
        let signed_in = signed_in.proven_again(person.clone(), now, until);
        let cookie = self.sealed(&signed_in)?;
        Ok(Some((signed_in, cookie)))
    }

    /// The session in `cookie`, and its holder by the policy in force.
    ///
    /// # Errors
    /// It has ended, or never was.
    pub fn resume(&self, cookie: &str) -> Result<Resumed, Ended> {
        let now = self.now();
        let signed_in = self.unsealed(cookie).ok_or(Ended::Unreadable)?;
        if let Some(fault) = self.fault(&signed_in, now) {
            return Err(fault);
        }
        if now >= signed_in.until() {
            let is_young = now < signed_in.began().plus(self.shared.max_age_ms);
            return Err(match is_young && matches!(signed_in.who, Who::Person(_)) {
                true => Ended::Stale(Box::new(signed_in)),
                false => Ended::Old,
            });
        }
        let principal = self.guard.resume(&signed_in)?;
        self.see(&signed_in, now);
        let is_due = now.since(signed_in.last_renewed()) > self.shared.timeout_ms / 2;
        let renewed = is_due.then(|| signed_in.renewed(now));
        // Where it cannot be sealed, the one that came is good for a while.
        let cookie = renewed.and_then(|renewed| self.sealed(&renewed).ok());
        Ok(Resumed { principal, signed_in, cookie })
    }

    /// The session in `cookie`, whether or not it can be resumed: it may be idle, its provider may have to be asked again, or the policy
    /// may not know its holder. A copy of its cookie may be newer, so such a session can be ended as well. `None`: it is too old for any
    /// copy to count, has ended, or cannot be read.
    #[must_use]
    pub fn read(&self, cookie: &str) -> Option<SignedIn> {
        let signed_in = self.unsealed(cookie)?;
        match self.fault(&signed_in, self.now()) {
            None | Some(Ended::Idle) => Some(signed_in).filter(|found| !self.has_ended(found)),
            Some(_) => None,
        }
    }

    /// Ends a session: its cookie, and every copy of it, is refused by this replica from here on.
    pub fn end(&self, signed_in: &SignedIn) {
        let now = self.now();
        let until = signed_in.began().plus(self.shared.max_age_ms);
        self.guard.sessions().end(signed_in.id(), signed_in.began(), now, until);
    }

    /// Whether a session that was resumed before still holds.
    #[must_use]
    pub fn holds(&self, signed_in: &SignedIn) -> bool {
        self.fault(signed_in, self.now()).is_none() && self.guard.resume(signed_in).is_ok()
    }

    /// What forms hold of a reader of `organization` who is called `name` and has no session, such as the holder of a token in the
    /// request: the first is put into forms, and each is taken. Replicas with the same key files have the same; without files they
    /// are of this process alone.
    #[must_use]
    pub fn form_tokens(&self, organization: &str, name: &str) -> Vec<String> {
        let hashes = self.seal().form_hashes(&[organization.as_bytes(), name.as_bytes()]);
        hashes.iter().map(|hash| hash.to_hex().to_string()).collect()
    }

    /// Who is known, and who is not.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The keys, for what else a browser keeps.
    pub(super) fn seal(&self) -> &Seal {
        &self.shared.keys.seal
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.shared.runtime
    }

    /// Why a session is none, but for what its provider said.
    fn fault(&self, signed_in: &SignedIn, now: Timestamp) -> Option<Ended> {
        let (began, renewed) = (signed_in.began(), signed_in.last_renewed());
        if began.max(renewed) > now.plus(MAX_SKEW_MS) {
            return Some(Ended::Unreadable);
        }
        if now >= began.plus(self.shared.max_age_ms) {
            return Some(Ended::Old);
        }
        if now.since(renewed) > self.shared.timeout_ms {
            return Some(Ended::Idle);
        }
        self.has_ended(signed_in).then_some(Ended::SignedOut)
    }

    fn has_ended(&self, signed_in: &SignedIn) -> bool {
        self.guard.sessions().has_ended(&signed_in.id(), signed_in.began())
    }

    fn end_of(&self, began: Timestamp, now: Timestamp, proven_until: Option<Timestamp>) -> Timestamp {
        let oldest = began.plus(self.shared.max_age_ms);
        proven_until.map_or(oldest, |until| until.max(now.plus(MIN_PROOF_MS)).min(oldest))
    }

    fn see(&self, signed_in: &SignedIn, now: Timestamp) {
        self.guard.sessions().see(signed_in.id(), now, now.plus(self.shared.timeout_ms));
    }

    fn sealed(&self, signed_in: &SignedIn) -> Result<String, SealError> {
        let plain = postcard::to_stdvec(signed_in).map_err(|_| SealError::TooLong)?;
        self.seal().seal(PURPOSE, plain)
    }

    fn unsealed(&self, cookie: &str) -> Option<SignedIn> {
        postcard::from_bytes(&self.seal().open(PURPOSE, cookie)?).ok()
    }

    fn now(&self) -> Timestamp {
        self.shared.runtime.clock.now()
    }
}
