//! The answers to callers that are not recognised, or lack a permission.

use serde_json::{Value, json};
use thiserror::Error;

use super::bearer::Invalid;
use crate::domain::rbac::Permission;

/// Why a request is refused. Its text is for the caller.
#[derive(Clone, Debug, Error)]
pub enum Refusal {
    /// Nothing identifies the caller.
    #[error(
        "no credential: send `authorization: Bearer …` with a service token or a token of an OpenID provider of the policy, or a \
         client certificate"
    )]
    NoCredential,
    /// The policy has none of the names in the client certificate.
    #[error("the policy knows no identity of the client certificate")]
    UnknownCertificate,
    /// The policy has no `[access]`, and the caller is on another machine.
    #[error(
        "the service does not know who may ask: its policy has no `[access]`, and only callers on its own machine are served \
         without"
    )]
    NotConfigured,
    /// `authorization` is not one header with one bearer token.
    #[error("{0}")]
    Malformed(&'static str),
    /// The bearer token names no one.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No role of the caller has the permission.
    #[error("the caller lacks the permission `{0}`, which these roles have: {roles}", roles = .0.roles())]
    Missing(Permission),
    /// The caller has the permission, but not over this team. The text does not show the second field.
    #[error("the caller has the permission `{0}`, but not over this team")]
    OtherTeam(Permission, OtherTeam),
    /// No such RPC is served.
    #[error("there is no such RPC")]
    UnknownRpc,
    /// The caller may be of several organizations, and nothing says which one is meant; or what says so is malformed.
    #[error("{0}: name one in the metadata `tollgate-organization`")]
    OrganizationRequired(&'static str),
    /// There is no organization of this name.
    #[error("there is no organization `{0}`")]
    UnknownOrganization(String),
    /// The request names an organization that its caller is not of. It is not said whether there is one of that name.
    #[error("the caller is not of the organization that the request names")]
    OtherOrganization,
}

/// The kinds of refusal, as every transport tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller is unknown.
    Unauthenticated,
    /// The caller is known, but lacks the permission.
    Forbidden,
    /// This cannot be determined at the moment; the caller did nothing wrong and can only try again.
    Unavailable,
    /// Nothing has that name.
    Unknown,
    /// The request does not say enough.
    Invalid,
}

impl Refusal {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NoCredential
            | Self::UnknownCertificate
            | Self::NotConfigured
            | Self::Malformed(_)
            | Self::Invalid(Invalid::Token(_) | Invalid::Expired) => Kind::Unauthenticated,
            Self::Invalid(Invalid::IssuerUnavailable) => Kind::Unavailable,
            Self::Missing(_) | Self::OtherTeam(..) | Self::OtherOrganization => Kind::Forbidden,
            Self::UnknownRpc | Self::UnknownOrganization(_) => Kind::Unknown,
            Self::OrganizationRequired(_) => Kind::Invalid,
        }
    }

    /// The reason in the details of an error, and in the audit log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCredential => "MISSING_CREDENTIAL",
            Self::UnknownCertificate => "UNKNOWN_CERTIFICATE",
            Self::NotConfigured => "ACCESS_NOT_CONFIGURED",
            Self::Malformed(_) | Self::Invalid(Invalid::Token(_)) => "INVALID_TOKEN",
            Self::Invalid(Invalid::Expired) => "TOKEN_EXPIRED",
            Self::Invalid(Invalid::IssuerUnavailable) => "ISSUER_UNAVAILABLE",
            Self::Missing(_) => "PERMISSION_MISSING",
            Self::OtherTeam(..) => "TEAM_NOT_PERMITTED",
            Self::UnknownRpc => "UNKNOWN_RPC",
            Self::OrganizationRequired(_) => "ORGANIZATION_REQUIRED",
            Self::UnknownOrganization(_) => "UNKNOWN_ORGANIZATION",
            Self::OtherOrganization => "ORGANIZATION_NOT_PERMITTED",
        }
    }

    /// The permission that the caller lacks.
    #[must_use]
    pub const fn permission(&self) -> Option<Permission> {
        match self {
            Self::Missing(permission) | Self::OtherTeam(permission, _) => Some(*permission),
            _ => None,
        }
    }
}

/// What was asked for outside the caller's teams, as the parser left it, and so bounded. It goes to the audit log and never to
/// the caller.
#[derive(Clone, Debug, Error)]
#[error("the caller's teams are others")]
pub enum OtherTeam {
    /// A team, named directly or found through one of its keys.
    Team(String),
    /// The key of this name, if there is one.
    Key(String),
    /// Something that names neither.
    Unnamed,
}

impl OtherTeam {
    /// As the audit log shows it.
    #[must_use]
    pub fn recorded(&self) -> Value {
        match self {
            Self::Team(team) => json!({ "team": team }),
            Self::Key(key) => json!({ "key": key }),
            Self::Unnamed => Value::Null,
        }
    }
}
