//! `tollgate.v1.PolicyService`.

use tonic::{Request, Response, Status};

use super::{
    answer, parse,
    proto::{
        AuthorizeRequest, AuthorizeResponse, GetSpendRequest, GetSpendResponse, RecordUsageRequest,
        RecordUsageResponse, policy_service_server::PolicyService,
    },
    status,
};
use crate::{authorizer::Authorizer, store::Store};

/// Serves `PolicyService` through an authorizer.
#[derive(Clone, Debug)]
pub struct PolicyRpc<S> {
    authorizer: Authorizer<S>,
}

impl<S> PolicyRpc<S> {
    /// Serves through `authorizer`.
    #[must_use]
    pub const fn new(authorizer: Authorizer<S>) -> Self {
        Self { authorizer }
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
        Ok(Response::new(answer::decided(decided)))
    }

    async fn record_usage(
        &self,
        request: Request<RecordUsageRequest>,
    ) -> Result<Response<RecordUsageResponse>, Status> {
        let parse::Report { subject, usage, outcome, upstream_delay_ms } =
            parse::record_usage(request.into_inner())?;
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
