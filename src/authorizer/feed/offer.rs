//! What a decision does for those who watch.

use std::sync::Arc;

use super::pending::Rank;
use crate::{
    authorizer::{
        Authorizer, Decided, Question,
        decision_log::{Decision, Refusal},
    },
    domain::{caller::ResolvedCaller, decision::Violation, snapshot::Snapshot},
    store::Store,
};

impl<S: Store + Clone> Authorizer<S> {
    /// Shows a decision to those who watch. One that reserved nothing, because it was not to or did so before, is no news.
    pub(in crate::authorizer) fn show_decision(&self, question: Question<'_>, decided: &Decided) {
        let feed = &self.shared.feed;
        if !feed.is_open() || question.request.dry_run || decided.is_repeat {
            return;
        }
        let caller = question.caller.as_ref().ok();
        let rank = if decided.outcome.is_ok() { Rank::Allowed } else { Rank::Denied };
        feed.pending.offer(rank, &team_of(caller), || {
            let violations = decided.outcome.as_ref().err().map(Vec::as_slice).unwrap_or_default();
            let shadow_violations = explained(&decided.shadow_violations);
            let decision = self.line_of(question, decided);
            Decision { violations: explained(violations), shadow_violations, ..decision }
        });
    }

    /// The same of a denial for which the caller alone was enough; `caller` is absent if it is unknown.
    pub(in crate::authorizer) fn show_denied(
        &self,
        caller: Option<&ResolvedCaller<'_>>,
        violations: &[Violation],
        snapshot: &Snapshot,
    ) {
        let feed = &self.shared.feed;
        if !feed.is_open() {
            return;
        }
        feed.pending.offer(Rank::Denied, &team_of(caller), || {
            let decision = self.decision((snapshot, &snapshot.revision), caller, None, violations);
            Decision { violations: explained(violations), ..decision }
        });
    }
}

fn team_of(caller: Option<&ResolvedCaller<'_>>) -> Arc<str> {
    caller.map(|caller| Arc::clone(&caller.team.name)).unwrap_or_default()
}

fn explained(violations: &[Violation]) -> Vec<Refusal> {
    violations.iter().map(Refusal::with_message).collect()
}
