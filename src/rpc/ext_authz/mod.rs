//! `envoy.service.auth.v3.Authorization`: the same decision as `PolicyService.Authorize`, on an HTTP request as it stands.

mod answer;
mod caller;
mod request;

use std::{collections::HashMap, sync::Arc, time::Instant};

use tonic::{Request, Response, Status};
use tracing::{debug, error, warn};

use self::{answer::Approval, request::HttpRequest};
use super::{
    access, deadline, delivery,
    envoy::service::auth::v3::{CheckRequest, CheckResponse, authorization_server::Authorization},
    filter_context::FilterContext,
    status,
};
use crate::{
    access::OtherTeam,
    authorizer::{Authorizer, Decided, Failure, PendingCheck, Question, View, refusal_stands},
    domain::{
        batch::Work,
        caller::ResolvedCaller,
        decision::{Allowed, Reason, Violation},
        eligibility::{paused, refusal},
        limit_status::LimitStatuses,
        policy::{
            Policy,
            envoy::{CallerSource, EnvoyPolicy, OnOutage},
        },
        price::catalogue::Model,
        rbac::{Permission, TeamScope},
        request::{AuthorizeRequest, Billing, Caller, Operation, Size, tokens_of_bytes},
        snapshot::Snapshot,
    },
    groq::{
        endpoint::{Endpoint, endpoint},
        error::ApiError,
        request::{self as groq_request, GroqRequest},
    },
    store::Store,
    telemetry::trace::{self, TracedCall, Tracing},
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
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Denied(error, LimitStatuses::default())
    }
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
        let Some(traced) = self.traced(&request) else {
            return self.answer(&view, request, &scope, until).await;
        };
        // Boxed: few calls are traced.
        let answer = traced.within(self.answer(&view, request, &scope, until)).await;
        traced.ends_with(if answer.is_ok() { "OK" } else { "UNAVAILABLE" });
        answer
    }
}

impl<S: Store + Clone> CheckRpc<S> {
    /// Envoy's own span comes with the call. Without one, that of its client counts.
    fn traced(&self, request: &HttpRequest) -> Option<TracedCall> {
        if !self.tracing.is_on() || trace::is_traced() {
            return None;
        }
        let (parent, state) = (request.header("traceparent")?, request.header("tracestate"));
        self.tracing.follow(RPC, &parent, state.as_deref())
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
            Err(Refused::Undecided(failure)) => match view.snapshot.policy.envoy.on_outage {
                // Envoy lets requests pass on an error. What this release does not know may refuse them, so it is no outage.
                OnOutage::Error if !failure.is_unsupported() => return Err(status::undecided(&failure, "")),
                OnOutage::Error | OnOutage::Deny => {
                    let message = "no decision can be made at the moment; try again";
                    answer::denied(
                        &ApiError::unavailable(message, OUTAGE_RETRY_MS),
                        &LimitStatuses::default(),
                    )
                }
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
                fresh.clone().map_err(Refused::Undecided)?;
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
                let user = policy.envoy.user_header.as_deref().and_then(|name| request.header(name));
                let user = user.filter(|user| !user.is_empty());
                let user = user.map_or_else(|| asked.user.clone(), |user| user.into_owned());
                groq_request::check_user(&user)?;
                let wanted = Wanted { team, upstream_key: &key.id, caller, user, operation, asked };
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
                Err(failure) => return Err(Refused::Undecided(failure)),
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

/// What a request wants, before it is known what it may have.
struct Wanted<'p> {
    team: &'p str,
    upstream_key: &'p str,
    caller: Caller,
    user: String,
    operation: Operation,
    asked: GroqRequest,
}

impl Wanted<'_> {
    fn authorize_request(&self, policy: &Policy) -> Result<AuthorizeRequest, ApiError> {
        let (asked, operation) = (&self.asked, self.operation);
        let model = policy.catalogue.model(&asked.model);
        let writes = Work::new(operation, asked.batch).billing() == Billing::Tokens;
        // Only one answer to a request that passes the request phase can be cut to what was granted.
        let fixed_output = !policy.envoy.request_phase || asked.choices > 1 || operation == Operation::Batch;
        let max_output_tokens = match asked.max_output_tokens {
            _ if !writes => 0,
            Some(most) => most.saturating_mul(asked.choices),
            None if !fixed_output => 0,
            // Nothing tells Groq to stop earlier.
            None => model
                .and_then(|model| model.output_bound())
                .ok_or_else(|| {
                    ApiError::invalid(
                        "max_completion_tokens",
                        "the output of the model has no known bound; give `max_completion_tokens`",
                    )
                })?
                .saturating_mul(asked.choices),
        };
        let seen = seen_input_tokens(asked, operation, model);
        let unseen_input_tokens = unseen_input_tokens(asked, model, seen)?;
        let size = Size {
            input_tokens: seen.saturating_add(unseen_input_tokens),
            max_output_tokens,
            audio_ms: asked.audio_ms.max(audio_ms(asked.audio_bytes, policy.envoy.audio_bytes_per_second)),
            characters: asked.characters,
        };
        Ok(AuthorizeRequest {
            caller: self.caller.clone(),
            user: self.user.clone(),
            request_id: String::new(),
            model: asked.model.clone(),
            operation,
            service_tier: asked.service_tier,
            batch: asked.batch,
            tools: asked.tools.clone(),
            size,
            unseen_input_tokens,
            fixed_output,
            max_wait_ms: 0,
            dry_run: false,
            labels: HashMap::new(),
        })
    }

    fn context(
        &self,
        policy: &Policy,
        request: &AuthorizeRequest,
        grant: Allowed,
    ) -> Result<FilterContext, Failure> {
        let reservation = grant.reservation.and_then(|(id, _)| id.parse().ok());
        Ok(FilterContext {
            reservation: reservation.ok_or(Failure::Internal)?,
            team: self.team.to_owned(),
            model: request.model.clone(),
            service_tier: request.service_tier,
            upstream_key: self.upstream_key.to_owned(),
            operation: self.operation,
            stream: self.asked.stream,
            hides_reasoning: self.asked.hides_reasoning,
            choices: self.asked.choices,
            input_tokens: request.size.input_tokens.saturating_sub(request.unseen_input_tokens),
            max_output_tokens: grant.max_output_tokens,
            audio_ms: request.size.audio_ms,
            characters: request.size.characters,
            include_usage: policy.envoy.include_usage,
            unseen_input: self.asked.has_unseen_input,
        })
    }
}

/// The assumed input of a request, as far as it was sent.
fn seen_input_tokens(asked: &GroqRequest, operation: Operation, model: Option<&Model>) -> u64 {
    let estimate = asked.input_tokens.max(tokens_of_bytes(asked.input_bytes));
    // One text. Groq takes no more of it than the context holds, however large an image in it is.
    let is_one_text = matches!(operation, Operation::Chat | Operation::Responses);
    let window = model.and_then(|model| model.context_window).filter(|_| is_one_text);
    window.map_or(estimate, |window| estimate.min(window))
}

/// What Groq's tools and the links in a request may add to it: up to the whole context of the model.
///
/// Budgets hold that much, since it would have to be paid for. Rates do not count it in advance, or a team with fewer tokens
/// a minute than a context could never use a tool; they count what Groq reports.
fn unseen_input_tokens(asked: &GroqRequest, model: Option<&Model>, seen: u64) -> Result<u64, ApiError> {
    if !asked.has_unseen_input {
        return Ok(0);
    }
    let window = model.map_or(Some(0), |model| model.context_window);
    window.map(|window| window.saturating_sub(seen)).ok_or_else(|| {
        ApiError::invalid(
            "",
            "the request has tools that Groq runs, or links that it follows, and the context of its model is not known",
        )
    })
}

/// The assumed length of this many bytes of audio.
const fn audio_ms(bytes: u64, bytes_per_second: u64) -> u64 {
    let per_second = if bytes_per_second == 0 { 1 } else { bytes_per_second };
    bytes.saturating_mul(1000).div_ceil(per_second)
}

/// Headers that tell the gateway who asks; Groq has no use for them.
fn internal_headers(policy: &EnvoyPolicy) -> Vec<String> {
    let of_callers = policy.callers.iter().filter_map(|source| match source {
        CallerSource::Header(name) => Some(name),
        _ => None,
    });
    of_callers.chain(&policy.user_header).map(ToString::to_string).collect()
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

#[cfg(test)]
mod tests;
