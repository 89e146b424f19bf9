//! `envoy.service.auth.v3.Authorization`: the same decision as `PolicyService.Authorize`, on an HTTP request as it stands.

mod answer;
mod caller;
mod request;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use tonic::{Request, Response, Status};
use tracing::{error, warn};

use self::{answer::Allowed, request::HttpRequest};
use super::{
    admission::Admission,
    envoy::service::auth::v3::{CheckRequest, CheckResponse, authorization_server::Authorization},
    settling::Settling,
    status,
};
use crate::{
    authorizer::{Authorizer, Decided, Failure},
    domain::{
        decision::{Grant, LimitStatus, Reason},
        policy::{
            Policy,
            envoy::{CallerSource, EnvoyPolicy, OnOutage},
        },
        request::{AuthorizeRequest, Billing, Caller, Operation, Size, tokens_of_bytes},
        upstream::UpstreamKey,
    },
    groq::{
        endpoint::{Endpoint, endpoint},
        error::ApiError,
        request::{self as groq_request, GroqRequest},
    },
    store::{ReservationId, Store},
};

/// How long a client is asked to wait where nothing can be decided: connections are rebuilt within a second or two.
const OUTAGE_RETRY_MS: u64 = 1_000;
/// How often a request is decided anew under another id because the reservation under the first was settled meanwhile:
/// once more than Envoy is likely to ask.
const MAX_ASKS: u32 = 4;

/// Serves `Authorization` through an authorizer.
#[derive(Clone, Debug)]
pub struct CheckRpc<S> {
    authorizer: Authorizer<S>,
    /// The Groq key in force.
    key: Arc<ArcSwapOption<UpstreamKey>>,
    settling: Settling,
}

/// Why a request does not go on.
enum Refused {
    /// The client is told.
    Denied(ApiError, Vec<LimitStatus>),
    /// No decision could be made.
    Undecided(Failure),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Denied(error, Vec::new())
    }
}

impl<S> CheckRpc<S> {
    /// Serves through `authorizer`, with the Groq key in `key`. What is under way is waited for with `settling`.
    #[must_use]
    pub const fn new(
        authorizer: Authorizer<S>,
        key: Arc<ArcSwapOption<UpstreamKey>>,
        settling: Settling,
    ) -> Self {
        Self { authorizer, key, settling }
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> Authorization for CheckRpc<S> {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let policy = self.authorizer.policy();
        let request = HttpRequest::new(request.into_inner())?;
        let answer = match self.decide(&policy, request).await {
            Ok(answer) => answer,
            Err(Refused::Denied(error, limits)) => answer::denied(&error, &limits),
            Err(Refused::Undecided(failure)) => match policy.envoy.on_outage {
                OnOutage::Error => return Err(status::failure(&failure)),
                OnOutage::Deny => {
                    let message = "no decision can be made at the moment; try again";
                    answer::denied(&ApiError::unavailable(message, OUTAGE_RETRY_MS), &[])
                }
            },
        };
        Ok(Response::new(answer))
    }
}

impl<S: Store + Clone> CheckRpc<S> {
    async fn decide(&self, policy: &Policy, mut request: HttpRequest) -> Result<CheckResponse, Refused> {
        let caller = caller::find(&policy.envoy, &request)?;
        let who = self.authorizer.who(policy, &caller).map_err(Refused::Undecided)?;
        let who = who.map_err(|violation| ApiError::denied(&[violation]))?;
        let endpoint = endpoint(request.method(), request.path()).ok_or_else(|| unknown_path(&request))?;
        let key = self.key.load_full().ok_or_else(no_key)?;
        let internal_headers = internal_headers(&policy.envoy);
        match endpoint {
            Endpoint::Free(group) if policy.envoy.free.contains(&group) => {
                self.authorizer.count_use(&who);
                let (admission, limits) = (None, [].as_slice());
                Ok(answer::allowed(Allowed { key: &key, internal_headers, admission, limits }))
            }
            Endpoint::Free(_) => {
                let message =
                    format!("the policy does not allow {} {}", request.method(), shown(request.path()));
                Err(ApiError::new(403, "permission_denied", message).into())
            }
            Endpoint::Metered(operation) => {
                let body = request.body()?;
                let content_type = request.header("content-type").unwrap_or_default();
                let asked = groq_request::read(operation, &content_type, &body)?;
                let user = policy.envoy.user_header.as_deref().and_then(|name| request.header(name));
                let user = user.map_or_else(|| asked.user.clone(), |user| user.into_owned());
                let wanted = Wanted { team: &who.team.name, caller, user, operation, asked };
                let (admission, limits) = self.admit(policy, wanted, &request.request_id).await?;
                let (admission, limits) = (Some(admission), limits.as_slice());
                Ok(answer::allowed(Allowed { key: &key, internal_headers, admission, limits }))
            }
        }
    }

    /// Reserves, once for a request however often Envoy asks for it.
    async fn admit(
        &self,
        policy: &Policy,
        wanted: Wanted<'_>,
        request_id: &str,
    ) -> Result<(Admission, Vec<LimitStatus>), Refused> {
        let mut request = wanted.authorize_request(policy)?;
        for ask in 1..=MAX_ASKS {
            request.request_id = match ask {
                1 => request_id.to_owned(),
                _ => format!("{request_id}/{ask}"),
            };
            let unheard = Unheard::new(self, wanted.team, &request.request_id);
            let decided = self.authorizer.authorize(&request).await;
            if !matches!(decided, Err(Failure::Store(_))) {
                unheard.heard();
            }
            let Decided { outcome, limits, .. } = match decided {
                Ok(decided) => decided,
                Err(Failure::RequestIdReused) => continue,
                Err(failure) => return Err(Refused::Undecided(failure)),
            };
            match outcome {
                // What was settled pays for nothing more: the same stream goes to Groq once more.
                Ok(grant) if grant.already_settled => {}
                Ok(grant) => {
                    let admission = wanted.admission(policy, &request, grant).map_err(Refused::Undecided)?;
                    return Ok((admission, limits));
                }
                Err(violations) => {
                    let mut error = ApiError::denied(&violations);
                    let output =
                        |v: &crate::domain::decision::Violation| v.reason == Reason::MaxOutputTokensExceeded;
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

/// A decision that Envoy may not hear: it gave up, because the client left or it waited for too long, or the store did not
/// answer in time. What may have been reserved then is nobody's, and is given back when this is dropped.
struct Unheard<'a, S: Store + Clone> {
    rpc: &'a CheckRpc<S>,
    reservation: Option<ReservationId>,
}

impl<'a, S: Store + Clone> Unheard<'a, S> {
    /// Without a `request_id` nobody can tell which reservation it would be.
    fn new(rpc: &'a CheckRpc<S>, team: &str, request_id: &str) -> Self {
        let reservation = (!request_id.is_empty()).then(|| Authorizer::<S>::reservation_of(team, request_id));
        Self { rpc, reservation }
    }

    /// Envoy is told what was decided.
    fn heard(mut self) {
        self.reservation = None;
    }
}

impl<S: Store + Clone> Drop for Unheard<'_, S> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.rpc.settling.release(self.rpc.authorizer.clone(), reservation);
        }
    }
}

/// What a request wants, before it is known what it may have.
struct Wanted<'p> {
    team: &'p str,
    caller: Caller,
    user: String,
    operation: Operation,
    asked: GroqRequest,
}

impl Wanted<'_> {
    fn authorize_request(&self, policy: &Policy) -> Result<AuthorizeRequest, ApiError> {
        let (asked, operation) = (&self.asked, self.operation);
        let model = policy.catalogue.model(&asked.model);
        let writes = matches!(operation.billing(), Billing::Tokens | Billing::BatchTokens);
        // Only one answer to a request that passes the request phase can be cut to what was granted.
        let fixed_output = !policy.envoy.request_phase || asked.choices > 1 || operation == Operation::Batch;
        let max_output_tokens = match asked.max_output_tokens {
            _ if !writes => 0,
            Some(most) => most.saturating_mul(asked.choices),
            None if !fixed_output => 0,
            // Nobody tells Groq to stop earlier.
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
        let estimate = asked.input_tokens.max(tokens_of_bytes(asked.input_bytes));
        // Groq takes no more than the context holds, however large an image in it is.
        let window = model.and_then(|model| model.context_window).filter(|_| operation != Operation::Batch);
        let size = Size {
            input_tokens: window.map_or(estimate, |window| estimate.min(window)),
            max_output_tokens,
            audio_ms: audio_ms(asked.audio_bytes, policy.envoy.audio_bytes_per_second),
            characters: asked.characters,
        };
        Ok(AuthorizeRequest {
            caller: self.caller.clone(),
            user: self.user.clone(),
            request_id: String::new(),
            model: asked.model.clone(),
            operation,
            service_tier: asked.service_tier,
            size,
            fixed_output,
            max_wait_ms: 0,
            dry_run: false,
            labels: HashMap::new(),
        })
    }

    fn admission(
        &self,
        policy: &Policy,
        request: &AuthorizeRequest,
        grant: Grant,
    ) -> Result<Admission, Failure> {
        let reservation = grant.reservation.and_then(|(id, _)| id.parse().ok());
        Ok(Admission {
            reservation: reservation.ok_or(Failure::Internal)?,
            team: self.team.to_owned(),
            model: request.model.clone(),
            service_tier: request.service_tier,
            operation: self.operation,
            stream: self.asked.stream,
            choices: self.asked.choices,
            input_tokens: request.size.input_tokens,
            max_output_tokens: grant.max_output_tokens,
            audio_ms: request.size.audio_ms,
            characters: request.size.characters,
            include_usage: policy.envoy.include_usage,
        })
    }
}

/// The length that so many bytes of audio are taken for.
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

/// A path without its query, which may hold anything, and not longer than is good to read.
fn shown(path: &str) -> String {
    path.split('?').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(128).collect()
}

fn no_key() -> ApiError {
    warn!(
        "a request is refused because there is no Groq key: give `key_env` or `key_file` under [groq] in the policy"
    );
    ApiError::unavailable("the gateway has no Groq key", OUTAGE_RETRY_MS)
}

#[cfg(test)]
mod tests;
