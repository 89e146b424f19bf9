//! The rules for a key: its name, its labels, and limits that narrow its team's and never widen them.

use std::collections::BTreeMap;

use super::KeyLimits;
use crate::domain::{
    MAX_AMOUNT,
    limit::{Period, Quantity, Span, Window},
    money::NanoUsd,
    policy::{Team, is_name},
};

/// Labels of one key, and their lengths in bytes: notes for people, not data.
const MAX_LABELS: usize = 16;
const MAX_LABEL_KEY: usize = 64;
const MAX_LABEL_VALUE: usize = 256;
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

/// Reports labels that are too many or too long.
pub fn check_labels(labels: &BTreeMap<String, String>, breaches: &mut Vec<Breach>) {
    let sound = |key: &str, value: &str| {
        !key.is_empty()
            && key.len() <= MAX_LABEL_KEY
            && value.len() <= MAX_LABEL_VALUE
            && !key.chars().chain(value.chars()).any(char::is_control)
    };
    if labels.len() > MAX_LABELS || !labels.iter().all(|(key, value)| sound(key, value)) {
        let message = format!(
            "at most {MAX_LABELS} pairs; keys have 1 to {MAX_LABEL_KEY} bytes, values at most {MAX_LABEL_VALUE}, without control characters"
        );
        breaches.push(Breach { field: "labels", message });
    }
}

/// Reports everything that `limits` would permit and `team` may not do.
pub fn check_limits(limits: &KeyLimits, team: &Team, breaches: &mut Vec<Breach>) {
    let mut note = |field, message| breaches.push(Breach { field, message });
    if limits.models.len() > MAX_MODELS {
        note("limits.models", format!("at most {MAX_MODELS} models"));
    }
    if let Some(wide) =
        limits.models.iter().find(|model| !team.models.iter().any(|known| known.covers(model)))
    {
        note("limits.models", format!("`{wide}` is not among the models of team `{}`", team.name));
    }
    if let Some(wide) = limits.operations.iter().find(|operation| !team.operations.contains(operation)) {
        note("limits.operations", format!("`{wide}` is not among the operations of team `{}`", team.name));
    }
    let counted = |quantity, window| {
        let same = team.limits.iter().find(|limit| limit.quantity == quantity && limit.window == window);
        same.and_then(|limit| limit.bound)
    };
    let minute = Window::Sliding(Span::Minute);
    let month = Window::Calendar(Period::Month);
    let plain = |amount: u64| amount.to_string();
    let dollars = |amount: u64| format!("${}", NanoUsd::new(amount).unwrap_or(NanoUsd::MAX));
    let bounds: [(_, _, _, &dyn Fn(u64) -> String); 4] = [
        (
            "limits.requests_per_minute",
            limits.requests_per_minute,
            counted(Quantity::Requests, minute),
            &plain,
        ),
        ("limits.tokens_per_minute", limits.tokens_per_minute, counted(Quantity::Tokens, minute), &plain),
        ("limits.max_output_tokens", limits.max_output_tokens, team.max_output_tokens, &plain),
        (
            "limits.monthly_budget",
            limits.monthly_budget.map(NanoUsd::nanos),
            counted(Quantity::NanoUsd, month),
            &dollars,
        ),
    ];
    for (field, own, of_team, shown) in bounds {
        let Some(own) = own else { continue };
        if own > MAX_AMOUNT {
            note(field, format!("{} is more than any limit may be", shown(own)));
        } else if let Some(of_team) = of_team.filter(|of_team| own > *of_team) {
            let (own, of_team) = (shown(own), shown(of_team));
            note(field, format!("{own} is more than team `{}` has, {of_team}", team.name));
        }
    }
}
