//! Access control for Tollgate itself: roles, permissions, and the permission that each RPC needs.

mod needs;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use super::Timestamp;
pub use needs::{Need, PAGES, RPCS, VERBOSE_READINESS, is_page, need_of, page_of, rpc_number, table};

/// The role that a caller has in the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May do everything.
    Admin,
    /// Pauses and resumes, rotates and revokes keys, tests receivers of alerts, reports drift, reads and checks policies.
    Operator,
    /// Reads everything, the audit log included.
    Auditor,
    /// Reads spend, alerts, decisions as they are made, and what the policy says of teams.
    Viewer,
    /// Reads the state of the service and its metrics: for monitoring systems.
    Monitor,
    /// Requests decisions and reports usage.
    Gateway,
    /// Manages the keys of its teams and reads their spend, their alerts, their decisions, and what the policy says of them.
    TeamAdmin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Admin,
        Self::Operator,
        Self::Auditor,
        Self::Viewer,
        Self::Monitor,
        Self::Gateway,
        Self::TeamAdmin,
    ];

    /// Its name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
            Self::Monitor => "monitor",
            Self::Gateway => "gateway",
            Self::TeamAdmin => "team-admin",
        }
    }

    /// Whether it has `permission`.
    #[must_use]
    pub const fn has(self, permission: Permission) -> bool {
        use Permission::{
            CheckPolicy, Decide, LiftCooldowns, ManageKeys, Pause, ReadAlerts, ReadAudit, ReadDecisions,
            ReadKeys, ReadMetrics, ReadPauses, ReadPolicy, ReadSpend, ReadStatus, ReadTeamPolicy,
            ReadUpstream, Record, ReportDrift, RotateKeys, TestReceivers,
        };
        match self {
            Self::Admin => true,
            // Revoking a key requires finding it first.
            Self::Operator => {
                matches!(
                    permission,
                    Pause
                        | LiftCooldowns
                        | RotateKeys
                        | ReadKeys
                        | ReadPauses
                        | ReadUpstream
                        | ReadAlerts
                        | ReadDecisions
                        | TestReceivers
                        | ReportDrift
                        | ReadPolicy
                        | ReadTeamPolicy
                        | CheckPolicy
                        | ReadStatus
                        | ReadMetrics
                )
            }
            Self::Auditor => {
                matches!(
                    permission,
                    ReadSpend
                        | ReadKeys
                        | ReadPauses
                        | ReadAudit
                        | ReadUpstream
                        | ReadAlerts
                        | ReadDecisions
                        | ReadPolicy
                        | ReadTeamPolicy
                        | ReadStatus
                        | ReadMetrics
                )
            }
            Self::Viewer => matches!(permission, ReadSpend | ReadAlerts | ReadDecisions | ReadTeamPolicy),
            Self::Monitor => matches!(permission, ReadStatus | ReadMetrics),
            Self::Gateway => matches!(permission, Decide | Record),
            Self::TeamAdmin => {
                matches!(
                    permission,
                    ReadSpend
                        | ReadKeys
                        | ManageKeys
                        | RotateKeys
                        | ReadAlerts
                        | ReadDecisions
                        | ReadTeamPolicy
                )
            }
        }
    }

    /// The teams that the role can be granted for.
    #[must_use]
    pub const fn binding(self) -> Binding {
        match self {
            Self::Admin | Self::Operator | Self::Auditor | Self::Monitor => Binding::Never,
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

/// Whether a role can be granted for some teams only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// For the whole organization only.
    Never,
    /// For some teams, or for all.
    Possible,
    /// For some teams only.
    Required,
}

/// What a role can permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Ask whether a request is allowed.
    Decide,
    /// Report what a request used.
    Record,
    /// Read spend.
    ReadSpend,
    /// Read keys, but never their secrets.
    ReadKeys,
    /// Create and change keys.
    ManageKeys,
    /// Rotate and revoke keys.
    RotateKeys,
    /// Pause and resume a team, a key, a model or the organization.
    Pause,
    /// Read what is paused.
    ReadPauses,
    /// Read the audit log.
    ReadAudit,
    /// Read what Groq's side does: which key is in use (never the key itself), and the cooldowns that follow 429s.
    ReadUpstream,
    /// Lift such a cooldown.
    LiftCooldowns,
    /// Read alerts, and how their receivers get them.
    ReadAlerts,
    /// Read decisions as they are made.
    ReadDecisions,
    /// Send a test to a receiver of alerts.
    TestReceivers,
    /// Report that what was booked differs from what Groq billed, which opens and resolves alerts.
    ReportDrift,
    /// Read the policy document, without digests and secrets.
    ReadPolicy,
    /// Read what the policy says of a team.
    ReadTeamPolicy,
    /// Have a proposed policy document checked.
    CheckPolicy,
    /// Read which policy is in force, and why a newer one is not.
    ReadStatus,
    /// Read the metrics, which name teams and what they spend.
    ReadMetrics,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 20] = [
        Self::Decide,
        Self::Record,
        Self::ReadSpend,
        Self::ReadKeys,
        Self::ManageKeys,
        Self::RotateKeys,
        Self::Pause,
        Self::ReadPauses,
        Self::ReadAudit,
        Self::ReadUpstream,
        Self::LiftCooldowns,
        Self::ReadAlerts,
        Self::ReadDecisions,
        Self::TestReceivers,
        Self::ReportDrift,
        Self::ReadPolicy,
        Self::ReadTeamPolicy,
        Self::CheckPolicy,
        Self::ReadStatus,
        Self::ReadMetrics,
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
            Self::ReadUpstream => "read-upstream",
            Self::LiftCooldowns => "lift-cooldowns",
            Self::ReadAlerts => "read-alerts",
            Self::ReadDecisions => "read-decisions",
            Self::TestReceivers => "test-receivers",
            Self::ReportDrift => "report-drift",
            Self::ReadPolicy => "read-policy",
            Self::ReadTeamPolicy => "read-team-policy",
            Self::CheckPolicy => "check-policy",
            Self::ReadStatus => "read-status",
            Self::ReadMetrics => "read-metrics",
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

/// Some teams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeamScope {
    /// All teams, and the organization itself.
    All,
    /// These teams only.
    Teams(Arc<BTreeSet<Arc<str>>>),
}

impl TeamScope {
    /// Whether `team` is one of them.
    #[must_use]
    pub fn holds(&self, team: &str) -> bool {
        match self {
            Self::All => true,
            Self::Teams(teams) => teams.contains(team),
        }
    }

    /// The one team in this scope.
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
pub struct RoleGrant {
    /// The roles.
    pub roles: Vec<Role>,
    /// The teams for which they hold.
    pub scope: TeamScope,
}

/// How a principal authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// By a service token from the policy.
    ServiceToken,
    /// By a client certificate.
    Certificate,
    /// By a token from an OpenID provider.
    Oidc,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name for the log: the name of the service token or certificate, or the subject of the token.
    pub name: Arc<str>,
    /// How it authenticated.
    pub kind: PrincipalKind,
    /// What it may do; if empty, nothing.
    pub grants: Vec<Arc<RoleGrant>>,
}

impl Principal {
    /// Whether it has `permission` for `team`; without a team, for the whole organization.
    #[must_use]
    pub fn permits(&self, permission: Permission, team: Option<&str>) -> bool {
        match (self.scope(permission), team) {
            (None, _) => false,
            (Some(TeamScope::All), _) => true,
            (Some(scope), Some(team)) => scope.holds(team),
            (Some(TeamScope::Teams(_)), None) => false,
        }
    }

    /// Whether it has any role that is limited to some teams.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.grants.iter().any(|grant| grant.scope != TeamScope::All)
    }

    /// The teams for which it has `permission`; `None` if there are none.
    #[must_use]
    pub fn scope(&self, permission: Permission) -> Option<TeamScope> {
        let granting = self.grants.iter().filter(|grant| grant.roles.iter().any(|r| r.has(permission)));
        granting.fold(None, |sum, grant| match sum {
            None => Some(grant.scope.clone()),
            Some(sum) => Some(sum.and(&grant.scope)),
        })
    }
}

/// Who may call Tollgate, according to the policy.
#[derive(Clone, Debug, Default)]
pub struct AccessPolicy {
    /// Service tokens by the SHA-256 of their secret.
    pub tokens: HashMap<[u8; 32], ServiceToken>,
    /// Client certificates by an identity that they contain.
    pub certificates: HashMap<Arc<str>, Arc<Principal>>,
    /// OpenID providers; no two have the same issuer.
    pub issuers: Vec<Issuer>,
}

/// A service token.
#[derive(Clone, Debug)]
pub struct ServiceToken {
    /// The SHA-256 of its secret.
    pub sha256: [u8; 32],
    /// Who holds it.
    pub principal: Arc<Principal>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

/// An OpenID provider.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its identifier, exactly as it appears in the `iss` of its tokens.
    pub issuer: Arc<str>,
    /// The `aud` of its tokens for this service.
    pub audience: Arc<str>,
    /// The claim that determines a caller's role: an exact name, or names separated by dots for a claim within a claim.
    pub claim: Arc<str>,
    /// What each value of the claim grants.
    pub grants: HashMap<Arc<str>, Arc<RoleGrant>>,
}

#[cfg(test)]
mod tests;
