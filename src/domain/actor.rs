//! Actors: the callers that logs record.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::rbac::{Principal, PrincipalKind};

/// How an actor authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The service itself.
    System,
    /// By a service token.
    #[serde(alias = "service-token")]
    ServiceToken,
    /// By a client certificate.
    Certificate,
    /// By a token from an OpenID provider.
    Oidc,
    /// Not at all: the policy defines no callers.
    #[serde(alias = "anybody")]
    Anyone,
}

impl ActorKind {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::ServiceToken => "service_token",
            Self::Certificate => "certificate",
            Self::Oidc => "oidc",
            Self::Anyone => "anyone",
        }
    }
}

/// The actor behind a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// How it authenticated.
    pub kind: ActorKind,
    /// The name of the service token or the certificate, `issuer#subject` of a token, or what caused the service to act.
    pub name: Arc<str>,
    /// The address of the caller, without the port, which carries no information.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
}

impl Actor {
    /// The service itself, because of `cause`.
    #[must_use]
    pub fn system(cause: &str) -> Self {
        Self { kind: ActorKind::System, name: cause.into(), address: None }
    }

    /// Whether both are the same caller, regardless of their addresses.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name
    }

    /// The caller `principal` at `address`. There is no principal if the policy defines no callers.
    #[must_use]
    pub fn caller(principal: Option<&Principal>, address: Option<SocketAddr>) -> Self {
        let kind = match principal.map(|principal| principal.kind) {
            Some(PrincipalKind::ServiceToken) => ActorKind::ServiceToken,
            Some(PrincipalKind::Certificate) => ActorKind::Certificate,
            Some(PrincipalKind::Oidc) => ActorKind::Oidc,
            None => ActorKind::Anyone,
        };
        let name = principal.map_or_else(|| "".into(), |principal| Arc::clone(&principal.name));
        Self { kind, name, address: address.map(|address| address.ip().to_canonical()) }
    }
}
