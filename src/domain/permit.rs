//! Who may ask for what: everything that is decided before any counter is asked.

use std::sync::Arc;

use super::{
    Timestamp,
    decision::{Measure, Reason, Retry, Violation},
    policy::{Key, OnExceed, Policy, Team},
    price::{PriceError, Rates, catalogue::Model},
    request::{AuthorizeRequest, Billing, Caller, Operation, ServiceTier, Size},
};

/// Who asks, resolved.
#[derive(Clone, Debug)]
pub struct Who<'p> {
    /// The team.
    pub team: &'p Arc<Team>,
    /// The key, where the caller named one.
    pub key: Option<&'p Arc<Key>>,
}

impl<'p> Who<'p> {
    /// Finds the caller in the policy.
    ///
    /// # Errors
    /// The violation, for a team or key that is not there or has expired.
    pub fn find(policy: &'p Policy, caller: &Caller, now: Timestamp) -> Result<Self, Violation> {
        let who = Self::named(policy, caller)?;
        match who.key {
            Some(key) if key.expires_at.is_some_and(|end| now >= end) => {
                let id = format!("teams.{}.keys.{}.expires", who.team.name, key.name);
                Err(refusal(Reason::KeyExpired, id, format!("the key `{}` has expired", key.name)))
            }
            _ => Ok(who),
        }
    }

    /// Finds whom the caller names in the policy, also by a key that has expired.
    ///
    /// # Errors
    /// The violation, for a team or key that is not there.
    pub fn named(policy: &'p Policy, caller: &Caller) -> Result<Self, Violation> {
        match caller {
            Caller::Team(name) => {
                policy.teams.get(name.as_str()).map(|team| Self { team, key: None }).ok_or_else(|| {
                    refusal(Reason::UnknownTeam, "", format!("the policy has no team `{name}`"))
                })
            }
            Caller::Key(digest) => {
                let (team, key) = policy.keys.get(digest).ok_or_else(|| {
                    refusal(Reason::InvalidKey, "", "the API key is not one of the policy's".to_owned())
                })?;
                Ok(Self { team, key: Some(key) })
            }
        }
    }
}

/// The `model` called `name`, its price for `operation` at `now`, and until when that holds.
///
/// # Errors
/// The violation, where there is none.
pub(super) fn price<'p>(
    model: Option<&'p Model>,
    name: &str,
    tier: ServiceTier,
    operation: Operation,
    now: Timestamp,
) -> Result<(&'p Model, Rates, Timestamp), Violation> {
    let unpriced = || not_priced(name, &PriceError::NotPriced { operation, rate: "at all" });
    let model = model.ok_or_else(unpriced)?;
    let (rates, until) = model.rates(tier, now).ok_or_else(unpriced)?;
    rates.input_only(operation, &Size::default()).map_err(|error| not_priced(name, &error))?;
    Ok((model, rates, until))
}

/// The violation of a request whose cost is not known.
pub(super) fn not_priced(model: &str, error: &PriceError) -> Violation {
    let message =
        format!("the cost of `{model}` cannot be bounded: {error}; add it under [[prices]] in the policy");
    refusal(Reason::ModelNotPriced, "prices", message)
}

/// Whether team and key may use the model and the operation.
pub(super) fn permissions(who: &Who<'_>, request: &AuthorizeRequest, violations: &mut Vec<Violation>) {
    let team = who.team;
    let place = |key: Option<&Arc<Key>>, field: &str| match key {
        Some(key) => format!("teams.{}.keys.{}.{field}", team.name, key.name),
        None => format!("teams.{}.{field}", team.name),
    };
    let model = request.model.as_str();
    let narrowed =
        who.key.filter(|key| key.models.as_ref().is_some_and(|m| !m.iter().any(|p| p.matches(model))));
    let team_refuses = !team.models.iter().any(|pattern| pattern.matches(model));
    if team_refuses || narrowed.is_some() {
        let id = place(narrowed.filter(|_| !team_refuses), "models");
        let message = format!("`{model}` is not in `{id}`");
        violations.push(refusal(Reason::ModelNotAllowed, id, message));
    }
    let operation = request.operation;
    let narrowed = who.key.filter(|key| key.operations.as_ref().is_some_and(|ops| !ops.contains(&operation)));
    let team_refuses = !team.operations.contains(&operation);
    if team_refuses || narrowed.is_some() {
        let id = place(narrowed.filter(|_| !team_refuses), "operations");
        let message = format!("`{operation}` is not in `{id}`");
        violations.push(refusal(Reason::OperationNotAllowed, id, message));
    }
}

/// The output tokens to grant: the least of what is asked and what team, key and model permit.
pub(super) fn output_cap(
    model: Option<&Model>,
    who: &Who<'_>,
    request: &AuthorizeRequest,
    violations: &mut Vec<Violation>,
    warnings: &mut Vec<String>,
) -> u64 {
    if !matches!(request.operation.billing(), Billing::Tokens | Billing::BatchTokens) {
        return 0;
    }
    let team = &who.team;
    let wanted = request.size.max_output_tokens;
    let caps = [
        (team.max_output_tokens, CapOf::Team),
        (who.key.and_then(|key| key.max_output_tokens), CapOf::Key),
        (model.and_then(Model::output_bound), CapOf::Model),
    ];
    let Some((cap, of)) =
        caps.into_iter().filter_map(|(cap, of)| cap.map(|cap| (cap, of))).min_by_key(|(cap, _)| *cap)
    else {
        if wanted == 0 {
            violations.push(unbounded(team, &request.model));
        }
        return wanted;
    };
    if cap > 0 && wanted <= cap {
        return if wanted == 0 { cap } else { wanted };
    }
    let id = match (of, who.key) {
        (CapOf::Key, Some(key)) => format!("teams.{}.keys.{}.max_output_tokens", team.name, key.name),
        (CapOf::Model, _) => format!("models.{}.max_output_tokens", request.model),
        _ => format!("teams.{}.max_output_tokens", team.name),
    };
    match team.on_exceed {
        // A grant of none would be read as none given.
        OnExceed::Clamp if cap > 0 && !request.fixed_output => {
            warnings.push(format!("max_output_tokens clamped from {wanted} to {cap} by `{id}`"))
        }
        _ => {
            let message = match wanted {
                0 => format!("`{id}` permits no output tokens"),
                _ => format!("{wanted} output tokens were asked for; `{id}` permits {cap}"),
            };
            violations.push(Violation {
                quantity: Measure::OutputTokens,
                limit: cap,
                requested: wanted,
                ..refusal(Reason::MaxOutputTokensExceeded, id, message)
            });
        }
    }
    cap
}

/// Nobody says how much output there can be, so the worst case has no bound.
fn unbounded(team: &Team, model: &str) -> Violation {
    let id = format!("teams.{}.max_output_tokens", team.name);
    let message = format!(
        "the output of `{model}` has no known bound; give `max_output_tokens` in the request, or `{id}` in the policy"
    );
    Violation { quantity: Measure::OutputTokens, ..refusal(Reason::MaxOutputTokensExceeded, id, message) }
}

#[derive(Clone, Copy)]
enum CapOf {
    Team,
    Key,
    Model,
}

/// A refusal that no waiting helps and no counter is involved in.
fn refusal(reason: Reason, limit_id: impl Into<String>, message: String) -> Violation {
    Violation {
        reason,
        scope: None,
        limit_id: limit_id.into(),
        quantity: Measure::None,
        limit: 0,
        used: 0,
        requested: 0,
        retry: Retry::Never,
        message,
    }
}
