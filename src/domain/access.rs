//! Who may ask what of Tollgate itself: roles, permissions, and the permission that each RPC needs.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::{self, Write as _},
    sync::Arc,
};

use super::Timestamp;

/// What somebody is to the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May do everything.
    Admin,
    /// Pauses and resumes, rotates and revokes keys.
    Operator,
    /// Reads everything, the audit log included.
    Auditor,
    /// Reads what was spent.
    Viewer,
    /// Asks for decisions and reports usage.
    Gateway,
    /// Manages the keys of its teams and reads their spend.
    TeamAdmin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Operator, Self::Auditor, Self::Viewer, Self::Gateway, Self::TeamAdmin];

    /// Its name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::Gateway => "gateway",
            Self::TeamAdmin => "team-admin",
        }
    }

    /// Whether it has `permission`.
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        use Permission::{
            Decide, ManageKeys, Pause, ReadAudit, ReadKeys, ReadPauses, ReadSpend, ReadStatus,
            ReadUpstreamKeys, Record, RotateKeys,
        };
        match self {
            Self::Admin => true,
            // Who revokes a key has to find it first.
            Self::Operator => {
                matches!(
                    permission,
                    Pause | RotateKeys | ReadKeys | ReadPauses | ReadUpstreamKeys | ReadStatus
                )
            }
            Self::Auditor => {
                matches!(
                    permission,
                    ReadSpend | ReadKeys | ReadPauses | ReadAudit | ReadUpstreamKeys | ReadStatus
                )
            }
            Self::Viewer => matches!(permission, ReadSpend),
            Self::Gateway => matches!(permission, Decide | Record),
            Self::TeamAdmin => matches!(permission, ReadSpend | ReadKeys | ManageKeys | RotateKeys),
        }
    }

    /// Which teams it may hold for.
    #[must_use]
    pub const fn binding(self) -> Binding {
        match self {
            Self::Admin | Self::Operator | Self::Auditor => Binding::Never,
            Self::Viewer | Self::Gateway => Binding::Possible,
            Self::TeamAdmin => Binding::Required,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a role holds for some teams only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It is of the whole organization.
    Never,
    /// It is of some teams, or of all.
    Possible,
    /// It is of some teams.
    Required,
}

/// What can be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// To ask whether a request may go on.
    Decide,
    /// To report what a request used.
    Record,
    /// To read what was spent.
    ReadSpend,
    /// To read of keys; their secrets nobody can.
    ReadKeys,
    /// To create and change keys.
    ManageKeys,
    /// To rotate and revoke keys.
    RotateKeys,
    /// To pause and resume a team, a key, a model or the organization.
    Pause,
    /// To read what is paused.
    ReadPauses,
    /// To read the audit log.
    ReadAudit,
    /// To read which of Groq's own keys is used; the keys themselves nobody can.
    ReadUpstreamKeys,
    /// To read which policy is in force, and why a newer one is not.
    ReadStatus,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 11] = [
        Self::Decide,
        Self::Record,
        Self::ReadSpend,
        Self::ReadKeys,
        Self::ManageKeys,
        Self::RotateKeys,
        Self::Pause,
        Self::ReadPauses,
        Self::ReadAudit,
        Self::ReadUpstreamKeys,
        Self::ReadStatus,
    ];

    /// Its name in errors and in the documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Record => "record",
            Self::ReadSpend => "read-spend",
            Self::ReadKeys => "read-keys",
            Self::ManageKeys => "manage-keys",
            Self::RotateKeys => "rotate-keys",
            Self::Pause => "pause",
            Self::ReadPauses => "read-pauses",
            Self::ReadAudit => "read-audit",
            Self::ReadUpstreamKeys => "read-upstream-keys",
            Self::ReadStatus => "read-status",
        }
    }

    /// The roles that have it, separated by commas.
    #[must_use]
    pub fn roles(self) -> String {
        let names: Vec<_> = Role::ALL.into_iter().filter(|role| role.has(self)).map(Role::name).collect();
        names.join(", ")
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an RPC or a page needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anybody may ask.
    Nothing,
    /// To be known, in whatever role.
    Identity,
    /// A permission. Where it is bound to teams, the handler looks at the team as well.
    Permission(Permission),
}

/// Every RPC that is served, and what it needs. One that is not here is refused, whoever asks.
pub const RPCS: [(&str, Need); 20] = [
    ("/tollgate.v1.PolicyService/Authorize", Need::Permission(Permission::Decide)),
    ("/tollgate.v1.PolicyService/RecordUsage", Need::Permission(Permission::Record)),
    ("/tollgate.v1.PolicyService/GetSpend", Need::Permission(Permission::ReadSpend)),
    ("/tollgate.v1.KeyService/CreateKey", Need::Permission(Permission::ManageKeys)),
    ("/tollgate.v1.KeyService/GetKey", Need::Permission(Permission::ReadKeys)),
    ("/tollgate.v1.KeyService/ListKeys", Need::Permission(Permission::ReadKeys)),
    ("/tollgate.v1.KeyService/UpdateKey", Need::Permission(Permission::ManageKeys)),
    ("/tollgate.v1.KeyService/RotateKey", Need::Permission(Permission::RotateKeys)),
    ("/tollgate.v1.KeyService/RevokeKey", Need::Permission(Permission::RotateKeys)),
    ("/tollgate.v1.AdminService/Pause", Need::Permission(Permission::Pause)),
    ("/tollgate.v1.AdminService/Resume", Need::Permission(Permission::Pause)),
    ("/tollgate.v1.AdminService/ListPauses", Need::Permission(Permission::ReadPauses)),
    ("/tollgate.v1.AdminService/ListUpstreamKeys", Need::Permission(Permission::ReadUpstreamKeys)),
    ("/tollgate.v1.AdminService/ListAuditEvents", Need::Permission(Permission::ReadAudit)),
    ("/envoy.service.auth.v3.Authorization/Check", Need::Permission(Permission::Decide)),
    ("/envoy.service.ext_proc.v3.ExternalProcessor/Process", Need::Permission(Permission::Record)),
    ("/grpc.health.v1.Health/Check", Need::Nothing),
    ("/grpc.health.v1.Health/Watch", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Need::Identity),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Need::Identity),
];

/// The pages of the listener for operators, and what each needs. As with health over gRPC, orchestrators ask without a credential.
pub const PAGES: [(&str, Need); 3] = [
    ("/livez", Need::Nothing),
    ("/readyz", Need::Nothing),
    ("/status", Need::Permission(Permission::ReadStatus)),
];

/// What the page at `path` needs; `None` where there is no such page.
#[must_use]
pub fn page_need(path: &str) -> Option<Need> {
    PAGES.iter().find(|(known, _)| *known == path).map(|(_, need)| *need)
}

/// What the RPC at `path` needs; `None` where there is no such RPC.
#[must_use]
pub fn need_of(path: &str) -> Option<Need> {
    RPCS.iter().find(|(known, _)| *known == path).map(|(_, need)| *need)
}

/// [`RPCS`] and [`PAGES`] as the table of the documentation.
#[must_use]
pub fn table() -> String {
    let mut table = "| RPC or page | permission |".to_owned();
    // Writing to a string cannot fail.
    for role in Role::ALL {
        let _ = write!(table, " {role} |");
    }
    table.push_str("\n| --- | --- |");
    table.push_str(&" --- |".repeat(Role::ALL.len()));
    let rpcs = RPCS.map(|(path, need)| (path.trim_start_matches('/').to_owned(), need));
    let pages = PAGES.map(|(path, need)| (format!("GET {path}"), need));
    for (name, need) in rpcs.into_iter().chain(pages) {
        let permission = match need {
            Need::Nothing => "none, open to all".to_owned(),
            Need::Identity => "none, open to all who are known".to_owned(),
            Need::Permission(permission) => format!("`{permission}`"),
        };
        let _ = write!(table, "\n| `{name}` | {permission} |");
        for role in Role::ALL {
            let cell = match (need, role.binding()) {
                (Need::Permission(permission), _) if !role.has(permission) => "–",
                (Need::Permission(_), Binding::Possible) => "of all or its teams",
                (Need::Permission(_), Binding::Required) => "of its teams",
                _ => "yes",
            };
            let _ = write!(table, " {cell} |");
        }
    }
    table
}

/// Some teams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All, and the organization itself.
    All,
    /// These.
    Teams(Arc<BTreeSet<Arc<str>>>),
}

impl Scope {
    /// Whether `team` is one of them.
    #[must_use]
    pub fn holds(&self, team: &str) -> bool {
        match self {
            Self::All => true,
            Self::Teams(teams) => teams.contains(team),
        }
    }

    /// The one team that it is of.
    #[must_use]
    pub fn only_team(&self) -> Option<&Arc<str>> {
        match self {
            Self::All => None,
            Self::Teams(teams) => teams.first().filter(|_| teams.len() == 1),
        }
    }

    fn and(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Teams(ours), Self::Teams(theirs)) => {
                Self::Teams(Arc::new(ours.union(theirs).cloned().collect()))
            }
            _ => Self::All,
        }
    }
}

/// Roles over some teams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The roles.
    pub roles: Vec<Role>,
    /// Where they hold.
    pub scope: Scope,
}

/// How a principal showed who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// By a service token of the policy.
    ServiceToken,
    /// By a client certificate.
    Certificate,
    /// By a token of an OpenID provider.
    Oidc,
}

/// Somebody who was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name for the log: of the service token, of the certificate, or the token's subject.
    pub name: Arc<str>,
    /// How it was recognised.
    pub kind: PrincipalKind,
    /// What it may do; nothing where this is empty.
    pub grants: Vec<Arc<Grant>>,
}

impl Principal {
    /// Whether it has `permission` over `team`; without a team, over the whole organization.
    #[must_use]
    pub fn permits(&self, permission: Permission, team: Option<&str>) -> bool {
        match (self.scope(permission), team) {
            (None, _) => false,
            (Some(Scope::All), _) => true,
            (Some(scope), Some(team)) => scope.holds(team),
            (Some(Scope::Teams(_)), None) => false,
        }
    }

    /// Whether it has anything over some teams only.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.grants.iter().any(|grant| grant.scope != Scope::All)
    }

    /// The teams over which it has `permission`; `None` where it has it over none.
    #[must_use]
    pub fn scope(&self, permission: Permission) -> Option<Scope> {
        let granting = self.grants.iter().filter(|grant| grant.roles.iter().any(|r| r.has(permission)));
        granting.fold(None, |sum, grant| match sum {
            None => Some(grant.scope.clone()),
            Some(sum) => Some(sum.and(&grant.scope)),
        })
    }
}

/// Who may ask, by the policy.
#[derive(Clone, Debug, Default)]
pub struct AccessPolicy {
    /// Service tokens by the SHA-256 of their secret.
    pub tokens: HashMap<[u8; 32], ServiceToken>,
    /// Client certificates by an identity in them.
    pub certificates: HashMap<Arc<str>, Arc<Principal>>,
    /// OpenID providers, each with another issuer.
    pub issuers: Vec<Issuer>,
}

/// A service token.
#[derive(Clone, Debug)]
pub struct ServiceToken {
    /// The SHA-256 of its secret.
    pub sha256: [u8; 32],
    /// Who holds it.
    pub principal: Arc<Principal>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// An OpenID provider.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its identifier, exactly as its tokens have it in `iss`.
    pub issuer: Arc<str>,
    /// What its tokens for this service have in `aud`.
    pub audience: Arc<str>,
    /// The claim that says what a caller is: an exact name, or names separated by dots for a claim within a claim.
    pub claim: Arc<str>,
    /// What each value of the claim is granted.
    pub grants: HashMap<Arc<str>, Arc<Grant>>,
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
