//! The guard's refusals in gRPC terms.

use std::sync::Arc;

use tonic::Status;
use tonic_types::FieldViolation;

use super::super::error::{Fields, Needs, Nothing, Resource, Retry, shortened, table};
use crate::{
    access::{self, Invalid, Refusal},
    domain::rbac::{Permission, TeamScope},
};

/// The refusal as a status. What lies outside the caller's teams is its source, for the audit log only.
pub(in super::super) fn status(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    let unknown = match refusal {
        Refusal::NoCredential => &table::MISSING_CREDENTIAL,
        Refusal::UnknownCertificate => &table::UNKNOWN_CERTIFICATE,
        Refusal::NotConfigured => &table::ACCESS_NOT_CONFIGURED,
        Refusal::Malformed(_) | Refusal::Invalid(Invalid::Token(_)) => &table::INVALID_TOKEN,
        Refusal::Invalid(Invalid::Expired) => &table::TOKEN_EXPIRED,
        Refusal::UnknownRpc => &table::UNKNOWN_RPC,
        Refusal::OtherOrganization => &table::ORGANIZATION_NOT_PERMITTED,
        Refusal::OrganizationRequired(_) => {
            let violation = FieldViolation::new(access::ORGANIZATION, shortened(message.clone()));
            return table::ORGANIZATION_REQUIRED.error(message, Fields(vec![violation]));
        }
        Refusal::UnknownOrganization(name) => {
            return table::UNKNOWN_ORGANIZATION.error(message, Resource("tollgate.v1.Organization", name));
        }
        Refusal::Invalid(Invalid::IssuerUnavailable) => {
            return table::ISSUER_UNAVAILABLE.error(message, Retry);
        }
        Refusal::Missing(permission) => return table::PERMISSION_MISSING.error(message, Needs(permission)),
        Refusal::OtherTeam(permission, other) => {
            let mut status = table::TEAM_NOT_PERMITTED.error(message, Needs(permission));
            status.set_source(Arc::new(other));
            return status;
        }
    };
    unknown.error(message, Nothing)
}

/// Refuses what concerns a team that is not in `scope`.
pub(in super::super) fn within(scope: &TeamScope, team: &str, permission: Permission) -> Result<(), Status> {
    access::within(scope, team, permission).map_err(status)
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn a_refusal_has_one_reason_wherever_it_is_told() {
        for (refusal, reason) in [
            (Refusal::NoCredential, "MISSING_CREDENTIAL"),
            (Refusal::UnknownCertificate, "UNKNOWN_CERTIFICATE"),
            (Refusal::NotConfigured, "ACCESS_NOT_CONFIGURED"),
            (Refusal::Malformed("x"), "INVALID_TOKEN"),
            (Refusal::Invalid(Invalid::Token("x")), "INVALID_TOKEN"),
            (Refusal::Invalid(Invalid::Expired), "TOKEN_EXPIRED"),
            (Refusal::Invalid(Invalid::IssuerUnavailable), "ISSUER_UNAVAILABLE"),
            (Refusal::Missing(Permission::Decide), "PERMISSION_MISSING"),
            (Refusal::OtherTeam(Permission::Decide, access::OtherTeam::Unnamed), "TEAM_NOT_PERMITTED"),
            (Refusal::UnknownRpc, "UNKNOWN_RPC"),
            (Refusal::OrganizationRequired("x"), "ORGANIZATION_REQUIRED"),
            (Refusal::UnknownOrganization("x".to_owned()), "UNKNOWN_ORGANIZATION"),
            (Refusal::OtherOrganization, "ORGANIZATION_NOT_PERMITTED"),
        ] {
            assert_eq!(refusal.reason(), reason);
            assert_eq!(status(refusal).get_details_error_info().unwrap().reason, reason);
        }
    }
}
