//! Decisions by what was known, where that became too old while the store was asked.

use std::{pin::pin, sync::Arc, time::Instant};

use super::{Authorizer, Decided, Failure, Question, decided::denied};
use crate::{
    domain::{
        caller::ResolvedCaller,
        decision::{Reason, Violation, Violations},
        limit_status::LimitStatuses,
        plan,
        request::Caller,
    },
    store::{Store, StoreError},
};

impl<S: Store + Clone> Authorizer<S> {
    /// Makes sure that what is in force is young enough to decide by.
    ///
    /// # Errors
    /// It is not, and cannot be read now.
    pub async fn freshen(&self) -> Result<(), Failure> {
        Ok(self.follower.freshen().await?)
    }

    /// The same for a caller who has to be answered before `until`.
    pub(super) async fn freshen_by(&self, until: Option<Instant>) -> Result<(), Failure> {
        match self.wait_for_store(until, pin!(self.freshen())).await {
            Ok(fresh) => fresh,
            Err(Failure::Store(StoreError::Unavailable)) => Err(Failure::SnapshotStale),
            Err(failure) => Err(failure),
        }
    }

    /// What was decided; or, where it is allowed and something else came into force while the store was asked (or what was known
    /// became too old, as in a process that was stopped), the denial by what is in force now. What was reserved for it is released
    /// like any answer that no caller gets; what a repeat found stays with the caller who got it.
    pub(super) async fn unless_overtaken(
        &self,
        question: Question<'_>,
        decided: Decided,
    ) -> Result<Decided, Failure> {
        let is_current = || {
            self.shared.live.freshness().is_fresh()
                && Arc::ptr_eq(&question.snapshot.revision, &self.shared.live.peek().revision)
        };
        if decided.outcome.is_err() || is_current() {
            return Ok(decided);
        }
        Box::pin(self.decided_now(question, decided)).await
    }

    async fn decided_now(&self, question: Question<'_>, decided: Decided) -> Result<Decided, Failure> {
        self.freshen().await?;
        let (snapshot, now) = (self.snapshot(), self.store.now());
        let today = self.today(&snapshot.policy, now);
        let caller = snapshot.resolve(&question.request.caller);
        if has_moved(question.caller, &caller) {
            return Err(Failure::KeyMoved);
        }
        let caller = caller.map_err(Violations::from);
        let plan = caller.and_then(|caller| plan::compile(&snapshot, caller, question.request, now, &today));
        Ok(match plan {
            Ok(_) => decided,
            Err(violations) => denied(&snapshot, violations, LimitStatuses::default()),
        })
    }

    /// Counts a use of the secret that `caller` presented, if it is one of a created key.
    pub fn count_use(&self, caller: &ResolvedCaller<'_>) {
        if let Some(secret) = caller.secret {
            self.shared.live.count_use(secret.id, self.store.now());
        }
    }
}

/// Whether a request's key belongs to another team than before. The id of a reservation is derived from the team, and a waiting
/// request counts among that team's.
pub(super) fn has_moved(
    before: &Result<ResolvedCaller<'_>, Violation>,
    now: &Result<ResolvedCaller<'_>, Violation>,
) -> bool {
    matches!((before, now), (Ok(before), Ok(now)) if before.team.name != now.team.name)
}

/// Whether a refusal that needed no counter may be answered; `fresh`: whether the snapshot that refuses was young enough
/// ([`super::View::fresh`]). What is known to refuse goes on refusing while the store is away; only a key that is not known may have
/// been made since.
///
/// # Errors
/// Why nothing can be decided.
pub fn refusal_stands(
    caller: &Caller,
    violation: &Violation,
    fresh: &Result<(), Failure>,
) -> Result<(), Failure> {
    match violation.reason {
        Reason::StoreUnavailable => Err(StoreError::Unavailable.into()),
        Reason::InvalidKey if *caller != Caller::Mistyped => fresh.clone(),
        _ => Ok(()),
    }
}
