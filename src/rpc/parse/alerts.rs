//! Requests for alerts.

use tonic::Status;

use super::super::{
    page::{ListContext, PageRequest, PageTokens},
    proto::{self, AlertKind, AlertState, Severity},
    status::FieldErrors,
};
use crate::{
    alerts::AlertQuery,
    domain::{Timestamp, name::MAX_NAME_BYTES, rbac::TeamScope},
    store::OutboxId,
};

/// Which alerts to show.
#[derive(Debug)]
pub(in crate::rpc) struct AlertFilter {
    /// Empty: all.
    pub(in crate::rpc) teams: Vec<String>,
    kinds: Vec<AlertKind>,
    states: Vec<AlertState>,
    min_severity: Severity,
}

impl AlertFilter {
    /// Whether to show `alert` to a caller who may see those of `scope`.
    pub(in crate::rpc) fn takes(&self, alert: &proto::Alert, scope: &TeamScope) -> bool {
        // What a later release calls a severity is rather shown than missed.
        let severity = Severity::try_from(alert.severity).unwrap_or_default();
        scope.holds(&alert.team)
            && (self.teams.is_empty() || self.teams.contains(&alert.team))
            && (self.kinds.is_empty() || self.kinds.contains(&alert.kind()))
            && (self.states.is_empty() || self.states.contains(&alert.state()))
            && (severity == Severity::Unspecified || severity as i32 >= self.min_severity as i32)
    }
}

/// A well-formed `ListAlertsRequest`: what to show, where to look, and the tokens of the list.
pub(in crate::rpc) fn alerts(
    mut request: proto::ListAlertsRequest,
    context: &ListContext,
) -> Result<(AlertFilter, AlertQuery, PageTokens<OutboxId>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after: before, tokens } = errors.page(&mut request, context);
    let since = request.since_time.and_then(|since| errors.since(&since));
    let filter = AlertFilter {
        teams: errors
            .few("teams", request.teams, |errors, team| Some(errors.text("teams", team, 1, MAX_NAME_BYTES))),
        kinds: errors.few("kinds", request.kinds, |errors, number| {
            let kind = AlertKind::try_from(number).ok().filter(|kind| *kind != AlertKind::Unspecified);
            kind.or_else(|| errors.none_of("kinds", number, "kind of an alert"))
        }),
        states: errors.few("states", request.states, |errors, number| {
            let state = AlertState::try_from(number).ok().filter(|state| *state != AlertState::Unspecified);
            state.or_else(|| errors.none_of("states", number, "state of an alert"))
        }),
        min_severity: Severity::try_from(request.min_severity)
            .ok()
            .or_else(|| errors.none_of("min_severity", request.min_severity, "severity"))
            .unwrap_or_default(),
    };
    errors.or((filter, AlertQuery { page_size: size, before, since }, tokens))
}

impl FieldErrors {
    /// What is before the epoch is as good as no bound.
    fn since(&mut self, time: &prost_types::Timestamp) -> Option<Timestamp> {
        let read = jiff::Timestamp::new(time.seconds, time.nanos);
        let read = read.map_err(|_| self.add("since_time", "is no instant")).ok()?;
        // Ids have milliseconds: those of the same one may be after it.
        Some(Timestamp(u64::try_from(read.as_millisecond()).unwrap_or(0)))
    }
}
