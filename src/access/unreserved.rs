//! Records that a caller reported more usage without a reservation than the policy permits.

use serde_json::{Value, json};

use super::Session;
use crate::{
    audit::{Audit, Change, action},
    domain::rbac::{Principal, PrincipalKind},
};

/// How such a refusal is recorded and reported.
pub const UNRESERVED_BOUND_EXCEEDED: &str = "UNRESERVED_BOUND_EXCEEDED";

/// Records in `audit` that the caller of the RPC at `path` reported more for a team than permitted; `named` is the team, if the
/// report names one.
pub fn record_refused(audit: &Audit, session: &Session<'_>, path: &str, named: Option<&str>) {
    let unnamed = Principal { name: "".into(), kind: PrincipalKind::ServiceToken, grants: Vec::new() };
    audit.denied(session.principal().map_or(&unnamed, AsRef::as_ref), || Change {
        actor: session.actor(),
        action: action::ROLE_DENIED,
        subject: path.trim_start_matches('/').to_owned(),
        before: Value::Null,
        after: json!({ "team": named }),
        outcome: UNRESERVED_BOUND_EXCEEDED,
    });
}
