//! `envoy.service.ratelimit.v3.RateLimitService`: the policy's sliding windows for gateways that speak only this protocol.

mod answer;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    access, deadline,
    envoy::service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse, rate_limit_service_server::RateLimitService,
    },
    parse, status,
};
use crate::{
    access::OtherTeam,
    authorizer::Authorizer,
    domain::{
        caller::ResolvedCaller,
        decision::Violation,
        rbac::{Permission, TeamScope},
    },
    store::Store,
};

/// Serves `RateLimitService` through an authorizer.
#[derive(Clone, Debug)]
pub struct RateLimitRpc<S> {
    authorizer: Authorizer<S>,
}

impl<S> RateLimitRpc<S> {
    /// Serves through `authorizer`.
    #[must_use]
    pub const fn new(authorizer: Authorizer<S>) -> Self {
        Self { authorizer }
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> RateLimitService for RateLimitRpc<S> {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::Decide).map_err(access::status)?;
        let until = deadline::of(request.metadata());
        let view = self.authorizer.view(until).await;
        // As with `Authorize`: even a denial would say that this release knows what there is to know.
        if let Err(failure) = &view.fresh
            && failure.is_unsupported()
        {
            return Err(status::undecided(failure, ""));
        }
        let snapshot = Arc::clone(&view.snapshot);
        let counts = parse::counts(request.into_inner(), &snapshot.policy.organization.id)?;
        let callers: Vec<_> = counts.iter().map(|count| snapshot.resolve(&count.caller)).collect();
        if let Some(team) = callers.iter().find_map(|caller| outside(&scope, caller)) {
            let mut refused = Response::new(answer::other_team(counts.len()));
            refused.extensions_mut().insert(team);
            return Ok(refused);
        }
        let outcomes = self.authorizer.count_windows(&view, &counts, &callers, (&scope, until)).await;
        // A count whose answer is lost may stand, and nothing takes it back.
        let outcomes = outcomes.map_err(|failure| status::failure(&failure, ""))?;
        Ok(Response::new(answer::answer(&outcomes)))
    }
}

/// The team, if it is known and not in `scope`.
fn outside(scope: &TeamScope, caller: &Result<ResolvedCaller<'_>, Violation>) -> Option<OtherTeam> {
    let team = &caller.as_ref().ok()?.team.name;
    (!scope.holds(team)).then(|| OtherTeam::Team(team.to_string()))
}
