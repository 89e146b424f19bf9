//! Who did something, as it is written down.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::access::{Principal, PrincipalKind};

/// How somebody was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActorKind {
    /// The service itself.
    System,
    /// By a service token.
    ServiceToken,
    /// By a client certificate.
    Certificate,
    /// By a token of an OpenID provider.
    Oidc,
    /// Not at all, as the policy knows no callers.
    Anybody,
}

impl ActorKind {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::ServiceToken => "service-token",
            Self::Certificate => "certificate",
            Self::Oidc => "oidc",
            Self::Anybody => "anybody",
        }
    }
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// How they were recognised.
    pub kind: ActorKind,
    /// The name of the service token or the certificate, `issuer#subject` of a token, or what made the service do it.
    pub name: Arc<str>,
    /// From where; without the port, which says nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
}

impl Actor {
    /// The service itself, because of `cause`.
    #[must_use]
    pub fn system(cause: &str) -> Self {
        Self { kind: ActorKind::System, name: cause.into(), address: None }
    }

    /// Whether both are the same caller, from wherever they call.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name
    }

    /// Whoever called from `address`; `None` where the policy knows no callers.
    #[must_use]
    pub fn caller(principal: Option<&Principal>, address: Option<SocketAddr>) -> Self {
        let kind = match principal.map(|principal| principal.kind) {
            Some(PrincipalKind::ServiceToken) => ActorKind::ServiceToken,
            Some(PrincipalKind::Certificate) => ActorKind::Certificate,
            Some(PrincipalKind::Oidc) => ActorKind::Oidc,
            None => ActorKind::Anybody,
        };
        let name = principal.map_or_else(|| "".into(), |principal| Arc::clone(&principal.name));
        Self { kind, name, address: address.map(|address| address.ip().to_canonical()) }
    }
}
