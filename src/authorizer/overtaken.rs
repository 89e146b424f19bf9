//! Decisions by what was known, where that became too old while the store was asked.

use super::{Authorizer, Decided, Failure, decided::denied};
use crate::{
    domain::{
        caller::ResolvedCaller,
        decision::{Reason, Violation},
        plan,
        request::{AuthorizeRequest, Caller},
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

    /// What was decided; or, where it is allowed and what was known became too old while the store was asked (as in a process
    /// that was stopped), the denial by what is known now. What was reserved for it is released like any answer that no caller
    /// gets; what a repeat found stays, as it is of who got it.
    pub(super) async fn unless_overtaken(
        &self,
        request: &AuthorizeRequest,
        decided: Decided,
    ) -> Result<Decided, Failure> {
        if decided.outcome.is_err() || self.shared.live.freshness().is_fresh() {
            return Ok(decided);
        }
        self.freshen().await?;
        let snapshot = self.snapshot();
        let now = self.store.now();
        let today = self.today(&snapshot.policy, now);
        let caller = snapshot.resolve(&request.caller).map_err(|violation| vec![violation]);
        let plan = caller.and_then(|caller| plan::compile(&snapshot, caller, request, now, &today));
        Ok(match plan {
            Ok(_) => decided,
            Err(violations) => denied(&snapshot, violations, Vec::new()),
        })
    }

    /// Counts a use of the secret that `caller` presented, if it is one of a created key.
    pub fn count_use(&self, caller: &ResolvedCaller<'_>) {
        if let Some(secret) = caller.secret {
            self.shared.live.count_use(secret.id, self.store.now());
        }
    }
}

/// Whether a refusal that needed no counter may be told; `fresh`: what [`Authorizer::freshen`] said before the policy that refuses was
/// taken. What is known to refuse goes on refusing while the store is away; only a key that is not known may have been made since.
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
