//! A key may narrow its team's policy and never widen it.

use super::{
    findings::Findings,
    place::Place,
    read::{DeclaredKey, DeclaredTeam},
};
use crate::domain::{
    key::{Widening, WiderLimit, widenings},
    limit::Quantity,
    money::NanoUsd,
};

/// Reports everything that a key of `team` would permit but the team may not do.
pub(super) fn check(team: &DeclaredTeam, findings: &Findings) {
    for key in findings.while_few(&team.keys) {
        for widening in findings.while_few(widenings(&key.key, &team.team)) {
            report(team, key, widening, findings);
        }
    }
    for limit in findings.while_few(&team.team.user_limits) {
        if let Some(wider) = WiderLimit::of(limit, &team.team) {
            let (own, of_team) = bounds(&wider);
            let message = format!("each user's limit, {own}, is larger than the team's, {of_team}");
            findings.warning(
                &Place::of_limit(&limit.id),
                message,
                "it never refuses anything; lower it or remove it",
            );
        }
    }
}

fn report(team: &DeclaredTeam, key: &DeclaredKey, widening: Widening<'_>, findings: &Findings) {
    let name = &team.team.name;
    match widening {
        // That the team has no models is reported there.
        Widening::Model(_) if team.models.is_empty() => {}
        Widening::Model(wide) => {
            for pattern in key.models.iter().filter(|pattern| pattern.value == *wide) {
                let message = format!("`{wide}` is not among the models of team `{name}`");
                let help = "a key narrows its team's policy; permit the model to the team first";
                findings.error(&pattern.place, message, help);
            }
        }
        Widening::Operation(wide) => {
            for operation in key.operations.iter().filter(|operation| operation.value == wide) {
                let message = format!("`{wide}` is not among the operations of team `{name}`");
                let help = "a key narrows its team's policy; permit it to the team first";
                findings.error(&operation.place, message, help);
            }
        }
        Widening::MaxOutputTokens { key: own, team } => {
            let message = format!("`{own}` is more than the team's `max_output_tokens`, {team}");
            findings.error(&key.place.key("max_output_tokens"), message, "a key narrows its team's policy");
        }
        Widening::Limit(wider) => {
            let (own, of_team) = bounds(&wider);
            let message = format!("`{own}` is more than the team's, {of_team}");
            findings.error(&Place::of_limit(&wider.limit.id), message, "a key narrows its team's policy");
        }
    }
}

/// The bounds of a limit and of its team's.
fn bounds(wider: &WiderLimit<'_>) -> (String, String) {
    (shown(wider.limit.quantity, wider.bound), shown(wider.limit.quantity, wider.team))
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
