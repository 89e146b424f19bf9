//! Requests for decisions as they are made.

use tonic::Status;

use super::super::{
    convert,
    proto::{self, Decision, Reason},
    status::FieldErrors,
};
use crate::{
    authorizer::FeedEvent,
    domain::{
        name::{MAX_MODEL_BYTES, MAX_NAME_BYTES},
        rbac::TeamScope,
    },
    store::DecisionId,
};

/// Which decisions to show. What is given holds together, and each list is of alternatives; an empty one is of all.
#[derive(Debug, Default)]
pub(in crate::rpc) struct DecisionFilter {
    pub(in crate::rpc) teams: Vec<String>,
    keys: Vec<String>,
    models: Vec<String>,
    decisions: Vec<Decision>,
    /// Their short names.
    reasons: Vec<String>,
}

impl DecisionFilter {
    /// Whether a caller who may see those of `scope` has asked for decisions of `team`; empty: of callers that belong to none.
    pub(in crate::rpc) fn is_of(&self, team: &str, scope: &TeamScope) -> bool {
        scope.holds(team) && (self.teams.is_empty() || self.teams.iter().any(|of| of == team))
    }

    /// Whether everything is asked for that there is of any team.
    pub(in crate::rpc) fn is_of_all(&self, scope: &TeamScope) -> bool {
        self.teams.is_empty() && *scope == TeamScope::All
    }

    /// Whether to show `event` to a caller who may see those of `scope`.
    pub(in crate::rpc) fn takes(&self, event: &FeedEvent, scope: &TeamScope) -> bool {
        let has = |list: &[String], value: &String| list.is_empty() || list.contains(value);
        let decision = &event.decision;
        let mut violations = decision.violations.iter().chain(&decision.shadow_violations);
        self.is_of(&decision.head.team, scope)
            && has(&self.keys, &decision.head.key)
            && has(&self.models, &decision.head.model)
            && (self.decisions.is_empty()
                || self.decisions.contains(&convert::decision_of(&decision.decision)))
            && (self.reasons.is_empty()
                || violations.any(|violation| self.reasons.contains(&violation.reason)))
    }
}

/// A well-formed `StreamDecisionsRequest`: what to show, and the last that the caller has.
pub(in crate::rpc) fn decisions(
    request: proto::StreamDecisionsRequest,
) -> Result<(DecisionFilter, Option<DecisionId>), Status> {
    let mut errors = FieldErrors::default();
    let filter = DecisionFilter {
        teams: errors
            .few("teams", request.teams, |errors, team| Some(errors.text("teams", team, 1, MAX_NAME_BYTES))),
        keys: errors
            .few("keys", request.keys, |errors, key| Some(errors.text("keys", key, 0, MAX_NAME_BYTES))),
        models: errors.few("models", request.models, |errors, model| {
            Some(errors.text("models", model, 1, MAX_MODEL_BYTES))
        }),
        decisions: errors.few("decisions", request.decisions, |errors, number| {
            let known = Decision::try_from(number).ok().filter(|known| *known != Decision::Unspecified);
            known.or_else(|| errors.none_of("decisions", number, "decision"))
        }),
        reasons: errors.few("reasons", request.reasons, |errors, number| {
            let known = Reason::try_from(number).ok().filter(|known| *known != Reason::Unspecified);
            let known = known.or_else(|| errors.none_of("reasons", number, "reason"))?;
            Some(convert::short("REASON_", known.as_str_name()))
        }),
    };
    let after = Some(request.after_id).filter(|id| !id.is_empty());
    let after =
        after.and_then(|id| id.parse().map_err(|error| errors.add("after_id", format!("{error}"))).ok());
    errors.or((filter, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::decision_event::tests::event;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn filter(request: proto::StreamDecisionsRequest) -> DecisionFilter {
        decisions(request).unwrap().0
    }

    #[test]
    fn what_is_given_holds_together_and_lists_are_of_alternatives() {
        let denied = event("bot", "bot-key", "m/a", &["paused", "token_rate_exceeded"]);
        let (allowed, unknown) = (event("lab", "", "m/b", &[]), event("", "", "", &["invalid_key"]));
        let request = proto::StreamDecisionsRequest::default;
        let own = TeamScope::Teams(std::sync::Arc::new(["bot".into()].into()));
        for (asked, scope, expected) in [
            (request(), &TeamScope::All, [true, true, true]),
            (request(), &own, [true, false, false]),
            (
                proto::StreamDecisionsRequest { teams: names(&["lab", "x"]), ..request() },
                &TeamScope::All,
                [false, true, false],
            ),
            (
                proto::StreamDecisionsRequest { keys: names(&["", "x"]), ..request() },
                &TeamScope::All,
                [false, true, true],
            ),
            (
                proto::StreamDecisionsRequest { keys: names(&["bot-key"]), ..request() },
                &TeamScope::All,
                [true, false, false],
            ),
            (
                proto::StreamDecisionsRequest { models: names(&["m/a", "m/b"]), ..request() },
                &TeamScope::All,
                [true, true, false],
            ),
            (
                proto::StreamDecisionsRequest { decisions: vec![Decision::Denied.into()], ..request() },
                &TeamScope::All,
                [true, false, true],
            ),
            (
                proto::StreamDecisionsRequest { decisions: vec![1, 2], ..request() },
                &TeamScope::All,
                [true, true, true],
            ),
            (
                proto::StreamDecisionsRequest {
                    reasons: vec![Reason::TokenRateExceeded.into(), Reason::Paused.into()],
                    ..request()
                },
                &TeamScope::All,
                [true, false, false],
            ),
            (
                proto::StreamDecisionsRequest {
                    reasons: vec![Reason::Paused.into()],
                    models: names(&["m/b"]),
                    ..request()
                },
                &TeamScope::All,
                [false, false, false],
            ),
        ] {
            let text = format!("{asked:?} {scope:?}");
            let filter = filter(asked);
            assert_eq!(
                [&denied, &allowed, &unknown].map(|event| filter.takes(event, scope)),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn each_malformed_field_is_named() {
        let request = proto::StreamDecisionsRequest {
            teams: names(&[""]),
            keys: vec!["x".repeat(MAX_NAME_BYTES + 1)],
            models: names(&["m"; 101]),
            decisions: vec![0],
            reasons: vec![99],
            after_id: "1".to_owned(),
        };
        let status = decisions(request).unwrap_err();
        for field in ["`teams`", "`keys`", "`models`", "`decisions`", "`reasons`", "`after_id`"] {
            assert!(status.message().contains(field), "{field}: {}", status.message());
        }
    }
}
