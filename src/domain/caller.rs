//! The caller of a request, found in a snapshot.

use super::{
    Timestamp,
    decision::{Reason, Violation},
    eligibility::refusal,
    key::{KeySecret, VirtualKey},
    policy::Team,
    request::Caller,
    snapshot::Snapshot,
};

/// The caller of a request as found in a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct ResolvedCaller<'s> {
    /// The team.
    pub team: &'s Team,
    /// The key, if the caller named one.
    pub key: Option<&'s VirtualKey>,
    /// The secret that the caller presented, if it belongs to a created key.
    pub secret: Option<&'s KeySecret>,
    /// Whether the registry has not been read yet, so that pauses are unknown.
    is_pending: bool,
}

impl Snapshot {
    /// Finds `caller`, even if its key has expired or was revoked: [`ResolvedCaller::check`] tells.
    ///
    /// # Errors
    /// The violation, if the team or key does not exist, or if it is not known yet whether it does.
    pub fn resolve(&self, caller: &Caller) -> Result<ResolvedCaller<'_>, Violation> {
        let invalid = |message: &str| refusal(Reason::InvalidKey, "", message.to_owned());
        match caller {
            Caller::Team(name) => {
                let team = self.policy.teams.get(name.as_str());
                team.map(|team| self.caller_of(team, None, None)).ok_or_else(|| {
                    refusal(Reason::UnknownTeam, "", format!("the policy has no team `{name}`"))
                })
            }
            Caller::Key(digest) => {
                if let Some(key) = self.policy.keys.find(digest) {
                    return self.with_key(key, None);
                }
                match self.keys.find(digest) {
                    Some((key, secret)) => self.with_key(key, Some(secret)),
                    None if self.is_pending => {
                        let message = "the keys have not been read yet".to_owned();
                        Err(refusal(Reason::StoreUnavailable, "", message))
                    }
                    None => Err(invalid("the API key is not one of the policy's")),
                }
            }
            Caller::Mistyped => {
                Err(invalid("the API key is mistyped or incomplete: its last letters do not fit the others"))
            }
        }
    }

    /// The caller of a recorded request: the team, and its key of this name, declared or created.
    ///
    /// # Errors
    /// The violation, if there is no such team.
    pub fn resolve_names(&self, team: &str, key: &str) -> Result<ResolvedCaller<'_>, Violation> {
        let found = self.resolve(&Caller::Team(team.to_owned()))?;
        let declared = self.policy.keys.named(key).iter().find(|key| *key.team == *team);
        let created = || self.keys.named(key).filter(|key| *key.team == *team);
        Ok(ResolvedCaller { key: declared.or_else(created).map(|key| &**key), ..found })
    }

    fn with_key<'s>(
        &'s self,
        key: &'s VirtualKey,
        secret: Option<&'s KeySecret>,
    ) -> Result<ResolvedCaller<'s>, Violation> {
        let gone = || {
            let message =
                format!("the policy has no team `{}`, of which the key `{}` is", key.team, key.name);
            refusal(Reason::UnknownTeam, "", message)
        };
        let team = self.policy.teams.get(&key.team).ok_or_else(gone)?;
        Ok(self.caller_of(team, Some(key), secret))
    }

    const fn caller_of<'s>(
        &self,
        team: &'s Team,
        key: Option<&'s VirtualKey>,
        secret: Option<&'s KeySecret>,
    ) -> ResolvedCaller<'s> {
        ResolvedCaller { team, key, secret, is_pending: self.is_pending }
    }
}

impl<'s> ResolvedCaller<'s> {
    /// Checks that the caller may ask at `now`.
    ///
    /// # Errors
    /// The violation, if its key has expired or was revoked, or if it is not known yet what is paused.
    pub fn check(&self, now: Timestamp) -> Result<(), Violation> {
        if self.is_pending {
            let message = "what is paused has not been read yet".to_owned();
            return Err(refusal(Reason::StoreUnavailable, "", message));
        }
        let Some(key) = self.key else { return Ok(()) };
        let (name, place) = (&key.name, |field| format!("{}{field}", key.place()));
        if key.stored.as_ref().is_some_and(|stored| stored.record.revoked_at.is_some()) {
            let message = format!("the key `{name}` was revoked");
            return Err(refusal(Reason::KeyRevoked, place(""), message));
        }
        if key.expires_at.is_some_and(|end| now >= end) {
            let message = format!("the key `{name}` has expired");
            return Err(refusal(Reason::KeyExpired, place(".expires"), message));
        }
        if self.secret.is_some_and(|secret| !secret.is_live(now)) {
            let message = format!("this secret of the key `{name}` has ended; use the newer one");
            return Err(refusal(Reason::KeyExpired, place(".secrets"), message));
        }
        Ok(())
    }

    /// When the key or its secret expires.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let key = self.key?;
        let secret = self.secret.and_then(|secret| secret.ends_at);
        match (key.expires_at, secret) {
            (Some(key), Some(secret)) => Some(key.min(secret)),
            (end, None) | (None, end) => end,
        }
    }

    /// The name of the key; empty if the caller named none.
    #[must_use]
    pub fn key_name(&self) -> &'s str {
        self.key.map_or("", |key| &key.name)
    }
}
