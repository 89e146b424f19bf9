//! The rules for a key: its name, its labels, and limits that narrow its team's and never widen them.

use std::{collections::BTreeMap, sync::Arc};

use super::{KeyLimits, KeyRecord, LimitField, VirtualKey};
use crate::domain::{
    MAX_AMOUNT,
    budget_alert::MAX_BUDGET_ALERTS,
    limit::{Limit, OnShortfall},
    limit_kind::LimitKind,
    name::is_name,
    policy::{ModelPattern, Team},
    request::Operation,
};

/// The most labels of one key: notes for people, not data.
pub const MAX_LABELS: usize = 16;
/// The most bytes in the key of a label.
pub const MAX_LABEL_KEY: usize = 64;
/// The most bytes in its value.
pub const MAX_LABEL_VALUE: usize = 256;
/// Models that one key lists: several times what Groq has.
const MAX_MODELS: usize = 64;

/// What is invalid, and in which field of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The field, as the contract names it.
    pub field: &'static str,
    /// Why.
    pub message: String,
}

/// Checks that `name` is valid for a key of `team`.
///
/// # Errors
/// The reason why it is not.
pub fn check_name(name: &str, team: &str) -> Result<(), Breach> {
    let fault = |message| Err(Breach { field: "name", message });
    if !is_name(name) {
        return fault(
            "has 1 to 64 lower-case letters, digits, `_`, `.` and `-`, and begins with a letter or a digit"
                .to_owned(),
        );
    }
    let rest = name.strip_prefix(team).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default();
    match rest.split_once('-') {
        Some((environment, purpose)) if !environment.is_empty() && !purpose.is_empty() => Ok(()),
        _ => fault(format!(
            "is of the form {{team}}-{{environment}}-{{purpose}}, such as `{team}-prod-web`, so that one sees whose it is"
        )),
    }
}

/// Whether a key may have the label `key` with this value, by [`label_rule`].
#[must_use]
pub fn is_label(key: &str, value: &str) -> bool {
    !key.is_empty()
        && key.len() <= MAX_LABEL_KEY
        && value.len() <= MAX_LABEL_VALUE
        && !key.chars().chain(value.chars()).any(char::is_control)
}

/// The rule for a key's labels, for messages.
#[must_use]
pub fn label_rule() -> String {
    format!(
        "at most {MAX_LABELS} pairs; keys have 1 to {MAX_LABEL_KEY} bytes, values at most {MAX_LABEL_VALUE}, without control characters"
    )
}

/// Reports labels that are too many or too long.
pub fn check_labels(labels: &BTreeMap<String, String>, breaches: &mut Vec<Breach>) {
    if labels.len() > MAX_LABELS || !labels.iter().all(|(key, value)| is_label(key, value)) {
        breaches.push(Breach { field: "labels", message: label_rule() });
    }
}

/// Something that a key would permit and its team may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widening<'a> {
    /// A model.
    Model(&'a ModelPattern),
    /// An operation.
    Operation(Operation),
    /// More output tokens of one request.
    MaxOutputTokens {
        /// The key's bound.
        key: u64,
        /// The team's.
        team: u64,
    },
    /// A larger bound than the team has on the same quantity in the same window.
    Limit(WiderLimit<'a>),
}

/// A limit with a larger bound than the team's on the same quantity in the same window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WiderLimit<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// Its bound.
    pub bound: u64,
    /// The team's bound.
    pub team: u64,
}

impl<'a> WiderLimit<'a> {
    /// `limit`, if one of `team`'s limits on the same thing has a smaller bound.
    #[must_use]
    pub fn of(limit: &'a Limit, team: &Team) -> Option<Self> {
        let mut of_team = team.limits.iter();
        let same = of_team.find(|same| same.quantity == limit.quantity && same.window == limit.window)?;
        let (bound, team) = (limit.bound?, same.bound?);
        (bound > team).then_some(Self { limit, bound, team })
    }
}

/// Everything that `key` would permit and `team` may not do: a key narrows its team's policy and never widens it.
#[must_use]
pub fn widenings<'a>(key: &'a VirtualKey, team: &Team) -> Vec<Widening<'a>> {
    let models = key.models.iter().flatten();
    let models = models.filter(|model| !team.models.iter().any(|known| known.covers(model)));
    let operations = key.operations.iter().flatten().filter(|operation| !team.operations.contains(operation));
    let output = key.max_output_tokens.zip(team.max_output_tokens).filter(|(key, team)| key > team);
    let limits = key.limits.iter().filter_map(|limit| WiderLimit::of(limit, team));
    let output = output.map(|(key, team)| Widening::MaxOutputTokens { key, team });
    models
        .map(Widening::Model)
        .chain(operations.map(|operation| Widening::Operation(*operation)))
        .chain(output)
        .chain(limits.map(Widening::Limit))
        .collect()
}

/// Reports what is wrong with the limits of a key that is created or changed, for its `team`; of several models or operations
/// that the team may not use, the first.
pub fn check_limits(record: &KeyRecord, team: &Team, breaches: &mut Vec<Breach>) {
    let (key, limits) = (VirtualKey::created(0, Arc::new(record.clone())), &record.limits);
    let mut found = Vec::new();
    let mut note = |field: LimitField, message| found.push((field, message));
    if limits.models.len() > MAX_MODELS {
        note(LimitField::Models, format!("at most {MAX_MODELS} models"));
    }
    if let Some(most) = limits.max_output_tokens.filter(|most| *most > MAX_AMOUNT) {
        note(LimitField::MaxOutputTokens, format!("{most} is more than any limit may be"));
    }
    for limit in &key.limits {
        if let Some((kind, bound)) = LimitKind::of(limit).zip(limit.bound.filter(|bound| *bound > MAX_AMOUNT))
        {
            note(LimitField::Bound(kind), format!("{} is more than any limit may be", kind.shown(bound)));
        }
    }
    check_budget(limits, &mut note);
    let mut last = None;
    for widening in widenings(&key, team) {
        let kind = std::mem::discriminant(&widening);
        let is_first = last.replace(kind) != Some(kind);
        if let Some((field, message)) = describe(&widening, &team.name, is_first) {
            note(field, message);
        }
    }
    found.sort_by_key(|(field, _)| LimitField::ALL.iter().position(|known| known == field));
    breaches.extend(found.into_iter().map(|(field, message)| Breach { field: field.path(), message }));
}

/// Reports what has no effect: the terms of a budget that is not there.
fn check_budget(limits: &KeyLimits, note: &mut impl FnMut(LimitField, String)) {
    let terms = [LimitField::OnShortfall, LimitField::MinOutputTokens, LimitField::BudgetAlerts];
    if !limits.has_budget() {
        for field in terms.into_iter().filter(|field| limits.is_set(*field)) {
            note(field, "is of a budget, and the key has none; set one, or leave this out".to_owned());
        }
        return;
    }
    let clamps = limits.on_shortfall == Some(OnShortfall::Clamp);
    if !clamps && limits.min_output_tokens.is_some() {
        let message = "has an effect with `on_shortfall` clamp only; set that, or leave this out";
        note(LimitField::MinOutputTokens, message.to_owned());
    }
    if let Some(least) = limits.min_output_tokens.filter(|least| !(1..=MAX_AMOUNT).contains(least)) {
        note(LimitField::MinOutputTokens, format!("is {least}; must be from 1 to {MAX_AMOUNT}"));
    }
    if limits.budget_alerts.len() > MAX_BUDGET_ALERTS {
        note(LimitField::BudgetAlerts, format!("at most {MAX_BUDGET_ALERTS}"));
    }
    let amount = limits.budget_alerts.iter().find(|alert| alert.dollars().is_some());
    if let Some(alert) = amount.filter(|_| limits.monthly_budget.is_none()) {
        let message =
            format!("`{alert}` is of the month's budget; set `monthly_budget`, or write a percentage");
        note(LimitField::BudgetAlerts, message);
    }
}

/// The field and the message for a widening; `None` if it is told otherwise.
fn describe(widening: &Widening<'_>, team: &str, is_first: bool) -> Option<(LimitField, String)> {
    match widening {
        Widening::Model(model) => is_first
            .then(|| (LimitField::Models, format!("`{model}` is not among the models of team `{team}`"))),
        Widening::Operation(operation) => is_first.then(|| {
            let message = format!("`{operation}` is not among the operations of team `{team}`");
            (LimitField::Operations, message)
        }),
        Widening::MaxOutputTokens { key, team: most } => (*key <= MAX_AMOUNT)
            .then(|| (LimitField::MaxOutputTokens, format!("{key} is more than team `{team}` has, {most}"))),
        Widening::Limit(WiderLimit { limit, bound, team: most }) => {
            let kind = LimitKind::of(limit).filter(|_| *bound <= MAX_AMOUNT)?;
            let (own, most) = (kind.shown(*bound), kind.shown(*most));
            Some((LimitField::Bound(kind), format!("{own} is more than team `{team}` has, {most}")))
        }
    }
}
