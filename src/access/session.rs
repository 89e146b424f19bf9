//! What a request's handler may ask about its caller.

use std::{net::SocketAddr, sync::Arc};

use super::{OtherTeam, Refusal, guard};
use crate::{
    audit::Audit,
    domain::{
        actor::Actor,
        rbac::{Permission, Principal, Role, TeamScope},
    },
};

/// The caller of a request that the guard has let through.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Who the caller is.
    pub standing: Standing<'a>,
    /// Their address, where the system knows it.
    pub from: Option<SocketAddr>,
}

/// How the guard let a request through.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// With this caller.
    Known(&'a Arc<Principal>),
    /// As anyone: the policy has no `[access]`.
    Unrestricted,
    /// The guard did not see it. Such a request has no permission.
    Unguarded,
}

impl<'a> Session<'a> {
    /// The caller, where there is one.
    #[must_use]
    pub const fn principal(&self) -> Option<&'a Arc<Principal>> {
        match self.standing {
            Standing::Known(principal) => Some(principal),
            Standing::Unrestricted | Standing::Unguarded => None,
        }
    }

    /// The teams over which the caller has `permission`.
    ///
    /// # Errors
    /// There are no such teams.
    pub fn scope(&self, permission: Permission) -> Result<TeamScope, Refusal> {
        match self.standing {
            Standing::Known(principal) => principal.scope(permission).ok_or(Refusal::Missing(permission)),
            Standing::Unrestricted => Ok(TeamScope::All),
            Standing::Unguarded => Err(Refusal::NotConfigured),
        }
    }

    /// The caller as the audit log shows it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::caller(self.principal().map(AsRef::as_ref), self.from)
    }

    /// Whether the caller is an admin. If the policy knows no callers, no one is.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        let admin = |principal: &Arc<Principal>| {
            principal.grants.iter().any(|grant| grant.roles.contains(&Role::Admin))
        };
        self.principal().is_some_and(admin)
    }

    /// The part of the session that outlives the handler, for a request that continues after it has returned. `path` is its RPC.
    ///
    /// # Errors
    /// The caller has `permission` over no team.
    pub fn reach(&self, permission: Permission, path: &'static str, audit: Audit) -> Result<Reach, Refusal> {
        let scope = self.scope(permission)?;
        Ok(Reach { scope, caller: self.principal().cloned(), from: self.from, path, audit })
    }
}

/// The teams of a caller whose request continues, and the audit log for attempts to go beyond them.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The teams.
    pub scope: TeamScope,
    /// `None`: callers are not told apart, and every team is within reach.
    caller: Option<Arc<Principal>>,
    from: Option<SocketAddr>,
    path: &'static str,
    audit: Audit,
}

impl Reach {
    /// Records that `other` is outside the caller's teams.
    pub fn refuse(&self, other: &OtherTeam) {
        if let Some(caller) = &self.caller {
            guard::record_other_team(&self.audit, caller, self.from, self.path, other);
        }
    }
}

/// Refuses a team that is not in `scope`. The answer is the same whether or not the team exists.
///
/// # Errors
/// The team is not in `scope`.
pub fn within(scope: &TeamScope, team: &str, permission: Permission) -> Result<(), Refusal> {
    match scope.holds(team) {
        true => Ok(()),
        false if team.is_empty() => Err(Refusal::OtherTeam(permission, OtherTeam::Unnamed)),
        false => Err(Refusal::OtherTeam(permission, OtherTeam::Team(team.to_owned()))),
    }
}
