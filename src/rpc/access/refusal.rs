//! The guard's refusals in gRPC terms.

use std::{collections::HashMap, sync::Arc};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::super::status::{DOMAIN, OUTAGE_RETRY};
use crate::{
    access::{self, Kind, Refusal},
    domain::rbac::{Permission, TeamScope},
};

/// The refusal as a status. What lies outside the caller's teams is its source, for the audit log only.
pub(in super::super) fn status(refusal: Refusal) -> Status {
    let code = match refusal.kind() {
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unknown => Code::Unimplemented,
    };
    let mut details = ErrorDetails::new();
    details.set_error_info(refusal.reason(), DOMAIN, refusal.permission().map_or_else(HashMap::new, needs));
    if code == Code::Unavailable {
        details.set_retry_info(Some(OUTAGE_RETRY));
    }
    let mut status = Status::with_error_details(code, refusal.to_string(), details);
    if let Refusal::OtherTeam(_, other) = refusal {
        status.set_source(Arc::new(other));
    }
    status
}

fn needs(permission: Permission) -> HashMap<String, String> {
    HashMap::from([
        ("permission".to_owned(), permission.to_string()),
        ("roles".to_owned(), permission.roles()),
    ])
}

/// Refuses what concerns a team that is not in `scope`.
pub(in super::super) fn within(scope: &TeamScope, team: &str, permission: Permission) -> Result<(), Status> {
    access::within(scope, team, permission).map_err(status)
}
