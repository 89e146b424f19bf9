//! What refuses a request before any counter is checked.

use super::{
    Timestamp,
    batch::Work,
    caller::ResolvedCaller,
    decision::{Measure, Reason, Retry, Violation, Violations},
    key::VirtualKey,
    limit::LimitMode,
    pause::{Pauses, Target},
    policy::{ModelPattern, OnExceed, Team},
    price::{
        PriceError, Rates,
        catalogue::{Catalogue, Model},
    },
    request::{AuthorizeRequest, Billing, ServiceTier, Size},
};

/// Every pause that applies to a request of `caller`, and to `model` if the request names one. Waiting does not help: a pause
/// lasts until it is lifted.
pub fn paused<'a>(
    pauses: &'a Pauses,
    caller: &'a ResolvedCaller<'_>,
    model: Option<&'a str>,
) -> impl Iterator<Item = Violation> + 'a {
    let (team, key) = (&*caller.team.name, caller.key.map(|key| &*key.name));
    let met = pauses.iter().filter(move |(target, _)| target.covers(team, key, model));
    met.map(move |(target, pause)| {
        let place = match target {
            Target::Organization => "organization".to_owned(),
            Target::Team(team) => format!("teams.{team}"),
            Target::Key(key) => format!("teams.{team}.keys.{key}"),
            Target::Model(pattern) => format!("models.{pattern}"),
        };
        let message = format!("{} is paused: {}", target.describe(), pause.reason);
        Violation { scope: Some(target.scope()), ..refusal(Reason::Paused, place, message) }
    })
}

/// The model called `name`, its price for `work` at `now`, and how long that price holds.
///
/// # Errors
/// The violation, if there is no such model or no price.
pub(super) fn price<'p>(
    model: Option<&'p Model>,
    name: &str,
    tier: ServiceTier,
    work: Work,
    now: Timestamp,
) -> Result<(&'p Model, Rates, Timestamp), Violation> {
    let unpriced =
        || not_priced(name, &PriceError::NotPriced { operation: work.line_operation(), rate: "at all" });
    let model = model.ok_or_else(unpriced)?;
    let (rates, until) = model.rates(tier, now).ok_or_else(unpriced)?;
    rates.input_only(work, &Size::default()).map_err(|error| not_priced(name, &error))?;
    Ok((model, rates, until))
}

/// The violation of a request whose cost is unknown.
pub(super) fn not_priced(model: &str, error: &PriceError) -> Violation {
    let message =
        format!("the cost of `{model}` cannot be bounded: {error}; add it under [[prices]] in the policy");
    refusal(Reason::ModelNotPriced, "prices", message)
}

/// The correct name to suggest if the name of a model differs from a known one only in case.
#[must_use]
pub fn spelling(catalogue: &Catalogue, name: &str) -> String {
    let known = catalogue.spelt_like(name).filter(|_| catalogue.model(name).is_none());
    known.map(|known| told_apart(&known.name)).unwrap_or_default()
}

/// The same for a pattern.
#[must_use]
pub fn spelling_of(catalogue: &Catalogue, pattern: &ModelPattern) -> String {
    let start = match pattern {
        ModelPattern::Exact(name) => return spelling(catalogue, name),
        ModelPattern::Prefix(start) => start,
    };
    if catalogue.models().any(|model| pattern.matches(&model.name)) {
        return String::new();
    }
    let same = |model: &Model| {
        let beginning = model.name.get(..start.len())?;
        beginning.eq_ignore_ascii_case(start).then(|| told_apart(&format!("{beginning}*")))
    };
    catalogue.models().find_map(same).unwrap_or_default()
}

fn told_apart(known: &str) -> String {
    format!("; names are told apart by case: write `{known}`")
}

/// Whether team and key may use the model and the operation. Where both refuse alike, the team's list is named.
pub(super) fn permissions(
    caller: &ResolvedCaller<'_>,
    catalogue: &Catalogue,
    request: &AuthorizeRequest,
    violations: &mut Violations,
) {
    models(caller, catalogue, &request.model, violations);
    let (team, operation) = (caller.team, request.operation);
    let narrowed =
        caller.key.filter(|key| key.operations.as_ref().is_some_and(|ops| !ops.contains(&operation)));
    let team_refuses = !team.operations.contains(&operation);
    for (mode, key) in refusing(team, team_refuses, narrowed) {
        let id = list_id(team, key, "operations");
        let message = format!("`{operation}` is not in `{id}`");
        violations.add(mode, refusal(Reason::OperationNotAllowed, id, message));
    }
}

/// Whether team and key may use the model, as [`permissions`] tells it.
pub(super) fn models(
    caller: &ResolvedCaller<'_>,
    catalogue: &Catalogue,
    model: &str,
    violations: &mut Violations,
) {
    let team = caller.team;
    let narrowed =
        caller.key.filter(|key| key.models.as_ref().is_some_and(|m| !m.iter().any(|p| p.matches(model))));
    let team_refuses = !team.models.iter().any(|pattern| pattern.matches(model));
    for (mode, key) in refusing(team, team_refuses, narrowed) {
        let id = list_id(team, key, "models");
        let message = format!("`{model}` is not in `{id}`{}", spelling(catalogue, model));
        violations.add(mode, refusal(Reason::ModelNotAllowed, id, message));
    }
}

/// The place of a list in the policy: the team's, or that of its key.
fn list_id(team: &Team, key: Option<&VirtualKey>, field: &str) -> String {
    match key {
        Some(key) => format!("teams.{}.keys.{}.{field}", team.name, key.name),
        None => format!("teams.{}.{field}", team.name),
    }
}

/// The lists that refuse, each with its mode: the team's, and that of the key that refuses, unless both do in one mode.
fn refusing<'k>(
    team: &Team,
    team_refuses: bool,
    narrowed: Option<&'k VirtualKey>,
) -> impl Iterator<Item = (LimitMode, Option<&'k VirtualKey>)> {
    let of_team = team_refuses.then_some((team.mode, None));
    let of_key = narrowed.map(|key| (key.mode, Some(key)));
    of_team.into_iter().chain(of_key.filter(|(mode, _)| of_team.is_none_or(|(of_team, _)| of_team != *mode)))
}

/// The output tokens to grant: the minimum of what is requested and what team, key and model permit. The bounds of team and
/// key apply to one request; for a batch only the model's bound applies, to each line. Where only bounds in shadow are known, they
/// bound a request that gives none.
pub(super) fn output_cap(
    model: Option<&Model>,
    caller: &ResolvedCaller<'_>,
    request: &AuthorizeRequest,
    violations: &mut Violations,
    warnings: &mut Vec<String>,
) -> u64 {
    let work = request.work();
    if work.billing() != Billing::Tokens {
        return 0;
    }
    let team = &caller.team;
    let wanted = request.size.max_output_tokens;
    let of_one = |cap: Option<u64>| cap.filter(|_| work.batch().is_none());
    let of_lines = |bound: u64| bound.saturating_mul(work.lines());
    let of_key = caller.key.map_or((None, LimitMode::Enforce), |key| (key.max_output_tokens, key.mode));
    let caps = [
        (of_one(team.max_output_tokens), CapOf::Team, team.mode),
        (of_one(of_key.0), CapOf::Key, of_key.1),
        (model.and_then(Model::output_bound).map(of_lines), CapOf::Model, LimitMode::Enforce),
    ];
    let least = |mode| {
        let of_mode = caps.into_iter().filter(|(.., own)| *own == mode);
        of_mode.filter_map(|(cap, of, _)| Some((cap?, of))).min_by_key(|(cap, _)| *cap)
    };
    let refuses = |cap| cap == 0 || wanted > cap;
    // A grant of zero would be read as no grant.
    let clamps = |cap| team.on_exceed == OnExceed::Clamp && cap > 0 && !request.fixed_output;
    let in_shadow = least(LimitMode::Shadow);
    if let Some((cap, of)) = in_shadow.filter(|(cap, _)| refuses(*cap) && !clamps(*cap)) {
        violations.add(LimitMode::Shadow, over_cap(caller, request, cap, of));
    }
    let Some((cap, of)) = least(LimitMode::Enforce) else {
        let unasked = in_shadow.filter(|(cap, _)| wanted == 0 && *cap > 0);
        return unasked.map_or_else(
            || {
                if wanted == 0 {
                    violations.add(LimitMode::Enforce, unbounded(team, &request.model));
                }
                wanted
            },
            |(cap, _)| cap,
        );
    };
    if !refuses(cap) {
        return if wanted == 0 { cap } else { wanted };
    }
    if clamps(cap) {
        let id = cap_id(caller, request, of);
        warnings.push(format!("max_output_tokens clamped from {wanted} to {cap} by `{id}`"));
    } else {
        violations.add(LimitMode::Enforce, over_cap(caller, request, cap, of));
    }
    cap
}

/// The place of the cap.
fn cap_id(caller: &ResolvedCaller<'_>, request: &AuthorizeRequest, of: CapOf) -> String {
    let team = &caller.team.name;
    match (of, caller.key) {
        (CapOf::Key, Some(key)) => format!("teams.{team}.keys.{}.max_output_tokens", key.name),
        (CapOf::Model, _) => format!("models.{}.max_output_tokens", request.model),
        _ => format!("teams.{team}.max_output_tokens"),
    }
}

/// The violation of a request for more output tokens than `cap`.
fn over_cap(caller: &ResolvedCaller<'_>, request: &AuthorizeRequest, cap: u64, of: CapOf) -> Violation {
    let (wanted, id) = (request.size.max_output_tokens, cap_id(caller, request, of));
    let message = match (wanted, request.work().batch()) {
        (0, _) => format!("`{id}` permits no output tokens"),
        (_, Some(batch)) if batch.request_count == 1 => {
            format!("{wanted} output tokens were asked for; `{id}` permits {cap} in a batch of one line")
        }
        (_, Some(batch)) => format!(
            "{wanted} output tokens were asked for; `{id}` permits {cap} in a batch of {} lines",
            batch.request_count
        ),
        _ => format!("{wanted} output tokens were asked for; `{id}` permits {cap}"),
    };
    Violation {
        quantity: Measure::OutputTokens,
        limit: cap,
        requested: wanted,
        ..refusal(Reason::MaxOutputTokensExceeded, id, message)
    }
}

/// There is no bound on the output, so the worst case has no bound either.
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

/// A refusal that waiting does not help and that involves no counter.
pub fn refusal(reason: Reason, limit_id: impl Into<String>, message: String) -> Violation {
    Violation {
        reason,
        scope: None,
        limit_id: limit_id.into(),
        project: String::new(),
        quantity: Measure::None,
        limit: 0,
        used: 0,
        requested: 0,
        retry: Retry::Never,
        message,
    }
}
