//! What the handler of a request may ask of its caller.

use std::{net::SocketAddr, sync::Arc};

use super::{OtherTeam, Refusal, guard};
use crate::{
    audit::Audit,
    domain::{
        access::{Permission, Principal, Role, Scope},
        actor::Actor,
    },
};

/// The caller of a request, after the guard has let it through.
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
    /// As one of this caller.
    Known(&'a Arc<Principal>),
    /// As one of anyone: the policy has no `[access]`.
    Unrestricted,
    /// Not at all. Such a request has no permission.
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
    /// There are none.
    pub fn scope(&self, permission: Permission) -> Result<Scope, Refusal> {
        match self.standing {
            Standing::Known(principal) => principal.scope(permission).ok_or(Refusal::Missing(permission)),
            Standing::Unrestricted => Ok(Scope::All),
            Standing::Unguarded => Err(Refusal::NotConfigured),
        }
    }

    /// The caller as the audit log has it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::caller(self.principal().map(AsRef::as_ref), self.from)
    }

    /// Whether the caller is an admin. Where the policy knows no callers, no one is.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        let admin = |principal: &Arc<Principal>| {
            principal.grants.iter().any(|grant| grant.roles.contains(&Role::Admin))
        };
        self.principal().is_some_and(admin)
    }

    /// What remains of the session for a request that goes on after its handler has returned. `path` is its RPC.
    ///
    /// # Errors
    /// The caller has `permission` over no team.
    pub fn reach(&self, permission: Permission, path: &'static str, audit: Audit) -> Result<Reach, Refusal> {
        let scope = self.scope(permission)?;
        Ok(Reach { scope, caller: self.principal().cloned(), from: self.from, path, audit })
    }
}

/// The teams of a caller whose request goes on, and where it is recorded that they went further.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The teams.
    pub scope: Scope,
    /// `None`: callers are not told apart, and no team is out of reach.
    caller: Option<Arc<Principal>>,
    from: Option<SocketAddr>,
    path: &'static str,
    audit: Audit,
}

impl Reach {
    /// Records that `other` is out of reach.
    pub fn refuse(&self, other: &OtherTeam) {
        if let Some(caller) = &self.caller {
            guard::record_other_team(&self.audit, caller, self.from, self.path, other);
        }
    }
}

/// Refuses what concerns a team that is not in `scope`. What is said is the same whether there is such a team or not.
///
/// # Errors
/// The team is not in `scope`.
pub fn within(scope: &Scope, team: &str, permission: Permission) -> Result<(), Refusal> {
    match scope.holds(team) {
        true => Ok(()),
        false if team.is_empty() => Err(Refusal::OtherTeam(permission, OtherTeam::Unnamed)),
        false => Err(Refusal::OtherTeam(permission, OtherTeam::Team(team.to_owned()))),
    }
}
