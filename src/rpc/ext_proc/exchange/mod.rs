//! One HTTP exchange as Envoy shows it, step by step: the answer to each step, and how the exchange ended.

use bytes::Bytes;
use prost::Message as _;
use prost_types::value::Kind;

use super::{
    super::{
        envoy::{
            config::core::v3::{
                HeaderMap, HeaderValue, HeaderValueOption, Metadata, header_value_option::HeaderAppendAction,
            },
            extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
            service::ext_proc::v3::{
                BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody,
                HttpHeaders, ImmediateResponse, ProcessingRequest, ProcessingResponse, TrailersResponse,
                body_mutation::Mutation, processing_request::Request, processing_response::Response,
            },
            r#type::v3::{HttpStatus, StatusCode},
        },
        filter_context::FilterContext,
    },
    settlement::{End, never_sent, retry_ms},
};
use crate::{
    domain::request::Operation,
    groq::{
        answer::AnswerReader,
        error::ApiError,
        refusal::{MAX_REFUSAL_BYTES, is_too_large},
        rewrite::{Change, rewrite},
    },
};

/// Why Envoy answers in Groq's place; one of the attributes that the filter is configured to send.
const CODE_DETAILS: &str = "response.code_details";

/// The refusals by Groq that must be told apart.
const RATE_LIMITED: u16 = 429;
const TOO_LARGE: u16 = 413;

/// One HTTP exchange.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What ext_authz said about it, once that arrived.
    context: Option<FilterContext>,
    /// Whether the filter passes on the answer, so that its end is seen here. `None`: unknown.
    meters: Option<bool>,
    answer: Option<Answer>,
    settled: bool,
}

/// Groq's answer.
#[derive(Debug)]
enum Answer {
    Reading(AnswerReader),
    Refused {
        status: u16,
        retry_ms: u64,
    },
    /// A 429 that asks to wait, and what it has said so far: waiting does not help a request that is too large.
    Limited {
        retry_ms: u64,
        body: Vec<u8>,
    },
    NotSent,
    Lost,
    None,
}

/// The result of a step.
pub(super) struct Step {
    /// The answer to Envoy, if it waits for one.
    pub(super) reply: Option<ProcessingResponse>,
    /// How the exchange ended, if it did.
    pub(super) end: Option<(FilterContext, End)>,
}

impl Exchange {
    /// Takes the next step.
    pub(super) fn step(&mut self, message: ProcessingRequest) -> Step {
        let waits = !message.observability_mode;
        if let Some(protocol) = &message.protocol_config {
            self.meters = Some(protocol.response_body_mode() != BodySendMode::None);
        } else if message.observability_mode {
            // An observing filter does not say what it sends. There is nothing to observe but the answer.
            self.meters = Some(true);
        }
        // It comes with each message; reading it once is enough.
        if self.context.is_none() {
            let metadata = Metadata::decode(message.metadata_context).ok();
            self.context = metadata.as_ref().and_then(FilterContext::from_metadata);
        }
        let (reply, ends) = match message.request {
            Some(Request::RequestHeaders(_)) => (Response::RequestHeaders(HeadersResponse::default()), None),
            Some(Request::RequestBody(body)) => (self.request_body(&body), None),
            Some(Request::RequestTrailers(_)) => {
                (Response::RequestTrailers(TrailersResponse::default()), None)
            }
            Some(Request::ResponseHeaders(headers)) => {
                let details = attribute(&message.attributes, CODE_DETAILS).unwrap_or_default();
                let ends = self.response_headers(&headers, details);
                (Response::ResponseHeaders(HeadersResponse::default()), ends)
            }
            Some(Request::ResponseBody(body)) => {
                let ends = self.response_body(&body);
                (Response::ResponseBody(BodyResponse::default()), ends)
            }
            Some(Request::ResponseTrailers(_)) => {
                let ends = self.meters != Some(false);
                (Response::ResponseTrailers(TrailersResponse::default()), ends.then_some(true))
            }
            None => return Step { reply: None, end: None },
        };
        // Only what Envoy passes on for the client has an end that matters: a filter for requests alone is done long before
        // the exchange is.
        let refused = matches!(reply, Response::ImmediateResponse(_)).then_some(End::NotSent);
        let end = refused.or_else(|| ends.map(|complete| self.take_end(complete)));
        Step {
            reply: waits.then_some(ProcessingResponse { response: Some(reply) }),
            end: end.and_then(|end| self.settle(end)),
        }
    }

    /// The end of the exchange will not be seen.
    pub(super) fn lose(&mut self) {
        self.answer = Some(Answer::Lost);
    }

    /// The stream of steps is over, for whatever reason.
    pub(super) fn close(&mut self) -> Option<(FilterContext, End)> {
        // A filter that did not say what it passes on is judged by what it did.
        let meters = self.meters.unwrap_or(self.answer.is_some());
        if !meters || self.settled {
            return None;
        }
        let end = self.take_end(false);
        self.settle(end)
    }

    fn settle(&mut self, end: End) -> Option<(FilterContext, End)> {
        if std::mem::replace(&mut self.settled, true) {
            return None;
        }
        self.context.clone().map(|context| (context, end))
    }

    fn take_end(&mut self, complete: bool) -> End {
        match self.answer.replace(Answer::None) {
            Some(Answer::Reading(reader)) => End::Answered(reader.finish(complete)),
            Some(Answer::Refused { status, retry_ms }) => End::Refused { status, retry_ms },
            Some(Answer::Limited { body, .. }) if is_too_large(&body) => {
                End::Refused { status: TOO_LARGE, retry_ms: 0 }
            }
            Some(Answer::Limited { retry_ms, .. }) => End::Refused { status: RATE_LIMITED, retry_ms },
            Some(Answer::NotSent) => End::NotSent,
            Some(Answer::Lost) => End::Unknown,
            Some(Answer::None) | None => End::NoAnswer,
        }
    }

    fn request_body(&self, body: &HttpBody) -> Response {
        let unchanged = || Response::RequestBody(BodyResponse::default());
        let Some(context) = &self.context else { return unchanged() };
        let change = Change {
            max_output_tokens: context.max_output_tokens / context.choices.max(1),
            include_usage: context.include_usage,
        };
        match rewrite(context.operation, &body.body, change) {
            Ok(None) => unchanged(),
            Ok(Some(changed)) => Response::RequestBody(BodyResponse { response: Some(replaced(changed)) }),
            // It was admitted as it was read; a body that cannot be read now is not the same.
            Err(error) => Response::ImmediateResponse(instead(&error)),
        }
    }

    /// Whether the exchange ends with the headers, complete.
    fn response_headers(&mut self, headers: &HttpHeaders, details: &str) -> Option<bool> {
        let map = headers.headers.as_ref();
        let text = |name| map.map(|map| header(map, name)).unwrap_or_default();
        let status = text(":status").parse::<u16>().unwrap_or_default();
        let operation = self.context.as_ref().map_or(Operation::Chat, |context| context.operation);
        let local = !matches!(details, "" | "via_upstream");
        self.answer = Some(if never_sent(details) {
            Answer::NotSent
        } else if local {
            Answer::None
        } else if (200..300).contains(&status) {
            let (kind, encoding) = (text("content-type"), text("content-encoding"));
            Answer::Reading(AnswerReader::new(operation, &kind, &encoding))
        } else {
            match (status, retry_ms(&text("retry-after"))) {
                (RATE_LIMITED, retry_ms @ 1..) => Answer::Limited { retry_ms, body: Vec::new() },
                (status, retry_ms) => Answer::Refused { status, retry_ms },
            }
        });
        let seen = matches!(self.answer, Some(Answer::Reading(_) | Answer::Limited { .. }));
        (headers.end_of_stream || !seen).then_some(true)
    }

    fn response_body(&mut self, body: &HttpBody) -> Option<bool> {
        match &mut self.answer {
            Some(Answer::Reading(reader)) => {
                reader.push(&body.body);
                (body.end_of_stream || reader.is_complete()).then_some(true)
            }
            Some(Answer::Limited { body: seen, .. }) => {
                let room = MAX_REFUSAL_BYTES.saturating_sub(seen.len());
                seen.extend(body.body.iter().take(room));
                (body.end_of_stream || seen.len() == MAX_REFUSAL_BYTES).then_some(true)
            }
            _ => None,
        }
    }
}

fn replaced(body: Vec<u8>) -> CommonResponse {
    let length = body.len().to_string();
    CommonResponse {
        header_mutation: Some(HeaderMutation {
            set_headers: vec![set("content-length", length)],
            remove_headers: Vec::new(),
        }),
        body_mutation: Some(BodyMutation { mutation: Some(Mutation::Body(body)) }),
    }
}

fn instead(error: &ApiError) -> ImmediateResponse {
    let headers = error.headers().into_iter().map(|(name, value)| set(name, value)).collect();
    let code = StatusCode::try_from(i32::from(error.status)).unwrap_or(StatusCode::BadRequest);
    ImmediateResponse {
        status: Some(HttpStatus { code: code.into() }),
        headers: Some(HeaderMutation { set_headers: headers, remove_headers: Vec::new() }),
        body: error.body().into_bytes(),
        details: "tollgate_unreadable_body".to_owned(),
    }
}

/// A header as ext_proc takes it: as bytes.
fn set(name: &'static str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: Bytes::new(), raw_value: value.into() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

fn header(map: &HeaderMap, name: &str) -> String {
    let found = map.headers.iter().find(|header| header.key == name);
    found.map_or_else(String::new, |header| {
        let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
        String::from_utf8_lossy(value).into_owned()
    })
}

fn attribute<'a>(
    attributes: &'a std::collections::HashMap<String, prost_types::Struct>,
    name: &str,
) -> Option<&'a str> {
    attributes.values().find_map(|fields| match fields.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
