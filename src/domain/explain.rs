//! Explains denials in words and numbers: which limit, how much is used, and when the same request would pass.

use std::sync::Arc;

use super::{
    Moment, Timestamp,
    batch::MAX_TTL_MS,
    decision::{Measure, Reason, Retry, Violation},
    limit::{Limit, LimitMode, OnShortfall, Quantity, Window},
    limit_status::LimitStatuses,
    money::NanoUsd,
    plan::{Line, Plan, RESERVATION_TTL_MS, UNSETTLED_BATCH_MS, UNSETTLED_MS, reason_of},
    window::SLOTS,
};

/// The violation of a limit that has `used` and refuses `requested` more.
#[must_use]
pub fn violation(
    line: &Line,
    now: Timestamp,
    used: u64,
    requested: u64,
    frees_at: Option<Timestamp>,
) -> Violation {
    let bound = line.limit.bound.unwrap_or(super::MAX_AMOUNT);
    // In a new period nothing is used, even if something of the old one has not expired by then.
    let passes_at = frees_at.into_iter().chain(line.period_end).min();
    let retry = match passes_at {
        Some(at) if requested <= bound => Retry::After(at.since(now)),
        _ => Retry::Never,
    };
    of_limit(&line.limit, (used, requested), retry, &outlook(retry))
}

/// The violation of a limit in shadow that has `used` and would refuse `requested` more. When that would pass is not known, as the
/// store was not asked to hold the bound.
#[must_use]
pub fn shadow_violation(line: &Line, used: u64, requested: u64) -> Violation {
    of_limit(&line.limit, (used, requested), Retry::Never, "in shadow, so nothing is refused")
}

fn of_limit(limit: &Limit, (used, requested): (u64, u64), retry: Retry, outlook: &str) -> Violation {
    let bound = limit.bound.unwrap_or(super::MAX_AMOUNT);
    let amount = |value| amount(limit.quantity, value);
    let message = format!(
        "`{}` permits {} {}: {} used, {} requested{OUTLOOK}{outlook}",
        limit.id,
        amount(bound),
        window(limit),
        amount(used),
        amount(requested),
    );
    Violation {
        reason: reason_of(limit),
        scope: Some(limit.scope),
        limit_id: limit.id.to_string(),
        project: String::new(),
        quantity: Measure::Of(limit.quantity),
        limit: bound,
        used,
        requested,
        retry,
        message,
    }
}

/// The violation of a cooldown: Groq refused a request for `model` with a key of `project`.
#[must_use]
pub fn closed(project: &str, model: &str, now: Timestamp, opens_at: Timestamp) -> Violation {
    let wait = opens_at.since(now);
    Violation {
        reason: Reason::UpstreamRateLimited,
        scope: Some(super::limit::LimitScope::OrganizationModel),
        limit_id: format!("upstream.{model}"),
        project: project.to_owned(),
        quantity: Measure::None,
        limit: 0,
        used: 0,
        requested: 0,
        retry: Retry::After(wait),
        message: format!(
            "Groq refused `{model}` for the project `{project}` and asked to wait{OUTLOOK}{}",
            outlook(Retry::After(wait))
        ),
    }
}

/// What separates the facts in a violation's message from the time when the request passes.
const OUTLOOK: &str = "; ";

fn outlook(retry: Retry) -> String {
    match retry {
        Retry::After(ms) => format!("the same request passes in {}", duration(ms)),
        Retry::Never => "a request of this size never passes".to_owned(),
    }
}

/// Adds that others are waiting for the limit. That explains why the request is refused even if there seems to be room.
pub fn behind(violation: &mut Violation) {
    if let Some((facts, outlook)) = violation.message.rsplit_once(OUTLOOK) {
        violation.message = format!("{facts}, and earlier requests wait for it{OUTLOOK}{outlook}");
    }
}

/// The violation as reported `passed` milliseconds later: the rest of its delay, but at least `least` and never zero, since
/// the request has not passed.
pub fn after(violation: &mut Violation, passed: u64, least: u64) {
    let Retry::After(ms) = violation.retry else { return };
    violation.retry = Retry::After(ms.saturating_sub(passed).max(least).max(1));
    if let Some((facts, _)) = violation.message.rsplit_once(OUTLOOK) {
        violation.message = format!("{facts}{OUTLOOK}{}", outlook(violation.retry));
    }
}

/// When a request with these violations would pass.
#[must_use]
pub fn retry(violations: &[Violation]) -> Retry {
    let delays = violations.iter().map(|violation| match violation.retry {
        Retry::After(ms) => Some(ms),
        Retry::Never => None,
    });
    delays.collect::<Option<Vec<_>>>().and_then(|d| d.into_iter().max()).map_or(Retry::Never, Retry::After)
}

/// The state of every bounded limit except the one on unsettled requests. `used` is the usage before the decision; `taken`
/// says whether the plan's holds were taken since.
#[must_use]
pub fn statuses(plan: &Plan<'_>, now: Moment, used: &[u64], taken: bool) -> LimitStatuses {
    LimitStatuses::new(&plan.lines, |at, line| {
        if !is_told(&line.limit) {
            return None;
        }
        let amount = if taken { plan.holds.get(at)?.amount() } else { 0 };
        let used = used.get(at)? + amount;
        Some((used, used_until(line, now, used)))
    })
}

/// The state of each of `lines` of which callers are told, given what it has used.
#[must_use]
pub fn standing(lines: &Arc<[Line]>, now: Moment, used: &[u64]) -> LimitStatuses {
    LimitStatuses::new(lines, |at, line| {
        let used = *used.get(at).filter(|_| is_told(&line.limit))?;
        Some((used, used_until(line, now, used)))
    })
}

/// Whether callers are told the state of a limit.
#[must_use]
pub fn is_told(limit: &Limit) -> bool {
    // A bound on what the store keeps is not a rate that a client could respect; one in shadow is none that it has to.
    limit.bound.is_some() && limit.quantity != Quantity::UnsettledRequests && limit.mode == LimitMode::Enforce
}

/// In how many milliseconds none of `used` counts any more, at the latest.
fn used_until(line: &Line, now: Moment, used: u64) -> u64 {
    if used == 0 { 0 } else { reset_ms(line, now) }
}

/// A warning for every budget that only warns and that this plan's worst case exceeds, given the usage before it.
pub fn overruns<'a>(plan: &'a Plan<'_>, used: &'a [u64]) -> impl Iterator<Item = String> + 'a {
    plan.holds.iter().zip(&*plan.lines).zip(used).filter_map(|((hold, line), used)| {
        let only_warns = !line.enforced && line.limit.on_shortfall == OnShortfall::Warn;
        let bound = line.limit.bound.filter(|_| only_warns)?;
        let wanted = used + hold.amount();
        let amount = |value| amount(line.limit.quantity, value);
        (wanted > bound).then(|| {
            format!(
                "`{}` of {} is passed: {} with this request",
                line.limit.id,
                amount(bound),
                amount(wanted)
            )
        })
    })
}

/// Slots use the store's time, periods the calendar.
fn reset_ms(line: &Line, now: Moment) -> u64 {
    let sliding = |length_ms: u64| {
        let slot_ms = length_ms / SLOTS;
        length_ms + slot_ms - now.store.0 % slot_ms
    };
    match line.limit.window {
        Window::Sliding(span) => sliding(span.length_ms()),
        Window::InFlight => sliding(RESERVATION_TTL_MS),
        Window::OpenBatches => sliding(MAX_TTL_MS),
        Window::Unsettled => sliding(UNSETTLED_MS),
        Window::UnsettledBatches => sliding(UNSETTLED_BATCH_MS),
        Window::Calendar(_) => line.period_end.map_or(0, |end| end.since(now.wall)),
    }
}

/// An amount with its unit, for people.
#[must_use]
pub fn amount(quantity: Quantity, value: u64) -> String {
    match quantity {
        Quantity::Requests | Quantity::RequestsInFlight | Quantity::UnsettledRequests => {
            format!("{value} request{}", if value == 1 { "" } else { "s" })
        }
        Quantity::Tokens => format!("{value} token{}", if value == 1 { "" } else { "s" }),
        Quantity::AudioMilliseconds => format!("{}.{:03} s of audio", value / 1000, value % 1000),
        Quantity::NanoUsd => {
            NanoUsd::new(value).map_or_else(|| format!("{value} nano-USD"), |usd| format!("${usd}"))
        }
    }
}

fn window(limit: &Limit) -> String {
    match limit.window {
        Window::Sliding(span) => format!("in any {}", span.name()),
        Window::Calendar(period) => format!("a {}", period.name()),
        Window::InFlight => "in flight".to_owned(),
        Window::OpenBatches => "open as batches".to_owned(),
        Window::Unsettled => "without a report".to_owned(),
        Window::UnsettledBatches => "as batches without a report".to_owned(),
    }
}

/// A duration for people: `61s`, `0.5s`, `2h 3m`, `7d 4h`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let (seconds, rest) = (ms / 1000, ms % 1000);
    match seconds {
        0..=119 if rest == 0 => format!("{seconds}s"),
        0..=119 => format!("{seconds}.{rest:03}s"),
        120..=7199 => format!("{}m {}s", seconds / 60, seconds % 60),
        7200..=172_799 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
