//! `tollgate.v1.PolicyService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    access,
    answer::{self, AuthorizeAnswer},
    deadline, delivery,
    page::ListContext,
    parse,
    policy_service_server::PolicyService,
    proto::{AuthorizeRequest, GetSpendRequest, GetSpendResponse, RecordUsageRequest, RecordUsageResponse},
    status,
};
use crate::{
    access::{Session, record_refused},
    audit::Audit,
    authorizer::{Authorizer, Bounds, Decided, Failure, Question, ReservationName, View, by},
    domain::{
        caller::ResolvedCaller,
        decision::{Reason, Violation},
        rbac::{Permission, TeamScope},
        request::Caller,
    },
    reports::Spending,
    store::{Store, StoreError},
    upstream::UpstreamKeys,
};

/// The RPC that may be refused for reporting too much.
const RECORD_USAGE: &str = "/tollgate.v1.PolicyService/RecordUsage";

/// Serves `PolicyService`.
#[derive(Clone, Debug)]
pub struct PolicyRpc<S> {
    authorizer: Authorizer<S>,
    spending: Spending<S>,
    upstream: Arc<UpstreamKeys>,
    audit: Audit,
}

impl<S> PolicyRpc<S> {
    /// Decides and books through `authorizer`, and reports through `spending`; `upstream` is told of a key that Groq refuses, and `audit` of reports past their bounds.
    #[must_use]
    pub const fn new(
        authorizer: Authorizer<S>,
        spending: Spending<S>,
        upstream: Arc<UpstreamKeys>,
        audit: Audit,
    ) -> Self {
        Self { authorizer, spending, upstream, audit }
    }
}

impl<S: Store + Clone> PolicyRpc<S> {
    /// The name of the Groq key for an allowed request; empty if the policy leaves that to gateways.
    fn upstream_key(&self, decided: &Decided) -> String {
        let key = if decided.declares_projects { self.upstream.pick(&decided.project) } else { None };
        key.map_or_else(String::new, |key| {
            key.used(self.authorizer.store().now());
            key.id.to_string()
        })
    }
}

/// Refuses a caller whose team is not in `scope`. `found` is the caller as resolved in the snapshot; a key that has ended counts,
/// since its usage is booked on its team. An unknown key belongs to no team and is left to the decision.
fn caller_within(
    scope: &TeamScope,
    caller: &Caller,
    found: &Result<ResolvedCaller<'_>, Violation>,
    permission: Permission,
) -> Result<(), Status> {
    match (scope, caller, found) {
        (TeamScope::All, _, _) => Ok(()),
        (_, Caller::Team(team), _) => access::within(scope, team, permission),
        (_, _, Ok(found)) => access::within(scope, &found.team.name, permission),
        (_, _, Err(violation)) if violation.reason == Reason::StoreUnavailable => {
            Err(status::undecided(&StoreError::Unavailable.into(), ""))
        }
        (_, _, Err(_)) => Ok(()),
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> PolicyService for PolicyRpc<S> {
    async fn authorize(
        &self,
        request: Request<AuthorizeRequest>,
    ) -> Result<Response<AuthorizeAnswer>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::Decide).map_err(access::status)?;
        let until = deadline::of(request.metadata());
        let (request, view) = parse::authorize(request.into_inner())?;
        let View { snapshot, fresh } = self.authorizer.view(until).await;
        // Even a denial would say that this release knows what there is to know.
        if let Err(failure) = &fresh
            && failure.is_unsupported()
        {
            return Err(status::undecided(failure, ""));
        }
        let caller = snapshot.resolve(&request.caller);
        caller_within(&scope, &request.caller, &caller, Permission::Decide)?;
        let question = Question { request: &request, snapshot: &snapshot, caller: &caller, fresh: &fresh };
        let (decided, check) = self
            .authorizer
            .authorize(question, until)
            .await
            .map_err(|failure| status::undecided(&failure, &request.request_id))?;
        let allowed = decided.outcome.is_ok() && !request.dry_run;
        let upstream_key = if allowed { self.upstream_key(&decided) } else { String::new() };
        let mut answer = Response::new(AuthorizeAnswer::new(decided, view, upstream_key));
        if allowed {
            delivery::tie(&mut answer, check);
        }
        Ok(answer)
    }

    async fn record_usage(
        &self,
        request: Request<RecordUsageRequest>,
    ) -> Result<Response<RecordUsageResponse>, Status> {
        let until = deadline::of(request.metadata());
        let (_, extensions, request) = request.into_parts();
        let scope = access::session(&extensions).scope(Permission::Record).map_err(access::status)?;
        let parse::Report { subject, usage, outcome, upstream_delay_ms, refused_key } =
            parse::record_usage(request)?;
        let asked = match &subject {
            parse::Subject::Reservation(name) => name.id().to_string(),
            parse::Subject::Unreserved(subject) => subject.request_id.to_string(),
        };
        let booked = match &subject {
            parse::Subject::Reservation(name) => {
                let record = self.authorizer.record_named(name, usage, outcome, upstream_delay_ms, &scope);
                by(until, record).await.unwrap_or_else(|error| Err(error.into()))
            }
            parse::Subject::Unreserved(subject) => {
                let snapshot = self.authorizer.snapshot();
                let caller = snapshot.resolve(&subject.caller);
                caller_within(&scope, &subject.caller, &caller, Permission::Record)?;
                let bounds = bounds(&access::session(&extensions));
                // Boxed: a report without a reservation is rare.
                let record = Box::pin(self.authorizer.record_unreserved(
                    (&snapshot, &caller),
                    subject,
                    (usage, outcome),
                    upstream_delay_ms,
                    bounds,
                ));
                let booked = by(until, record).await.unwrap_or_else(|error| Err(error.into()));
                if let Err(Failure::UnreservedBound(_)) = &booked {
                    let team = caller.as_ref().ok().map(|caller| &*caller.team.name);
                    record_refused(&self.audit, &access::session(&extensions), RECORD_USAGE, team);
                }
                booked
            }
        };
        let booked = booked.map_err(|failure| match failure {
            // A caller that knows another team's `request_id`s can guess ids, so the answer does not reveal which exist.
            Failure::UnknownReservation if scope != TeamScope::All => {
                status::failure(&Failure::OtherTeam, "")
            }
            failure => status::failure(&failure, &asked),
        })?;
        // Only a caller that may report the request is believed about its key.
        if let Some(key) = refused_key {
            self.upstream.refused(&key, self.authorizer.store().now());
        }
        let policy_revision = self.authorizer.snapshot().revision.to_string();
        let booked = RecordUsageResponse { policy_revision, ..answer::recorded(booked) };
        Ok(Response::new(match subject {
            // By the name that the caller knows.
            parse::Subject::Reservation(name @ ReservationName::Degraded(_)) => {
                RecordUsageResponse { reservation_id: name.to_string(), ..booked }
            }
            parse::Subject::Reservation(_) | parse::Subject::Unreserved(_) => booked,
        }))
    }

    async fn get_spend(
        &self,
        request: Request<GetSpendRequest>,
    ) -> Result<Response<GetSpendResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::ReadSpend).map_err(access::status)?;
        let organization = Arc::clone(&self.authorizer.snapshot().policy.organization.id);
        let context = ListContext { organization, now: self.authorizer.store().now() };
        let (query, place, tokens) = parse::spend(request.into_inner(), &context)?;
        if !query.team.is_empty() {
            access::within(&scope, &query.team, Permission::ReadSpend)?;
        }
        let page = self.spending.page(&query, &scope).await.map_err(status::unreported)?;
        Ok(Response::new(answer::spend_page(page, &place, &tokens)))
    }
}

/// Which callers the bounds on usage without a reservation apply to: all but admins.
fn bounds(session: &Session<'_>) -> Bounds {
    if session.is_admin() { Bounds::None } else { Bounds::Apply }
}
