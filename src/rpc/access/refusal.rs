//! What a caller is told who is not recognised, or may not ask.

use std::{collections::HashMap, sync::Arc};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    super::status::{DOMAIN, OUTAGE_RETRY},
    OtherTeam,
};
use crate::{domain::access::Permission, identity::Refusal};

/// The refusal of what concerns a team out of reach. The caller is told nothing of `other`.
pub(in super::super) fn other_team(permission: Permission, other: OtherTeam) -> Status {
    let message = format!("the caller has the permission `{permission}`, but not over this team");
    let mut status = status(Code::PermissionDenied, "TEAM_NOT_PERMITTED", message, needs(permission));
    status.set_source(Arc::new(other));
    status
}

pub(super) fn missing(permission: Permission) -> Status {
    let message = format!(
        "the caller lacks the permission `{permission}`, which these roles have: {}",
        permission.roles()
    );
    status(Code::PermissionDenied, "PERMISSION_MISSING", message, needs(permission))
}

fn needs(permission: Permission) -> HashMap<String, String> {
    HashMap::from([
        ("permission".to_owned(), permission.to_string()),
        ("roles".to_owned(), permission.roles()),
    ])
}

pub(super) fn no_credential() -> Status {
    let message = "no credential: send `authorization: Bearer …` with a service token or a token of an OpenID provider \
                   of the policy, or a client certificate";
    status(Code::Unauthenticated, "MISSING_CREDENTIAL", message, HashMap::new())
}

pub(super) fn unknown_certificate() -> Status {
    let message = "the policy knows no identity of the client certificate";
    status(Code::Unauthenticated, "UNKNOWN_CERTIFICATE", message, HashMap::new())
}

pub(super) fn closed() -> Status {
    let message = "the service does not know who may ask: its policy has no `[access]`, and only callers on its own \
                   machine are served without";
    status(Code::Unauthenticated, "ACCESS_NOT_CONFIGURED", message, HashMap::new())
}

pub(super) fn invalid(message: &str) -> Status {
    status(Code::Unauthenticated, "INVALID_TOKEN", message, HashMap::new())
}

pub(super) fn unauthenticated(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::Invalid(_) => status(Code::Unauthenticated, "INVALID_TOKEN", message, HashMap::new()),
        Refusal::Expired => status(Code::Unauthenticated, "TOKEN_EXPIRED", message, HashMap::new()),
        // The caller did nothing wrong and can only try again, which UNAVAILABLE tells its client to do.
        Refusal::IssuerUnavailable => {
            let mut details = ErrorDetails::new();
            details.set_error_info("ISSUER_UNAVAILABLE", DOMAIN, HashMap::new());
            details.set_retry_info(Some(OUTAGE_RETRY));
            Status::with_error_details(Code::Unavailable, message, details)
        }
    }
}

pub(super) fn unknown_rpc() -> Status {
    status(Code::Unimplemented, "UNKNOWN_RPC", "there is no such RPC", HashMap::new())
}

fn status(code: Code, reason: &str, message: impl Into<String>, metadata: HashMap<String, String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}
