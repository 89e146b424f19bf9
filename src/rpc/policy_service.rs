//! `tollgate.v1.PolicyService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    answer, parse,
    proto::{
        AuthorizeRequest, AuthorizeResponse, GetSpendRequest, GetSpendResponse, RecordUsageRequest,
        RecordUsageResponse, policy_service_server::PolicyService,
    },
    status,
};
use crate::{authorizer::Authorizer, domain::request::Caller, store::Store, upstream::UpstreamKeys};

/// Serves `PolicyService` through an authorizer.
#[derive(Clone, Debug)]
pub struct PolicyRpc<S> {
    authorizer: Authorizer<S>,
    upstream: Arc<UpstreamKeys>,
}

impl<S> PolicyRpc<S> {
    /// Serves through `authorizer`; `upstream` is told of a key that Groq refuses.
    #[must_use]
    pub const fn new(authorizer: Authorizer<S>, upstream: Arc<UpstreamKeys>) -> Self {
        Self { authorizer, upstream }
    }
}

impl<S: Store + Clone> PolicyRpc<S> {
    /// The name of the Groq key for a request that was allowed; empty where the policy leaves that to gateways.
    fn upstream_key(&self, caller: &Caller) -> String {
        let policy = self.authorizer.policy();
        if !policy.projects.is_declared() {
            return String::new();
        }
        let who = self.authorizer.who(&policy, caller).ok().and_then(Result::ok);
        let project = who.and_then(|who| policy.projects.of(&who.team.name));
        let key = project.and_then(|project| self.upstream.pick(&project.name));
        key.map_or_else(String::new, |key| {
            key.used(self.authorizer.store().now());
            key.id.to_string()
        })
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> PolicyService for PolicyRpc<S> {
    async fn authorize(
        &self,
        request: Request<AuthorizeRequest>,
    ) -> Result<Response<AuthorizeResponse>, Status> {
        let request = parse::authorize(request.into_inner())?;
        let decided =
            self.authorizer.authorize(&request).await.map_err(|failure| status::failure(&failure))?;
        let allowed = decided.outcome.is_ok() && !request.dry_run;
        let mut answer = answer::decided(decided);
        if allowed {
            answer.upstream_key = self.upstream_key(&request.caller);
        }
        Ok(Response::new(answer))
    }

    async fn record_usage(
        &self,
        request: Request<RecordUsageRequest>,
    ) -> Result<Response<RecordUsageResponse>, Status> {
        let parse::Report { subject, usage, outcome, upstream_delay_ms, refused_key } =
            parse::record_usage(request.into_inner())?;
        if let Some(key) = refused_key {
            self.upstream.refused(&key, self.authorizer.store().now());
        }
        let booked = match subject {
            parse::Subject::Reservation(id) => {
                self.authorizer.settle(id, usage, outcome, upstream_delay_ms).await
            }
            parse::Subject::Unreserved(subject) => {
                self.authorizer.settle_unreserved(&subject, usage, outcome, upstream_delay_ms).await
            }
        };
        Ok(Response::new(answer::booked(booked.map_err(|failure| status::failure(&failure))?)))
    }

    async fn get_spend(
        &self,
        request: Request<GetSpendRequest>,
    ) -> Result<Response<GetSpendResponse>, Status> {
        let query = parse::spend(request.into_inner())?;
        let page = self.authorizer.spend(&query).await.map_err(|failure| status::failure(&failure))?;
        Ok(Response::new(answer::spend_page(page)))
    }
}
