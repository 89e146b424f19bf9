//! Decisions, as a list.

use bytes::Bytes;
use tollgate::store::{
    DECISIONS_KEPT, DECISIONS_KEPT_MS, DECISIONS_WATCHED_MS, DecisionId, Decisions, MAX_DECISION_BYTES,
    MAX_DECISIONS_PUBLISHED, StoreError,
};

use super::Model;

/// All that were published while they were watched, and until when they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    all: Vec<(u64, Bytes)>,
    until: u64,
}

impl Watched {
    fn id(ms: u64, place: usize) -> DecisionId {
        format!("{ms:012x}{:016x}", place + 1).parse().unwrap()
    }
}

impl Decisions for Model {
    async fn publish_decisions(&self, decisions: Vec<Bytes>) -> Result<bool, StoreError> {
        let is_long = decisions.iter().any(|decision| decision.len() > MAX_DECISION_BYTES);
        if is_long || decisions.len() > MAX_DECISIONS_PUBLISHED {
            return Err(StoreError::Overflow);
        }
        let (now, mut state) = (self.moment().store.0, self.state.lock().unwrap());
        let is_watched = state.decisions.until > now;
        if is_watched {
            state.decisions.all.extend(decisions.into_iter().map(|decision| (now, decision)));
        }
        Ok(is_watched)
    }

    async fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> Result<Vec<(DecisionId, Bytes)>, StoreError> {
        let (now, mut state) = (self.moment().store.0, self.state.lock().unwrap());
        state.decisions.until = now + DECISIONS_WATCHED_MS;
        let all = &state.decisions.all;
        let kept = all.iter().enumerate().skip(all.len().saturating_sub(DECISIONS_KEPT));
        let kept = kept.filter(|(_, (at, _))| at + DECISIONS_KEPT_MS >= now);
        let read = kept.map(|(place, (at, decision))| (Watched::id(*at, place), decision.clone()));
        Ok(read.filter(|(id, _)| after.is_none_or(|after| *id > after)).take(count).collect())
    }
}
