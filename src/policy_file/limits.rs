//! Rates, concurrency and budgets as people write them, compiled to limits on counters.

use std::sync::Arc;

use super::{
    findings::Findings,
    mode,
    place::Place,
    section::{Located, Section},
};
use crate::domain::{
    budget_alert::{BudgetAlert, MAX_BUDGET_ALERTS, put_thresholds},
    limit::{Limit, LimitMode, Limits, OnShortfall, Period, Quantity, Subject, Window},
    limit_kind::LimitKind,
};

/// As the plans of many requests share them.
pub(super) fn shared(limits: Vec<Limit>) -> Vec<Arc<Limit>> {
    limits.into_iter().map(Arc::new).collect()
}

/// The rates and the concurrency of `section`, in `mode` unless `shadow` lists them.
pub(super) fn rates(section: &Section<'_>, subject: &Subject, mode: LimitMode) -> Vec<Limit> {
    let mut limits = Vec::new();
    let in_shadow = mode::listed(section, mode);
    for kind in LimitKind::RATES {
        let Some(bound) = section.count(kind.key()) else { continue };
        warn_of_zero(section.findings, &bound, bound.value);
        let limit = subject.limit(bound.place.id(), kind.quantity(), kind.window());
        let mode = if in_shadow.contains(&kind) { LimitMode::Shadow } else { mode };
        limits.push(Limit { bound: Some(bound.value), mode, ..limit });
    }
    limits
}

/// The rates and the concurrency of `section`, at `place`. Without a bound on concurrency, one limit only counts, so a
/// bound that is set while requests are in flight includes them.
pub(super) fn rates_and_in_flight(section: &Section<'_>, subject: &Subject, mode: LimitMode) -> Vec<Limit> {
    let mut limits = rates(section, subject, mode);
    if !limits.iter().any(|limit| limit.window == Window::InFlight) {
        limits.push(in_flight(&section.place, subject));
    }
    limits
}

/// Counts the requests in flight, without a bound.
pub(super) fn in_flight(place: &Place, subject: &Subject) -> Limit {
    subject.limit(place.key("max_in_flight").id(), Quantity::RequestsInFlight, Window::InFlight)
}

/// The budgets of `section`, by period, in `mode` unless they have their own.
pub(super) fn budgets(section: &Section<'_>, subject: &Subject, mode: LimitMode) -> Vec<Limit> {
    let Some(budget) = section.section("budget") else { return Vec::new() };
    let mut limits = Vec::new();
    let mode = mode::of(&budget, mode);
    for kind in LimitKind::BUDGETS {
        let Some(bound) = budget.money(kind.key()) else { continue };
        warn_of_zero(section.findings, &bound, bound.value.nanos());
        let limit = subject.limit(bound.place.id(), kind.quantity(), kind.window());
        limits.push(Limit { bound: Some(bound.value.nanos()), mode, ..limit });
    }
    if !LimitKind::BUDGETS.iter().any(|kind| budget.has(kind.key())) {
        let help = "give at least one of `monthly_usd`, `weekly_usd`, `daily_usd`";
        budget.findings.error(&budget.place, "a budget without an amount", help);
    }
    shortfall(&budget, &mut limits);
    alerts(&budget, &mut limits);
    warn_of_order(&budget, &limits);
    budget.finish();
    limits
}

/// The budgets of `section`; without one for the month, its month only counts.
pub(super) fn budgets_with_month(section: &Section<'_>, subject: &Subject, mode: LimitMode) -> Limits {
    let mut others = budgets(section, subject, mode);
    let month = Window::Calendar(Period::Month);
    let month = match others.iter().position(|limit| limit.window == month) {
        Some(place) => others.remove(place),
        None => {
            let place = section.place.key("budget").key("monthly_usd");
            subject.limit(place.id(), Quantity::NanoUsd, month)
        }
    };
    Limits { month: Arc::new(month), others: shared(others) }
}

fn shortfall(budget: &Section<'_>, limits: &mut [Limit]) {
    let on_shortfall =
        budget.choice("on_shortfall", &OnShortfall::NAMES).map(|l| l.value).unwrap_or_default();
    let least = budget.count("min_output_tokens");
    if let Some(least) = least.as_ref().filter(|_| on_shortfall != OnShortfall::Clamp) {
        let help = "it is the fewest tokens granted under on_shortfall = \"clamp\"; set that, or remove this";
        budget.findings.warning(&least.place, "`min_output_tokens` has no effect here", help);
    }
    for limit in limits {
        limit.on_shortfall = on_shortfall;
        limit.min_output_tokens = least.as_ref().map_or(1, |l| l.value);
    }
}

/// Percentages refer to each period's budget, dollars to the monthly one.
fn alerts(budget: &Section<'_>, limits: &mut [Limit]) {
    let Some(Located { value: listed, place }) = budget.texts("alerts") else { return };
    if listed.len() > MAX_BUDGET_ALERTS {
        let help = format!("keep at most {MAX_BUDGET_ALERTS}: each is reported once in a period");
        budget.findings.error(&place, format!("{} thresholds are too many", listed.len()), help);
        return;
    }
    let mut alerts: Vec<BudgetAlert> = Vec::new();
    for Located { value: text, place } in listed {
        let Ok(alert) = text.parse::<BudgetAlert>() else {
            let help = "write a share from \"1%\" to \"1000%\", or an amount such as \"$400\"";
            budget.findings.error(&place, format!("`{text}` is neither a percentage nor dollars"), help);
            continue;
        };
        if alerts.contains(&alert) {
            budget.findings.warning(&place, format!("`{text}` is listed twice"), "");
            continue;
        }
        if let Some(amount) = alert.dollars() {
            let month = limits.iter().find(|limit| limit.window == Window::Calendar(Period::Month));
            match month.and_then(|limit| limit.bound) {
                None if !budget.has(LimitKind::MonthlyBudget.key()) => {
                    let help = "an amount is of the month's budget; set `monthly_usd`, or write a percentage";
                    budget.findings.error(&place, format!("`{text}` without a monthly budget"), help);
                }
                Some(bound) if amount.nanos() > bound => {
                    let help = "it is reported only if actual costs overrun the budget";
                    budget.findings.warning(
                        &place,
                        format!("`{text}` is more than the month's budget"),
                        help,
                    );
                }
                _ => {}
            }
        }
        alerts.push(alert);
    }
    put_thresholds(&alerts, limits);
}

fn warn_of_zero<T>(findings: &Findings, at: &Located<T>, bound: u64) {
    if bound == 0 {
        let help = "a limit of zero refuses everything; for no limit, leave the key out";
        findings.warning(&at.place, "nothing will ever pass", help);
    }
}

/// A day lies within its week and its month, so a larger daily budget never refuses anything.
fn warn_of_order(budget: &Section<'_>, limits: &[Limit]) {
    let bound = |kind: LimitKind| {
        let limit = limits.iter().find(|limit| LimitKind::of(limit) == Some(kind));
        limit.and_then(|limit| limit.bound)
    };
    let day = bound(LimitKind::DailyBudget);
    for kind in [LimitKind::MonthlyBudget, LimitKind::WeeklyBudget] {
        if bound(kind).is_some() && day > bound(kind) {
            let message =
                format!("the day's budget is larger than `{}` and never refuses anything", kind.key());
            let place = budget.place.key(LimitKind::DailyBudget.key());
            budget.findings.warning(&place, message, "");
        }
    }
}
