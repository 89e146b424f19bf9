use super::*;
use crate::{
    authorizer::ReservationName,
    domain::request::ServiceTier,
    rpc::envoy::{
        config::core::v3::Metadata,
        service::ext_proc::v3::{HttpTrailers, ProtocolConfiguration},
    },
    store::ReservationId,
};

fn context() -> FilterContext {
    FilterContext {
        reservation: ReservationName::Stored(ReservationId([1; 16])),
        operation: Operation::Chat,
        stream: true,
        hides_reasoning: false,
        choices: 1,
        team: "t".to_owned(),
        model: "m".to_owned(),
        service_tier: ServiceTier::OnDemand,
        upstream_key: String::new(),
        input_tokens: 100,
        max_output_tokens: 50,
        audio_ms: 0,
        characters: 0,
        include_usage: true,
        unseen_input: false,
    }
}

fn first(mode: BodySendMode, observes: bool) -> ProcessingRequest {
    let mut metadata = Metadata::default();
    metadata.filter_metadata.insert("envoy.filters.http.ext_authz".to_owned(), context().to_metadata());
    ProcessingRequest {
        request: Some(Request::RequestHeaders(HttpHeaders::default())),
        metadata_context: metadata.encode_to_vec().into(),
        observability_mode: observes,
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: BodySendMode::Buffered.into(),
            response_body_mode: mode.into(),
        }),
        ..ProcessingRequest::default()
    }
}

fn headers(status: &str, kind: &str) -> ProcessingRequest {
    let header = |key: &str, value: &str| HeaderValue {
        key: key.to_owned().into(),
        raw_value: value.to_owned().into(),
        ..HeaderValue::default()
    };
    let headers = vec![header(":status", status), header("content-type", kind), header("retry-after", "3")];
    let headers = HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream: false };
    ProcessingRequest { request: Some(Request::ResponseHeaders(headers)), ..ProcessingRequest::default() }
}

fn body(bytes: &'static [u8], end_of_stream: bool) -> ProcessingRequest {
    let body = HttpBody { body: bytes.into(), end_of_stream };
    ProcessingRequest { request: Some(Request::ResponseBody(body)), ..ProcessingRequest::default() }
}

#[test]
fn a_stream_is_settled_at_its_last_word_and_once() {
    let mut exchange = Exchange::default();
    assert!(exchange.step(first(BodySendMode::Streamed, true)).reply.is_none());
    assert!(exchange.step(headers("200", "text/event-stream")).end.is_none());
    let usage = b"data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
    assert!(exchange.step(body(usage, false)).end.is_none());
    let (_, end) = exchange.step(body(b"data: [DONE]\n\n", false)).end.unwrap();
    assert!(matches!(end, End::Answered(reading) if reading.complete && reading.usage.is_some()));
    assert!(exchange.step(body(b"", true)).end.is_none());
    assert!(exchange.close().is_none());
}

#[test]
fn a_cut_stream_is_settled_by_its_end() {
    let mut exchange = Exchange::default();
    exchange.step(first(BodySendMode::Streamed, true));
    exchange.step(headers("200", "text/event-stream"));
    exchange.step(body(b"data: {\"choices\":[{\"delta\":{\"content\":\"abc\"}}]}\n\n", false));
    let (_, end) = exchange.close().unwrap();
    assert!(matches!(end, End::Answered(reading) if !reading.complete && reading.output_bytes == 3));
    assert!(exchange.close().is_none());
}

#[test]
fn an_exchange_that_outlives_the_service_is_of_unknown_end() {
    let mut exchange = Exchange::default();
    exchange.step(first(BodySendMode::Streamed, true));
    exchange.step(headers("200", "text/event-stream"));
    exchange.lose();
    assert_eq!(exchange.close().unwrap().1, End::Unknown);
}

#[test]
fn an_exchange_without_an_answer_is_settled() {
    let mut exchange = Exchange::default();
    exchange.step(first(BodySendMode::Streamed, true));
    assert_eq!(exchange.close().unwrap().1, End::NoAnswer);
}

#[test]
fn a_filter_that_only_looks_need_not_say_at_what() {
    let mut exchange = Exchange::default();
    exchange.step(ProcessingRequest { protocol_config: None, ..first(BodySendMode::Streamed, true) });
    assert_eq!(exchange.close().unwrap().1, End::NoAnswer);
}

#[test]
fn a_refusal_of_groq_is_settled_with_its_headers() {
    let mut exchange = Exchange::default();
    exchange.step(first(BodySendMode::Streamed, true));
    let (_, end) = exchange.step(headers("503", "application/json")).end.unwrap();
    assert_eq!(end, End::Refused { status: 503, retry_ms: 3_000 });
}

#[test]
fn a_429_is_settled_when_it_has_said_what_it_is_of() {
    let rate = Some(End::Refused { status: 429, retry_ms: 3_000 });
    let large = Some(End::Refused { status: 413, retry_ms: 0 });
    for (first, second, expected) in [
        (&b"{\"error\":{\"message\":\"Rate limit reached"[..], &b" for m\"}}"[..], &rate),
        (b"{\"error\":{\"message\":\"Request too l", b"arge for m\"}}", &large),
        (b"", b"", &rate),
        (&[b' '; 20 << 10], b"{\"error\":{\"message\":\"Request too large\"}}", &rate),
    ] {
        let mut exchange = Exchange::default();
        exchange.step(first_of_stream());
        assert!(exchange.step(headers("429", "application/json")).end.is_none());
        let ends = [body(first, false), body(second, true)].map(|step| exchange.step(step).end);
        assert_eq!(ends.into_iter().flatten().map(|(_, end)| end).next(), *expected);
        assert!(exchange.close().is_none());
    }
    // Envoy's client left, or it sends no body.
    let mut exchange = Exchange::default();
    exchange.step(first_of_stream());
    exchange.step(headers("429", "application/json"));
    assert_eq!(exchange.close().map(|(_, end)| end), rate);
}

fn first_of_stream() -> ProcessingRequest {
    first(BodySendMode::Streamed, true)
}

#[test]
fn a_filter_for_requests_alone_settles_nothing() {
    let mut exchange = Exchange::default();
    assert!(exchange.step(first(BodySendMode::None, false)).reply.is_some());
    let request =
        HttpBody { body: br#"{"model":"m","max_tokens":99}"#.as_slice().into(), end_of_stream: true };
    let message =
        ProcessingRequest { request: Some(Request::RequestBody(request)), ..ProcessingRequest::default() };
    let Step { reply, end } = exchange.step(message);
    assert!(end.is_none());
    let Some(Response::RequestBody(BodyResponse { response: Some(changed) })) = reply.unwrap().response
    else {
        panic!("no change");
    };
    assert_eq!(
        changed.body_mutation.unwrap().mutation,
        Some(Mutation::Body(br#"{"model":"m","max_tokens":50}"#.to_vec()))
    );
    assert_eq!(changed.header_mutation.unwrap().set_headers[0].header.as_ref().unwrap().raw_value, "29");
    assert!(exchange.close().is_none());
}

#[test]
fn a_body_that_cannot_be_read_goes_no_further() {
    let mut exchange = Exchange::default();
    exchange.step(first(BodySendMode::None, false));
    let request = HttpBody { body: b"{".as_slice().into(), end_of_stream: true };
    let message =
        ProcessingRequest { request: Some(Request::RequestBody(request)), ..ProcessingRequest::default() };
    let Step { reply, end } = exchange.step(message);
    assert!(matches!(reply.unwrap().response, Some(Response::ImmediateResponse(_))));
    assert_eq!(end.unwrap().1, End::NotSent);
}

#[test]
fn what_was_not_admitted_here_is_left_alone() {
    let mut exchange = Exchange::default();
    let message =
        ProcessingRequest { metadata_context: Bytes::new(), ..first(BodySendMode::Streamed, false) };
    assert!(exchange.step(message).reply.is_some());
    let step = exchange.step(headers("403", "application/json"));
    assert!(step.reply.is_some() && step.end.is_none());
    assert!(exchange.close().is_none());
    let mut local = Exchange::default();
    assert!(local.step(headers("503", "text/plain")).end.is_none());
    assert!(local.close().is_none());
}

#[test]
fn every_step_that_envoy_waits_for_is_answered_in_kind() {
    let mut exchange = Exchange::default();
    let reply = exchange.step(first(BodySendMode::Streamed, false)).reply.unwrap();
    assert!(matches!(reply.response, Some(Response::RequestHeaders(_))));
    let reply = exchange.step(headers("200", "application/json")).reply.unwrap();
    assert!(matches!(reply.response, Some(Response::ResponseHeaders(_))));
    let reply = exchange.step(body(b"{}", false)).reply.unwrap();
    assert!(matches!(reply.response, Some(Response::ResponseBody(_))));
    let trailers = ProcessingRequest {
        request: Some(Request::ResponseTrailers(HttpTrailers::default())),
        ..ProcessingRequest::default()
    };
    let step = exchange.step(trailers);
    assert!(matches!(step.reply.unwrap().response, Some(Response::ResponseTrailers(_))));
    assert!(step.end.is_some());
}
