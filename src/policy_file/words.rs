//! What a policy permits, in words: what `tollgate check` prints, and what the contract's `DescribeTeam` answers.

use std::sync::Arc;

use crate::domain::{
    Timestamp, explain,
    key::VirtualKey,
    limit::{Limit, LimitMode, Limits, OnShortfall, Quantity, Window},
    outage::{OnStoreOutage, OutageAllowance},
    policy::{ModelPattern, OnExceed, OnUnsettled, Policy, Team},
    price::catalogue::{Inherited, Model, Origin, PriceFrom},
    text::{dollars, group},
    tools::{ToolBound, ToolPattern},
};

/// What the policy says about one subject, such as a team's budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The subject, in lower case.
    pub subject: &'static str,
    /// What it says, one line each; at least one.
    pub lines: Vec<String>,
}

impl Described {
    /// The lines as sentences that stand for themselves.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        let (first, rest) = self.subject.split_at_checked(1).unwrap_or_default();
        self.lines.iter().map(move |line| format!("{}{rest}: {line}.", first.to_ascii_uppercase()))
    }
}

/// The subjects that there is something to say about.
fn described<const N: usize>(subjects: [(&'static str, Vec<String>); N]) -> Vec<Described> {
    let subjects = subjects.into_iter().filter(|(_, lines)| !lines.is_empty());
    subjects.map(|(subject, lines)| Described { subject, lines }).collect()
}

/// What the policy says about the organization as a whole.
#[must_use]
pub fn describe_organization(policy: &Policy) -> Vec<Described> {
    let organization = &policy.organization;
    let stated = |model: &Model| -> Vec<String> {
        let own = model.prices.iter().filter(|price| price.origin == Origin::Policy);
        own.map(|price| format!("{}: {}", model.name, price_in_words(price))).collect()
    };
    described([
        ("budget", budgets(&organization.limits)),
        ("limits", rates(&organization.limits, &organization.model_limits)),
        ("prices", policy.catalogue.models().flat_map(stated).collect()),
    ])
}

/// What the policy says about `team`.
#[must_use]
pub fn describe_team(policy: &Policy, team: &Team) -> Vec<Described> {
    let operations: Vec<_> = team.operations.iter().map(ToString::to_string).collect();
    let operations = if operations.is_empty() { "none".to_owned() } else { operations.join(", ") };
    let mode = match team.mode {
        LimitMode::Enforce => Vec::new(),
        LimitMode::Shadow => {
            vec![
                "in shadow: models, operations, output, caps on batches, and tools refuse nothing".to_owned(),
            ]
        }
    };
    let keys = policy.keys.ordered().iter().filter(|key| key.team == team.name);
    described([
        ("models", vec![patterns(&team.models)]),
        ("operations", vec![operations]),
        ("mode", mode),
        ("output", output(team).into_iter().collect()),
        ("budget", budgets(&team.limits)),
        ("limits", rates(&team.limits, &team.model_limits)),
        ("each user", team.user_limits.iter().filter_map(limit).collect()),
        ("batches", batches(team)),
        ("tools", vec![tools(team)]),
        ("unreported", vec![unreported(team)]),
        ("outages", outages(team).into_iter().collect()),
        ("keys", keys.map(|key| key_line(key)).collect()),
    ])
}

fn output(team: &Team) -> Option<String> {
    let most = team.max_output_tokens?;
    let more = match team.on_exceed {
        OnExceed::Deny => "a request for more is denied",
        OnExceed::Clamp => "a request for more is granted that",
    };
    Some(format!("at most {} tokens; {more}", group(most.into())))
}

fn unreported(team: &Team) -> String {
    let unsettled = match team.on_unsettled {
        OnUnsettled::ChargeReserved => "charged the worst case",
        OnUnsettled::ChargeInput => "charged the estimated input",
        OnUnsettled::Release => "charged nothing",
    };
    let bound = team.limits.iter().find(|limit| limit.window == Window::Unsettled).and_then(limit);
    let bound = bound.map_or_else(String::new, |bound| format!("; at most {bound}"));
    format!("{unsettled}{bound}")
}

/// What is decided while the store does not answer; nothing to say where nothing is.
fn outages(team: &Team) -> Option<String> {
    let admitted = match &team.outage.on_outage {
        OnStoreOutage::Deny => return None,
        OnStoreOutage::Allow => "requests are allowed".to_owned(),
        OnStoreOutage::Allowance(allowance) => {
            format!("each replica allows {} in any minute", allowed(allowance))
        }
    };
    let for_up_to = explain::duration(team.outage.max_outage_ms);
    Some(format!("while the store does not answer, {admitted}, for up to {for_up_to}; then they are denied"))
}

fn allowed(allowance: &OutageAllowance) -> String {
    let count = |most: Option<u64>, what: &str| Some(format!("{} {what}", group(most?.into())));
    let parts = [
        count(allowance.requests, "requests"),
        count(allowance.tokens, "tokens"),
        allowance.nano_usd.map(|most| dollars(most.into())),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn budgets(own: &Limits) -> Vec<String> {
    let budgets: Vec<_> =
        own.iter().filter(|limit| limit.quantity == Quantity::NanoUsd).filter_map(limit).collect();
    if budgets.is_empty() { vec!["none".to_owned()] } else { budgets }
}

fn rates(own: &Limits, by_model: &[(ModelPattern, Vec<Arc<Limit>>)]) -> Vec<String> {
    let is_rate =
        |limit: &&Arc<Limit>| !matches!(limit.quantity, Quantity::NanoUsd | Quantity::UnsettledRequests);
    let own = own.iter().filter(is_rate).filter_map(limit);
    let by_model = by_model.iter().map(|(pattern, of_model)| {
        let lines = of_model.iter().filter_map(limit).collect::<Vec<_>>();
        format!("{pattern}: {}", lines.join(", "))
    });
    own.chain(by_model).collect()
}

/// A price of the policy. A rate that it leaves out comes from an earlier price, and is marked as such.
fn price_in_words(price: &PriceFrom) -> String {
    let (rates, given) = (&price.rates, &price.given);
    let rates = [
        (rates.input, given.input, "a million input tokens"),
        (rates.cached_input, given.cached_input, "a million cached input tokens"),
        (rates.output, given.output, "a million output tokens"),
        (rates.audio_per_hour, given.audio_per_hour, "an hour of audio"),
        (rates.per_million_characters, given.per_million_characters, "a million characters"),
    ];
    let words = rates.into_iter().filter_map(|(rate, given, unit)| {
        let origin = price.inherited.filter(|_| given.is_none()).map(origin).unwrap_or_default();
        Some(format!("{} {unit}{origin}", dollars(rate?.nanos().into())))
    });
    let mut line = words.collect::<Vec<_>>().join(", ");
    if let Some(tier) = price.tier {
        line.push_str(&format!("; tier {tier:?}").to_lowercase());
    }
    if let Some(from) = price.from {
        line.push_str(&format!("; from {}", instant(from)));
    }
    line
}

/// The source of a rate that a price leaves out.
fn origin(from: Inherited) -> String {
    match (from.origin, from.since) {
        (Origin::BuiltIn, _) => " (from the list price)".to_owned(),
        (Origin::Policy, None) => " (from the price before)".to_owned(),
        (Origin::Policy, Some(since)) => format!(" (from the price before, of {})", instant(since)),
    }
}

fn instant(at: Timestamp) -> String {
    let instant = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map(|at| at.to_string()).unwrap_or_default()
}

/// The caps on one batch of the team; nothing if it has none of its own.
fn batches(team: &Team) -> Vec<String> {
    let caps = &team.batch;
    let count = |cap: Option<u64>, what: &str| Some(format!("at most {} {what}", group(cap?.into())));
    let lines = [
        count(caps.max_requests, "lines"),
        count(caps.max_input_tokens, "input tokens"),
        count(caps.max_output_tokens, "output tokens"),
        caps.max_cost.map(|most| format!("at most {}", dollars(most.nanos().into()))),
        caps.open.as_ref().and_then(limit).map(|open| format!("{open} at a time")),
    ];
    lines.into_iter().flatten().collect()
}

/// Groq's tools that requests may enable, and what is reserved for each.
fn tools(team: &Team) -> String {
    let bound = |(pattern, bound): (&ToolPattern, ToolBound)| {
        let run = explain::duration(bound.max_run_ms);
        format!("{pattern} ({} calls, {run})", group(bound.max_calls.into()))
    };
    let bounds: Vec<_> = team.tools.iter().map(bound).collect();
    if bounds.is_empty() { "none".to_owned() } else { bounds.join(", ") }
}

fn patterns(models: &[ModelPattern]) -> String {
    let names: Vec<_> = models.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn key_line(key: &VirtualKey) -> String {
    let mut line = key.name.to_string();
    if let Some(models) = &key.models {
        line.push_str(&format!("; only {}", patterns(models)));
    }
    if let Some(operations) = &key.operations {
        let names: Vec<_> = operations.iter().map(ToString::to_string).collect();
        line.push_str(&format!("; only {}", names.join(", ")));
    }
    if let Some(most) = key.max_output_tokens {
        line.push_str(&format!("; at most {} output tokens", group(most.into())));
    }
    if key.mode == LimitMode::Shadow {
        line.push_str("; in shadow, so that it refuses nothing");
    }
    for limit in key.limits.iter().filter_map(limit) {
        line.push_str(&format!("; {limit}"));
    }
    if let Some(end) = key.expires_at.and_then(|at| i64::try_from(at.0).ok()) {
        let end = jiff::Timestamp::from_millisecond(end).map(|at| at.to_string()).unwrap_or_default();
        line.push_str(&format!("; until {end}"));
    }
    line
}

/// A limit in words; `None` for one that only counts.
fn limit(limit: &Arc<Limit>) -> Option<String> {
    let bound = limit.bound?;
    let count = group(bound.into());
    let amount = match limit.quantity {
        Quantity::Requests => format!("{count} requests"),
        Quantity::Tokens => format!("{count} tokens"),
        Quantity::AudioMilliseconds => format!("{} seconds of audio", group((bound / 1000).into())),
        Quantity::NanoUsd => dollars(bound.into()),
        Quantity::RequestsInFlight | Quantity::UnsettledRequests => format!("{count} requests"),
    };
    let window = match limit.window {
        Window::Sliding(span) => format!("in any {}", span.name()),
        Window::Calendar(period) => format!("a {}", period.name()),
        Window::InFlight => "in flight".to_owned(),
        Window::OpenBatches => "open as batches".to_owned(),
        Window::Unsettled | Window::UnsettledBatches => "at a time".to_owned(),
    };
    let mode = match limit.mode {
        LimitMode::Enforce => "",
        LimitMode::Shadow => " (in shadow)",
    };
    if limit.quantity != Quantity::NanoUsd {
        return Some(format!("{amount} {window}{mode}"));
    }
    let shortfall = match limit.on_shortfall {
        OnShortfall::Deny => "then requests are denied".to_owned(),
        OnShortfall::Clamp => {
            format!("then answers get shorter, to {} tokens", group(limit.min_output_tokens.into()))
        }
        OnShortfall::Warn => "then requests are allowed with a warning".to_owned(),
    };
    let alerts: Vec<_> = limit.alerts.iter().map(|alert| &*alert.text).collect();
    let alerts = if alerts.is_empty() { String::new() } else { format!("; alerts at {}", alerts.join(", ")) };
    Some(format!("{amount} {window}{mode}, {shortfall}{alerts}"))
}
