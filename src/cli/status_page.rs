//! What the admin listener shows at `/status`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::redis_safety::Hazards;
use crate::{
    policy_file::{Finding, PolicySource},
    server::admin,
    store::{CallTotals, Calls, StoreCall},
};

/// The policy, the calls to the store, and what is wrong with Redis, on the admin page.
pub(super) struct StatusPage {
    pub(super) source: Arc<PolicySource>,
    pub(super) hazards: Hazards,
    pub(super) calls: Arc<Calls>,
}

impl admin::Status for StatusPage {
    fn status(&self) -> Value {
        let status = self.source.status();
        let findings = |findings: &[Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rejected = status.rejected.as_ref().map(
            |rejection| json!({ "at_unix_ms": rejection.at.0, "findings": findings(&rejection.findings) }),
        );
        json!({
            "policy_revision": &*status.revision,
            "policy_loaded_at_unix_ms": status.loaded_at.0,
            "policy_warnings": findings(&status.warnings),
            "policy_rejected": rejected,
            "store_calls": StoreCall::ALL.map(|call| (call.name().to_owned(), shown(self.calls.of(call)))).into_iter().collect::<Map<_, _>>(),
            "redis_warnings": self.hazards.load().iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

/// The calls of one kind since the start; the time is rounded down to whole microseconds.
fn shown(totals: CallTotals) -> Value {
    let mean = totals.took.as_micros().checked_div(totals.calls.into()).unwrap_or(0);
    json!({ "calls": totals.calls, "failed": totals.failed, "mean_microseconds": u64::try_from(mean).unwrap_or(u64::MAX) })
}
