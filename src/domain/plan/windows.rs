//! Sliding windows alone: for callers of which neither the size nor the cost of a request is known.

use super::{Line, limits::want};
use crate::domain::{
    Timestamp,
    calendar::Days,
    caller::ResolvedCaller,
    decision::Violations,
    eligibility::{models, paused},
    holds::Term,
    limit::{Quantity, Window},
    snapshot::Snapshot,
};

/// What is counted for one caller.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// The model; empty: it is not known, and only limits of all models count it.
    pub model: &'a str,
    /// The caller's user; empty: none.
    pub user: &'a str,
    /// Requests or tokens.
    pub quantity: Quantity,
}

/// What refuses `caller` before any counter is checked, as far as it can be known.
///
/// # Errors
/// All that refuses, and what is in shadow beside it.
pub fn check_windows(
    snapshot: &Snapshot,
    caller: &ResolvedCaller<'_>,
    counted: Counted<'_>,
    now: Timestamp,
) -> Result<(), Violations> {
    caller.check(now)?;
    let model = Some(counted.model).filter(|model| !model.is_empty());
    let refusing = paused(&snapshot.pauses, caller, model).collect();
    let mut violations = Violations { refusing, shadow: Vec::new() };
    if let Some(model) = model {
        models(caller, &snapshot.policy.catalogue, model, &mut violations);
    }
    if violations.refusing.is_empty() { Ok(()) } else { Err(violations) }
}

/// The sliding windows that count it, each with its counter: those of the organization, the team, the key, the user and, if it is known, the
/// model.
#[must_use]
pub fn windows(
    snapshot: &Snapshot,
    caller: &ResolvedCaller<'_>,
    counted: Counted<'_>,
    today: &Days,
) -> Vec<(Term, Line)> {
    let (organization, team) = (&snapshot.policy.organization, caller.team);
    let known = snapshot.policy.catalogue.model(counted.model);
    let model = known.map_or(counted.model, |model| &*model.name);
    let of_models = organization.model_limits.iter().chain(&team.model_limits);
    let of_models = of_models.filter(|(pattern, _)| !model.is_empty() && pattern.matches(model));
    let of_key = caller.key.map(|key| key.limits.as_slice()).unwrap_or_default();
    let shared = organization.limits.others.iter().chain(&team.limits.others);
    let shared = shared.chain(of_models.flat_map(|(_, limits)| limits)).chain(of_key);
    let of_user = team.user_limits.iter().filter(|_| !counted.user.is_empty());
    let all = shared.map(|limit| (limit, None)).chain(of_user.map(|limit| (limit, Some(counted.user))));
    all.filter(|(limit, _)| limit.quantity == counted.quantity && matches!(limit.window, Window::Sliding(_)))
        .map(|(limit, user)| want(limit, user, today))
        .collect()
}
