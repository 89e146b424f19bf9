//! What the admin listener shows at `/status`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::redis_safety::Hazards;
use crate::{
    policy_file::{Finding, PolicySource},
    server::admin,
};

/// The policy, and what is wrong with Redis, on the admin page.
pub(super) struct StatusPage {
    pub(super) source: Arc<PolicySource>,
    pub(super) hazards: Hazards,
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
            "redis_warnings": self.hazards.load().iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}
