//! `batch` of a team: the caps on its batches.

use std::sync::Arc;

use super::{place::Place, section::Section};
use crate::domain::{
    batch::BatchCaps,
    limit::{Limit, LimitMode, Quantity, Subject, Window},
};

/// Reads the caps on batches of the team `subject`, which is in `mode`; `place` is their place, even if there are none. Open batches are always
/// counted, so `max_open` covers them from the moment it is set.
pub(super) fn caps(
    section: Option<Section<'_>>,
    place: &Place,
    subject: &Subject,
    mode: LimitMode,
) -> BatchCaps {
    let limit = |id| Limit { mode, ..subject.limit(id, Quantity::RequestsInFlight, Window::OpenBatches) };
    let Some(section) = section else {
        return BatchCaps { open: Some(limit(place.key("max_open").id()).into()), ..BatchCaps::default() };
    };
    let count = |key| {
        let cap = section.count(key)?;
        if cap.value == 0 {
            let help = "a cap of zero refuses every batch; for no cap, leave the key out";
            section.findings.warning(&cap.place, "no batch will ever pass", help);
        }
        Some(cap)
    };
    let max_open = count("max_open");
    let caps = BatchCaps {
        max_requests: count("max_requests").map(|cap| cap.value),
        max_input_tokens: count("max_input_tokens").map(|cap| cap.value),
        max_output_tokens: count("max_output_tokens").map(|cap| cap.value),
        max_cost: section.money("max_cost_usd").map(|cap| cap.value),
        open: Some(Arc::new(Limit {
            bound: max_open.map(|cap| cap.value),
            ..limit(place.key("max_open").id())
        })),
    };
    if caps.caps_nothing() {
        section.findings.warning(&section.place, "caps nothing", "");
    }
    section.finish();
    caps
}
