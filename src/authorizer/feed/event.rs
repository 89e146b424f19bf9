//! A decision as it is told to those who watch: the line that the decision log would have, with the messages of its violations.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::decision_log::{Decision, VERSION as LINE};
use crate::store::DecisionId;

/// The version that this release writes. Fields are added without raising it.
const VERSION: u32 = 1;

/// A decision that was published.
#[derive(Debug)]
pub struct FeedEvent {
    /// Its place among all.
    pub id: DecisionId,
    /// What its replica has left out since it published the last one, by team; an empty name is of callers that belong to none.
    pub skipped: BTreeMap<Arc<str>, u64>,
    pub(crate) decision: Decision,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Told<'t> {
    v: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    skipped: BTreeMap<Arc<str>, u64>,
    decision: std::borrow::Cow<'t, Decision>,
}

/// The bytes that the store gets.
pub(super) fn written(decision: &Decision, skipped: &BTreeMap<Arc<str>, u64>) -> Bytes {
    let told = Told { v: VERSION, skipped: skipped.clone(), decision: std::borrow::Cow::Borrowed(decision) };
    // Texts, numbers and lists of them are always JSON.
    serde_json::to_vec(&told).unwrap_or_default().into()
}

/// What another replica has written; `None`: of a later version, or foreign.
pub(super) fn read(id: DecisionId, bytes: &[u8]) -> Option<FeedEvent> {
    let Told { v, skipped, decision } = serde_json::from_slice(bytes).ok()?;
    let decision = decision.into_owned();
    (v <= VERSION && decision.head.v <= LINE).then_some(FeedEvent { id, skipped, decision })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a release wrote it: it is read, and written the same.
    #[test]
    fn an_event_is_read_as_it_was_written() {
        let id = "01a207d921000000000000000001".parse().unwrap();
        let told = r#"{"v":1,"skipped":{"":2,"lab":7},"decision":{"v":1,"id":"019ac5d3a17b0000000011111111","time":"2026-11-24T10:00:00.123Z","#
            .to_owned()
            + r#""replica":"gate-1:42","organization":"acme","team":"lab","policy_revision":"r/0","decision":"denied","#
            + r#""violations":[{"reason":"paused","retryable":false,"message":"lab is paused"}],"degraded":false}}"#;
        let event = read(id, told.as_bytes()).unwrap();
        assert_eq!(event.decision.violations[0].message, "lab is paused");
        assert_eq!(written(&event.decision, &event.skipped), told.as_bytes());
        for (known, later) in
            [("{\"v\":1,\"skipped\"", "{\"v\":2,\"skipped\""), ("{\"v\":1,\"id\"", "{\"v\":2,\"id\"")]
        {
            assert!(read(id, told.replacen(known, later, 1).as_bytes()).is_none(), "{later}");
        }
        assert!(read(id, told.replacen("\"v\":1", "\"v\":1,\"more\":[1]", 1).as_bytes()).is_some());
        assert!(read(id, b"foreign").is_none());
    }
}
