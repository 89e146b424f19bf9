//! The decision log as text, for people: one line for each decision and each settlement.

use tracing::{Level, debug, field, info};

use super::line::{Decision, Line, Refusal, Settlement};

/// Logs a line at `level`, which is info or debug.
pub(super) fn log(level: Level, line: &Line) {
    match line {
        Line::Decision(decision) if decision.violations.is_empty() => allowed(level, decision),
        Line::Decision(decision) => denied(level, decision),
        Line::Settlement(settlement) => settled(settlement),
    }
}

fn denied(level: Level, decision: &Decision) {
    let Decision { head, violations, dry_run, labels, request, .. } = decision;
    let Some(first) = violations.first() else { return };
    let (more, shadow) =
        (listed(violations.get(1..).unwrap_or_default()), listed(&decision.shadow_violations));
    let user = request.as_ref().map_or("", |request| &*request.user);
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: "tollgate::decision",
                decision = "denied",
                team = head.team,
                key = head.key,
                user = given(user),
                model = given(&head.model),
                operation = given(&head.operation),
                reason = first.reason,
                limit_id = %first.limit_id,
                scope = first.scope,
                quantity = first.quantity,
                limit = first.limit,
                used = first.used,
                requested = first.requested,
                retry_delay_seconds = first.retry_delay_seconds,
                more_violations = given(&more),
                shadow_violations = given(&shadow),
                dry_run,
                wait_duration_seconds = decision.wait_duration_seconds,
                labels = ?labels,
                policy_revision = head.policy_revision,
                "request denied"
            )
        };
    }
    if level == Level::INFO { line!(info) } else { line!(debug) }
}

fn allowed(level: Level, decision: &Decision) {
    let Decision { head, labels, request, .. } = decision;
    let user = request.as_ref().map_or("", |request| &*request.user);
    let shadow = listed(&decision.shadow_violations);
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: "tollgate::decision",
                decision = "allowed",
                team = head.team,
                key = head.key,
                user = given(user),
                model = %head.model,
                operation = %head.operation,
                reservation_id = decision.reservation_id.as_deref().unwrap_or_default(),
                max_output_tokens = decision.max_output_tokens,
                reserved_nano_usd = decision.reserved_nano_usd,
                shadow_violations = given(&shadow),
                dry_run = decision.dry_run,
                wait_duration_seconds = decision.wait_duration_seconds,
                labels = ?labels,
                policy_revision = %head.policy_revision,
                "request allowed"
            )
        };
    }
    if level == Level::INFO { line!(info) } else { line!(debug) }
}

fn settled(settlement: &Settlement) {
    let Settlement { head, usage, .. } = settlement;
    info!(
        target: "tollgate::decision",
        team = head.team,
        key = head.key,
        model = %head.model,
        operation = %head.operation,
        reservation_id = settlement.reservation_id,
        outcome = settlement.outcome,
        result = settlement.result,
        cost_nano_usd = settlement.cost_nano_usd,
        input_tokens = usage.as_ref().map(|usage| usage.input_tokens),
        output_tokens = usage.as_ref().map(|usage| usage.output_tokens),
        "request settled"
    );
}

/// Each with its reason and its limit.
fn listed(violations: &[Refusal]) -> String {
    let each = violations.iter().map(|violation| format!("{} {}", violation.reason, violation.limit_id));
    each.collect::<Vec<_>>().join(", ")
}

/// Nothing, instead of an empty text.
fn given(text: &str) -> Option<field::DisplayValue<&str>> {
    (!text.is_empty()).then(|| field::display(text))
}
