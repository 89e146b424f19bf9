//! What a caller may see, asked again for as long as it is shown.

use tonic::{Request, codegen::http::header::AUTHORIZATION};

use super::session;
use crate::{
    access::{Authorization, Credentials, Guard, Peer, Refusal, Standing, Verdict},
    domain::rbac::{Need, Permission, TeamScope},
};

/// The credentials of a call that outlives its handler. They are never shown.
pub(in crate::rpc) struct Again {
    guard: Guard,
    authorization: Option<Vec<u8>>,
    peer: Option<Peer>,
    path: &'static str,
}

impl Again {
    /// Those of `request`, a call of the RPC at `path`; `None`: it has none to be judged by, because this process itself vouches for it.
    pub(in crate::rpc) fn of<T>(request: &Request<T>, guard: &Guard, path: &'static str) -> Option<Self> {
        let authorization =
            request.metadata().get(AUTHORIZATION.as_str()).map(|value| value.as_bytes().to_vec());
        let peer: Option<Peer> = request.extensions().get().cloned();
        let is_certified = peer.as_ref().is_some_and(|peer| !peer.identities.is_empty());
        let is_known = matches!(session(request.extensions()).standing, Standing::Known(_));
        let is_judged = authorization.is_some() || is_certified || !is_known;
        is_judged.then(|| Self { guard: guard.clone(), authorization, peer, path })
    }

    /// The teams over which the caller has `permission` now.
    ///
    /// # Errors
    /// There are none, the caller is not known any more, or its token has expired.
    pub(in crate::rpc) async fn scope(&self, permission: Permission) -> Result<TeamScope, Refusal> {
        let scope = self.judged(permission).await;
        if let Err(refusal) = &scope {
            self.guard.refusals().add(self.path, refusal.reason());
        }
        scope
    }

    async fn judged(&self, permission: Permission) -> Result<TeamScope, Refusal> {
        let authorization =
            self.authorization.as_deref().map_or(Authorization::Absent, Authorization::Header);
        let credentials = Credentials { authorization, peer: self.peer.as_ref(), path: self.path };
        let verdict = self.guard.judge(Need::Permission(permission), &credentials)?;
        let principal = match verdict {
            Verdict::Unrestricted => return Ok(TeamScope::All),
            Verdict::Public => return Err(Refusal::NotConfigured),
            Verdict::Known(principal) => principal,
            Verdict::Verify { token, need } => {
                let from = self.peer.as_ref().and_then(|peer| peer.address);
                self.guard.verified(&token, need, from, self.path).await?
            }
        };
        principal.scope(permission).ok_or(Refusal::Missing(permission))
    }
}
