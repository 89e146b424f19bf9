//! `envoy.service.auth.v3.Authorization`: the same decision as `PolicyService.Authorize`, on an HTTP request as it stands.

mod answer;
mod caller;
mod request;
mod wanted;

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Instant};

use tonic::{Request, Response, Status};
use tracing::{Instrument as _, debug, error, error_span, warn};

use self::{answer::Approval, request::HttpRequest, wanted::Wanted};
use super::{
    access, deadline, delivery,
    envoy::service::auth::v3::{CheckRequest, CheckResponse, authorization_server::Authorization},
    filter_context::FilterContext,
    status,
};
use crate::{
    access::{OtherTeam, Refusal},
    authorizer::{Authorizer, Decided, Failure, PendingCheck, Question, View, refusal_stands},
    domain::{
        caller::ResolvedCaller,
        decision::{Reason, Violation},
        eligibility::{paused, refusal},
        key::{MAX_LABEL_VALUE, is_label},
        limit_status::LimitStatuses,
        policy::envoy::{CallerSource, EnvoyPolicy, OnOutage},
        rbac::{Permission, TeamScope},
        snapshot::Snapshot,
    },
    groq::{
        endpoint::{Endpoint, endpoint},
        error::ApiError,
        request as groq_request,
    },
    store::Store,
    telemetry::{
        code_name,
        trace::{self, TracedCall, Tracing},
    },
    upstream::UpstreamKeys,
};

/// The RPC, as traces name it.
const RPC: &str = "envoy.service.auth.v3.Authorization/Check";
/// How long a client is asked to wait when nothing can be decided: connections are rebuilt within a second or two.
const OUTAGE_RETRY_MS: u64 = 1_000;
/// How often a request is decided again under another id because the reservation under the first was settled by then: once
/// more than Envoy is likely to ask.
const MAX_ASKS: u32 = 4;

/// Serves `Authorization` through an authorizer.
#[derive(Clone, Debug)]
pub struct CheckRpc<S> {
    authorizer: Authorizer<S>,
    upstream: Arc<UpstreamKeys>,
    tracing: Tracing,
}

/// Why a request does not proceed.
enum Refused {
    /// The client gets the reasons.
    Denied(ApiError, LimitStatuses),
    /// The client hears only this; what was refused is recorded.
    OtherTeam(OtherTeam),
    /// No decision could be made.
    Undecided(Failure),
    /// The same for a team whose own rule for outages does not permit the request.
    Withheld(Failure),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Denied(error, LimitStatuses::default())
    }
}

/// What Envoy's question says of whose request it is: the organization that the route names, and the secret of a key.
pub(super) fn addressed(check: CheckRequest) -> (Option<String>, Option<String>) {
    let Ok(request) = HttpRequest::new(check) else { return (None, None) };
    let organization = request.organization().map(str::to_owned);
    let secret =
        request.header("authorization").and_then(|header| caller::bearer(&header).map(str::to_owned));
    (organization, secret)
}

impl<S> CheckRpc<S> {
    /// Serves through `authorizer`, with the Groq keys in `upstream`; traces go to `tracing`.
    #[must_use]
    pub const fn new(authorizer: Authorizer<S>, upstream: Arc<UpstreamKeys>, tracing: Tracing) -> Self {
        Self { authorizer, upstream, tracing }
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> Authorization for CheckRpc<S> {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let scope =
            access::session(request.extensions()).scope(Permission::Decide).map_err(access::status)?;
        let until = deadline::of(request.metadata());
        let view = self.authorizer.view(until).await;
        let request = HttpRequest::new(request.into_inner())?;
        if request.organization().is_some_and(|id| *id != *view.snapshot.policy.organization.id) {
            return Err(access::status(Refusal::OtherOrganization));
        }
        let Some(traced) = self.traced(&request) else {
            return self.answer(&view, request, &scope, until).await;
        };
        let names = traced.names();
        let span = error_span!("call", trace_id = names.trace(), span_id = names.span());
        // Boxed: few calls are traced.
        let answer = traced.within(self.answer(&view, request, &scope, until)).instrument(span).await;
        traced.ends_with(answer.as_ref().err().map_or("OK", |status| code_name(status.code().into())));
        answer
    }
}

impl<S: Store + Clone> CheckRpc<S> {
    /// Envoy's own span comes with the call. Without one, that of its client counts.
    fn traced(&self, request: &HttpRequest) -> Option<TracedCall> {
        if !self.tracing.is_on() || trace::is_traced() {
            return None;
        }
        let (parent, state) = (request.header("traceparent"), request.header("tracestate"));
        self.tracing.begin(RPC, parent.as_deref().map(str::as_bytes), state.as_deref())
    }

    async fn answer(
        &self,
        view: &View,
        request: HttpRequest,
        scope: &TeamScope,
        until: Option<Instant>,
    ) -> Result<Response<CheckResponse>, Status> {
        let answer = match self.decide(view, request, scope, until).await {
            Ok((answer, check)) => {
                let mut answer = Response::new(answer);
                if let Some(check) = check {
                    delivery::tie(&mut answer, check);
                }
                return Ok(answer);
            }
            Err(Refused::OtherTeam(other)) => {
                let mut refused = Response::new(answer::denied(&other_team(), &LimitStatuses::default()));
                refused.extensions_mut().insert(other);
                return Ok(refused);
            }
            Err(Refused::Denied(error, limits)) => answer::denied(&error, &limits),
            Err(Refused::Withheld(failure)) => {
                debug!(error = %failure, "a request is refused by its team's rule for outages");
                outage()
            }
            Err(Refused::Undecided(failure)) => match view.snapshot.policy.envoy.on_outage {
                // Envoy lets requests pass on an error. What this release does not know may refuse them, so it is no outage.
                OnOutage::Error if !failure.is_unsupported() => return Err(status::undecided(&failure, "")),
                OnOutage::Error | OnOutage::Deny => outage(),
            },
        };
        Ok(Response::new(answer))
    }

    async fn decide(
        &self,
        View { snapshot, fresh }: &View,
        mut request: HttpRequest,
        scope: &TeamScope,
        until: Option<Instant>,
    ) -> Result<(CheckResponse, Option<PendingCheck<S>>), Refused> {
        if let Err(failure) = fresh
            && failure.is_unsupported()
        {
            return Err(Refused::Undecided(failure.clone()));
        }
        let policy = &*snapshot.policy;
        let caller = caller::find(&policy.envoy, &request)?;
        let found = snapshot.resolve(&caller);
        let now = self.authorizer.store().now();
        let resolved =
            match found.as_ref().map_err(Violation::clone).and_then(|found| found.check(now).map(|()| found))
            {
                Ok(resolved) => resolved,
                Err(violation) => {
                    refusal_stands(&caller, &violation, fresh).map_err(Refused::Undecided)?;
                    return Err(self.denied(snapshot, found.as_ref().ok(), &[violation]).into());
                }
            };
        if !scope.holds(&resolved.team.name) {
            return Err(Refused::OtherTeam(OtherTeam::Team(resolved.team.name.to_string())));
        }
        let endpoint = endpoint(request.method(), request.path()).ok_or_else(|| unknown_path(&request))?;
        let team = &*resolved.team.name;
        let project = policy.projects.of(team);
        let key =
            project.and_then(|project| self.upstream.pick(&project.name)).ok_or_else(|| no_key(team))?;
        let internal_headers = internal_headers(&policy.envoy);
        match endpoint {
            Endpoint::Free(group) if policy.envoy.free.contains(&group) => {
                self.authorizer.count_use(resolved);
                let paused: Vec<_> = paused(&snapshot.pauses, resolved, None).collect();
                if !paused.is_empty() {
                    return Err(self.denied(snapshot, Some(resolved), &paused).into());
                }
                // A free request asks no counter, but it must be just as certain that nothing forbids it.
                if let Err(failure) = fresh
                    && !self.authorizer.may_pass(resolved, failure)
                {
                    return Err(undecided(resolved, failure.clone()));
                }
                let (context, limits) = (None, &LimitStatuses::default());
                Ok((answer::allowed(Approval { key: &key, internal_headers, context, limits }), None))
            }
            Endpoint::Free(_) => {
                let message =
                    format!("the policy does not allow {} {}", request.method(), shown(request.path()));
                let refusal = refusal(Reason::OperationNotAllowed, "envoy.allow", message);
                Err(self.denied(snapshot, Some(resolved), &[refusal]).into())
            }
            Endpoint::Metered(operation) => {
                let body = request.body()?;
                let content_type = request.header("content-type").unwrap_or_default();
                let asked = groq_request::read(operation, &content_type, &body)?;
                let user = user_of(policy.envoy.user_header.as_deref(), &request, &asked.user)?;
                let labels = labels(&policy.envoy, &request)?;
                let wanted = Wanted { team, upstream_key: &key.id, caller, user, labels, operation, asked };
                let (context, limits, check) =
                    self.admit((snapshot, &found, fresh), wanted, &request.request_id, until).await?;
                key.used(self.authorizer.store().now());
                let (context, limits) = (Some(context), &limits);
                let answer = answer::allowed(Approval { key: &key, internal_headers, context, limits });
                Ok((answer, Some(check)))
            }
        }
    }

    /// A denial for which the caller alone was enough.
    fn denied(
        &self,
        snapshot: &Snapshot,
        caller: Option<&ResolvedCaller<'_>>,
        violations: &[Violation],
    ) -> ApiError {
        self.authorizer.log_denied(caller, violations, snapshot);
        ApiError::denied(violations)
    }

    /// Reserves, once for a request however often Envoy asks for it.
    async fn admit(
        &self,
        (snapshot, caller, fresh): (&Snapshot, &Result<ResolvedCaller<'_>, Violation>, &Result<(), Failure>),
        wanted: Wanted<'_>,
        request_id: &str,
        until: Option<Instant>,
    ) -> Result<(FilterContext, LimitStatuses, PendingCheck<S>), Refused> {
        let policy = &*snapshot.policy;
        let mut request = wanted.authorize_request(policy)?;
        for ask in 1..=MAX_ASKS {
            request.request_id = match ask {
                1 => request_id.to_owned(),
                _ => format!("{request_id}/{ask}"),
            };
            let question = Question { request: &request, snapshot, caller, fresh };
            let (decided, check) = match self.authorizer.authorize(question, until).await {
                Ok(decided) => decided,
                Err(Failure::RequestIdReused) => continue,
                // The same stream goes to Groq once more, which needs its own reservation.
                Err(Failure::RequestIdSpent(_)) => continue,
                Err(failure) => {
                    return Err(match caller {
                        Ok(caller) => undecided(caller, failure),
                        Err(_) => Refused::Undecided(failure),
                    });
                }
            };
            let Decided { outcome, limits, .. } = decided;
            match outcome {
                Ok(grant) => {
                    let context = wanted.context(policy, &request, grant).map_err(Refused::Undecided)?;
                    return Ok((context, limits, check));
                }
                Err(violations) => {
                    let mut error = ApiError::denied(&violations);
                    let output = |v: &Violation| v.reason == Reason::MaxOutputTokensExceeded;
                    if wanted.asked.max_output_tokens.is_none() && violations.iter().any(output) {
                        error
                            .message
                            .push_str("; it gives no `max_completion_tokens`, so the model's most counts");
                    }
                    return Err(Refused::Denied(error, limits));
                }
            }
        }
        error!("Envoy asks again and again for one request");
        Err(Refused::Undecided(Failure::Internal))
    }
}

/// No decision on a request of `caller`. `envoy.on_outage` is for teams without a rule of their own.
fn undecided(caller: &ResolvedCaller<'_>, failure: Failure) -> Refused {
    if caller.team.outage.degrades() { Refused::Withheld(failure) } else { Refused::Undecided(failure) }
}

fn outage() -> CheckResponse {
    let message = "no decision can be made at the moment; try again";
    answer::denied(&ApiError::unavailable(message, OUTAGE_RETRY_MS), &LimitStatuses::default())
}

/// Headers that tell the gateway who asks; Groq has no use for them.
fn internal_headers(policy: &EnvoyPolicy) -> Vec<String> {
    let of_callers = policy.callers.iter().filter_map(|source| match source {
        CallerSource::Header(name) => Some(name),
        _ => None,
    });
    let of_labels = policy.label_headers.iter().map(|(_, header)| header);
    of_callers.chain(&policy.user_header).chain(of_labels).map(ToString::to_string).collect()
}

/// The user that a request says it is of, by the header of this name where it has one, else by its body.
fn user_of(header: Option<&str>, request: &HttpRequest, in_body: &str) -> Result<String, ApiError> {
    let user = header.and_then(|name| request.header(name)).filter(|user| !user.is_empty());
    let user = user.map_or_else(|| in_body.to_owned(), Cow::into_owned);
    groq_request::check_user(&user)?;
    Ok(user)
}

/// The labels that headers name. One without a value names none.
fn labels(policy: &EnvoyPolicy, request: &HttpRequest) -> Result<HashMap<String, String>, ApiError> {
    let mut labels = HashMap::with_capacity(policy.label_headers.len());
    for (label, header) in &policy.label_headers {
        let value = request.header(header).unwrap_or_default();
        let value = value.trim();
        if !is_label(label, value) {
            let message = format!(
                "the header `{header}` must have at most {MAX_LABEL_VALUE} bytes and no control characters"
            );
            return Err(ApiError::invalid("", message));
        }
        if !value.is_empty() {
            labels.insert(label.to_string(), value.to_owned());
        }
    }
    Ok(labels)
}

fn unknown_path(request: &HttpRequest) -> ApiError {
    let message = format!("unknown request URL: {} {}", shown(request.method()), shown(request.path()));
    ApiError::new(404, "unknown_url", message)
}

/// A path without its query, which may hold anything, cut to a readable length.
fn shown(path: &str) -> String {
    path.split('?').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect()
}

/// An answer, not an error of the call: after an error the filter's `failure_mode_allow` could let the request pass.
fn other_team() -> ApiError {
    // It is in the audit log, which bounds how much a client can cause, as this level does.
    debug!(
        "a request is refused because its proxy's credential is bound to other teams than the one that asks"
    );
    ApiError::new(403, "permission_denied", "this gateway may not serve the team that asks")
}

fn no_key(team: &str) -> ApiError {
    warn!(team, "a request is refused for want of a Groq key: see `keys` under [projects.…] in the policy");
    ApiError::unavailable("the gateway has no Groq key", OUTAGE_RETRY_MS)
}
