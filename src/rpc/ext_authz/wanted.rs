//! What a request that Envoy asks about wants, as the decision takes it.

use std::collections::HashMap;

use super::super::filter_context::FilterContext;
use crate::{
    authorizer::Failure,
    domain::{
        batch::Work,
        decision::Allowed,
        policy::Policy,
        price::catalogue::Model,
        request::{AuthorizeRequest, Billing, Caller, Operation, Size, tokens_of_bytes},
    },
    groq::{error::ApiError, request::GroqRequest},
};

/// What a request wants, before it is known what it may have.
pub(super) struct Wanted<'p> {
    pub(super) team: &'p str,
    pub(super) upstream_key: &'p str,
    pub(super) caller: Caller,
    pub(super) user: String,
    pub(super) labels: HashMap<String, String>,
    pub(super) operation: Operation,
    pub(super) asked: GroqRequest,
}

impl Wanted<'_> {
    pub(super) fn authorize_request(&self, policy: &Policy) -> Result<AuthorizeRequest, ApiError> {
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
            labels: self.labels.clone(),
        })
    }

    pub(super) fn context(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_is_taken_for_as_long_as_its_bytes_allow() {
        assert_eq!(audio_ms(0, 4_000), 0);
        assert_eq!(audio_ms(4_001, 4_000), 1_001);
        assert_eq!(audio_ms(1, 0), 1_000);
    }
}
