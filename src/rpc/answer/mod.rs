//! From the domain to the wire.

mod limits;

pub(super) use self::limits::limit_status;

use prost::{Message as _, bytes::BufMut};

use super::{
    codec::Written,
    convert::{self, measure, reason, scope},
    google_type::Money,
    page::{self, PageTokens, SpendCursor, SpendPlace},
    proto::{
        self, AuthorizeResponse, BudgetCrossing, GetSpendResponse, LimitView, RecordUsageResponse, Spend,
        SpendLine, SpendReport,
    },
};
use crate::{
    authorizer::{Booked, CrossedAlert, Decided, Recorded, SpooledReport},
    domain::{
        Timestamp,
        actor::Actor,
        budget::BudgetState,
        decision::{Retry, Violation},
        explain,
        forecast::Forecast,
        limit_status::LimitStatuses,
    },
    reports::{self, SpendPage},
};

const NANOS_PER_UNIT: i64 = 1_000_000_000;

/// The answer to `Authorize`. Its limits are most of it, and are written from what the plan has, without a message of each.
#[derive(Clone, Debug)]
pub struct AuthorizeAnswer {
    /// All but the limits.
    message: AuthorizeResponse,
    limits: LimitStatuses,
    view: LimitView,
}

impl AuthorizeAnswer {
    /// The answer with the limits of `view`, and `upstream_key`.
    pub(super) fn new(mut decided: Decided, view: LimitView, upstream_key: String) -> Self {
        let limits = std::mem::take(&mut decided.limits);
        Self { message: AuthorizeResponse { upstream_key, ..message(decided) }, limits, view }
    }
}

impl Written for AuthorizeAnswer {
    fn write(&self, buffer: &mut impl BufMut) {
        self.message.encode_raw(buffer);
        // Fields may come in any order.
        limits::write(&self.limits, self.view, buffer);
    }
}

/// All of the answer but its limits.
fn message(decided: Decided) -> AuthorizeResponse {
    // `to_string` of a shared text formats it, which takes several times as long as copying it.
    let policy_revision = String::from(&*decided.policy_revision);
    let project = String::from(&*decided.project);
    let degraded = decided.degraded;
    let shadow_violations = decided.shadow_violations.into_iter().map(violation).collect();
    match decided.outcome {
        Ok(grant) => {
            let (reservation_id, expire_time) = grant.reservation.unzip();
            AuthorizeResponse {
                decision: proto::Decision::Allowed.into(),
                reservation_id: reservation_id.unwrap_or_default(),
                expire_time: expire_time.map(timestamp),
                max_output_tokens: int(grant.max_output_tokens),
                reserved_cost: Some(money(grant.reserved_cost.nanos())),
                warnings: [grant.warnings, decided.warnings].concat(),
                policy_revision,
                project,
                shadow_violations,
                degraded,
                ..AuthorizeResponse::default()
            }
        }
        Err(violations) => AuthorizeResponse {
            decision: proto::Decision::Denied.into(),
            retry_delay: retry_delay(explain::retry(&violations)),
            violations: violations.into_iter().map(violation).collect(),
            warnings: decided.warnings,
            policy_revision,
            project,
            shadow_violations,
            degraded,
            ..AuthorizeResponse::default()
        },
    }
}

/// The answer to `RecordUsage`.
pub(super) fn recorded(recorded: Recorded) -> RecordUsageResponse {
    match recorded {
        Recorded::Booked(booked) => self::booked(booked),
        Recorded::Spooled(SpooledReport { reservation, cost, already_recorded }) => RecordUsageResponse {
            cost: cost.map(|cost| money(cost.nanos())),
            already_recorded,
            reservation_id: reservation.to_string(),
            spooled: true,
            ..RecordUsageResponse::default()
        },
    }
}

fn booked(booked: Booked) -> RecordUsageResponse {
    RecordUsageResponse {
        cost: Some(money(booked.cost.nanos())),
        already_recorded: booked.already_recorded,
        team_spend: Some(spend(&booked.team)),
        organization_spend: Some(spend(&booked.organization)),
        alerts: booked.alerts.into_iter().map(alert).collect(),
        reservation_id: booked.reservation.to_string(),
        warnings: booked.warnings,
        ..RecordUsageResponse::default()
    }
}

/// The answer to `GetSpend`.
pub(super) fn spend_page(
    page: SpendPage,
    from: &SpendPlace,
    tokens: &PageTokens<SpendCursor>,
) -> GetSpendResponse {
    let teams = page.teams.into_iter().map(report).collect();
    let (organization, teams, end) = page::cut(page.organization.map(report), teams, from);
    let next = page.next_after.map(|team| SpendPlace { team: team.to_string(), line: None });
    let next = end.or(next).map(|place| SpendCursor { month: page.month, place });
    GetSpendResponse {
        month: format!("{:04}-{:02}", page.month / 100, page.month % 100),
        organization,
        teams,
        next_page_token: tokens.next(next.as_ref()),
        policy_revision: page.policy_revision.to_string(),
        time_zone: page.time_zone,
    }
}

fn report(report: reports::SpendReport) -> SpendReport {
    let day = |day: u32| format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100);
    SpendReport {
        name: report.name.to_string(),
        spend: Some(spend_with(&report.budget, report.forecast.as_ref())),
        requests: int(report.total.requests),
        tokens: int(report.total.tokens),
        unsettled_requests: int(report.budget.unsettled),
        by_model: report.by_model.into_iter().map(|(name, part)| line(name.to_string(), &part)).collect(),
        by_key: report.by_key.into_iter().map(|(name, part)| line(name.to_string(), &part)).collect(),
        by_day: report.by_day.into_iter().map(|(date, part)| line(day(date), &part)).collect(),
        spooled_requests: int(report.spooled.0),
        spooled_cost: (report.spooled.0 > 0).then(|| money(report.spooled.1)),
    }
}

fn line(name: String, part: &reports::SpendLine) -> SpendLine {
    SpendLine { name, spent: Some(money(part.spent)), requests: int(part.requests), tokens: int(part.tokens) }
}

/// A budget's state, and how its period ends, where that is known.
pub(super) fn spend_with(state: &BudgetState, end: Option<&Forecast>) -> Spend {
    Spend { forecast: end.map(forecast), ..spend(state) }
}

fn spend(state: &BudgetState) -> Spend {
    let remaining = |budget| int(budget) - int(state.spent) - int(state.reserved);
    Spend {
        budget: state.budget.map(money),
        spent: Some(money(state.spent)),
        reserved: Some(money(state.reserved)),
        remaining: state.budget.map(|budget| signed_money(remaining(budget))),
        forecast: None,
    }
}

fn forecast(forecast: &Forecast) -> proto::Forecast {
    proto::Forecast {
        projected: Some(money(forecast.projected)),
        exhaust_time: forecast.exhaust.map(timestamp),
    }
}

fn alert(alert: CrossedAlert) -> BudgetCrossing {
    BudgetCrossing {
        limit_id: alert.limit_id.to_string(),
        threshold: alert.threshold.text.to_string(),
        amount: Some(money(alert.threshold.amount.nanos())),
        spent: Some(money(alert.spent)),
        budget: Some(money(alert.budget)),
    }
}

fn violation(violation: Violation) -> proto::Violation {
    proto::Violation {
        reason: reason(violation.reason).into(),
        scope: violation.scope.map_or(proto::Scope::Unspecified, scope).into(),
        limit_id: violation.limit_id,
        quantity: measure(violation.quantity).into(),
        limit: int(violation.limit),
        used: int(violation.used),
        requested: int(violation.requested),
        retry_delay: retry_delay(violation.retry),
        retryable: violation.retry != Retry::Never,
        message: violation.message,
        project: violation.project,
    }
}

fn retry_delay(retry: Retry) -> Option<prost_types::Duration> {
    match retry {
        Retry::After(ms) => Some(duration(ms)),
        Retry::Never => None,
    }
}

/// Every amount is at most 2^53 − 1. A larger one would be a fault, and is answered as the largest number.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn money(nanos: u64) -> Money {
    signed_money(int(nanos))
}

fn signed_money(nanos: i64) -> Money {
    Money {
        currency_code: "USD".to_owned(),
        units: nanos / NANOS_PER_UNIT,
        nanos: i32::try_from(nanos % NANOS_PER_UNIT).unwrap_or(0),
    }
}

pub(super) fn duration(ms: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: int(ms / 1000),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// Who did something.
pub(super) fn actor(actor: &Actor) -> proto::Actor {
    proto::Actor {
        kind: convert::actor_kind(actor.kind).into(),
        name: actor.name.to_string(),
        address: actor.address.map_or_else(String::new, |address| address.to_string()),
    }
}

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: int(at.0 / 1000),
        nanos: i32::try_from(at.0 % 1000).unwrap_or(0) * 1_000_000,
    }
}
