//! A key may narrow its team's policy and never widen it.

use super::{
    findings::Findings,
    place::Place,
    read::{DeclaredKey, DeclaredTeam},
};
use crate::domain::{
    limit::{Limit, Quantity},
    money::NanoUsd,
};

/// Reports everything that a key of `team` would permit but the team may not do.
pub(super) fn check(team: &DeclaredTeam, findings: &Findings) {
    for key in &team.keys {
        models(team, key, findings);
        operations(team, key, findings);
        output(team, key, findings);
        limits(team, key, findings);
    }
    for limit in &team.team.user_limits {
        if let Some(larger) = larger(limit, &team.team.limits) {
            let message =
                format!("each user's limit, {}, is larger than the team's, {}", larger.own, larger.team);
            findings.warning(
                &Place::of_limit(&limit.id),
                message,
                "it never refuses anything; lower it or remove it",
            );
        }
    }
}

fn models(team: &DeclaredTeam, key: &DeclaredKey, findings: &Findings) {
    for pattern in &key.models {
        if !team.models.is_empty() && !team.models.iter().any(|known| known.value.covers(&pattern.value)) {
            let message = format!("`{}` is not among the models of team `{}`", pattern.value, team.team.name);
            findings.error(
                &pattern.place,
                message,
                "a key narrows its team's policy; permit the model to the team first",
            );
        }
    }
}

fn operations(team: &DeclaredTeam, key: &DeclaredKey, findings: &Findings) {
    for operation in &key.operations {
        if !team.team.operations.contains(&operation.value) {
            let message =
                format!("`{}` is not among the operations of team `{}`", operation.value, team.team.name);
            findings.error(
                &operation.place,
                message,
                "a key narrows its team's policy; permit it to the team first",
            );
        }
    }
}

fn output(team: &DeclaredTeam, key: &DeclaredKey, findings: &Findings) {
    if let (Some(own), Some(of_team)) = (key.key.max_output_tokens, team.team.max_output_tokens)
        && own > of_team
    {
        let message = format!("`{own}` is more than the team's `max_output_tokens`, {of_team}");
        findings.error(&key.place.key("max_output_tokens"), message, "a key narrows its team's policy");
    }
}

fn limits(team: &DeclaredTeam, key: &DeclaredKey, findings: &Findings) {
    for limit in &key.key.limits {
        if let Some(larger) = larger(limit, &team.team.limits) {
            let message = format!("`{}` is more than the team's, {}", larger.own, larger.team);
            findings.error(&Place::of_limit(&limit.id), message, "a key narrows its team's policy");
        }
    }
}

struct Larger {
    own: String,
    team: String,
}

/// The bounds of `own` and of the team's limit on the same thing, if the team's is smaller.
fn larger(own: &Limit, team: &[Limit]) -> Option<Larger> {
    let same = team.iter().find(|limit| limit.quantity == own.quantity && limit.window == own.window)?;
    let (own_bound, team_bound) = (own.bound?, same.bound?);
    let shown = |bound| shown(own.quantity, bound);
    (own_bound > team_bound).then(|| Larger { own: shown(own_bound), team: shown(team_bound) })
}

/// A bound as the policy writes it.
pub(super) fn shown(quantity: Quantity, bound: u64) -> String {
    match quantity {
        Quantity::NanoUsd => NanoUsd::new(bound).unwrap_or(NanoUsd::MAX).to_string(),
        Quantity::AudioMilliseconds => (bound / 1_000).to_string(),
        Quantity::Requests | Quantity::Tokens | Quantity::RequestsInFlight | Quantity::UnsettledRequests => {
            bound.to_string()
        }
    }
}
