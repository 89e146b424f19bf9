//! Messages past the bound of their service.

use std::fmt::Debug;

use prost::Message as _;
use tollgate::rpc::{
    envoy::service::{
        auth::v3::{
            AttributeContext, CheckRequest, attribute_context, authorization_client::AuthorizationClient,
        },
        ext_proc::v3::{
            HttpBody, ProcessingRequest, external_processor_client::ExternalProcessorClient,
            processing_request,
        },
    },
    proto::{
        self, key_service_client::KeyServiceClient, pause_service_client::PauseServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt as _;

use super::{AUTHORIZE, DATA, MODEL, POLICY, Raw, limits};
use crate::harness::{Server, chat, connect, errors::is_of};

fn is_too_large<T: Debug>(answer: Result<T, Status>, max: usize) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_error_details();
    let info = info.error_info().unwrap();
    is_of(&status, "MESSAGE_TOO_LARGE");
    assert_eq!(info.metadata["maxBytes"], max.to_string());
    assert!(status.message().ends_with(&format!("which is {max} bytes")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_past_the_bound_of_its_service_is_refused_in_our_words() {
    const OURS: usize = 64 << 10;
    const ENVOYS: usize = 32 << 20;
    let server = Server::start_bounded(POLICY, limits());
    let channel = connect(server.address()).await;
    let large = || "x".repeat(OURS);

    let mut policy = PolicyServiceClient::new(channel.clone());
    is_too_large(policy.authorize(chat("other", &large(), 1, 1)).await, OURS);
    let record = proto::RecordUsageRequest { reservation_id: large(), ..Default::default() };
    is_too_large(policy.record_usage(record).await, OURS);
    let mut keys = KeyServiceClient::new(channel.clone());
    is_too_large(keys.get_key(proto::GetKeyRequest { name: large(), ..Default::default() }).await, OURS);
    let mut admin = PauseServiceClient::new(channel.clone());
    is_too_large(admin.pause(proto::PauseRequest { reason: large(), ..Default::default() }).await, OURS);
    let mut health = HealthClient::new(channel.clone());
    is_too_large(health.check(HealthCheckRequest { service: large() }).await, OURS);
    is_too_large(health.watch(HealthCheckRequest { service: large() }).await, OURS);
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(large())),
    };
    let mut files =
        reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    is_too_large(files.message().await, OURS);

    let mut check = AuthorizationClient::new(channel.clone());
    let http = attribute_context::HttpRequest { raw_body: vec![0; ENVOYS].into(), ..Default::default() };
    let request = attribute_context::Request { http: Some(http), ..Default::default() };
    let attributes = AttributeContext { request: Some(request), ..Default::default() };
    is_too_large(check.check(CheckRequest { attributes: Some(attributes) }).await, ENVOYS);
    let mut process = ExternalProcessorClient::new(channel);
    let body = HttpBody { body: vec![0; ENVOYS].into(), ..Default::default() };
    let request = processing_request::Request::RequestBody(body);
    let message = ProcessingRequest { request: Some(request), ..Default::default() };
    let mut replies = process.process(tokio_stream::iter([message])).await.unwrap().into_inner();
    is_too_large(replies.message().await, ENVOYS);

    // At the bound itself it is read, and refused for what it says.
    let room = OURS - chat("other", "", 1, 1).encoded_len() - 4;
    let status = policy.authorize(chat("other", &"x".repeat(room), 1, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    policy.authorize(chat("other", MODEL, 1, 1)).await.unwrap();
}

/// A policy under which a request has many limits, and so an answer of several kilobytes.
fn many_limits() -> String {
    let rates = |scope: &str| {
        let limits = ["requests", "tokens"].map(|what| {
            ["minute", "hour", "day"].map(|window| format!("{what}_per_{window} = 1_000_000\n")).concat()
        });
        format!("[{scope}]\n{}", limits.concat())
    };
    let of = |owner: &str| {
        [MODEL, "openai/*", "*"].map(|pattern| rates(&format!("{owner}.limits.\"{pattern}\""))).concat()
    };
    format!(
        "{}id = \"acme\"\n{}{}models = [\"*\"]\n{}",
        rates("organization"),
        of("organization"),
        rates("teams.other"),
        of("teams.other")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_many_limits_comes_in_pieces_that_are_written_together() {
    let server = Server::start_bounded(&many_limits(), limits());
    let mut raw = Raw::greet(server.address()).await;
    raw.call(1, AUTHORIZE, &chat("other", MODEL, 1, 1)).await;
    let mut pieces = Vec::new();
    while let Some(frame) = raw.next().await {
        if frame.stream == 1 && frame.kind == DATA {
            pieces.push(frame.payload);
        } else if frame.stream == 1 && frame.ends {
            break;
        }
    }
    // h2 writes one of 1,024 bytes or more by itself.
    let lengths: Vec<_> = pieces.iter().map(Vec::len).collect();
    assert!(lengths.len() > 1 && lengths.iter().all(|length| *length < 1_024), "{lengths:?}");
    // After the head of a message of gRPC.
    let answer = proto::AuthorizeResponse::decode(&pieces.concat()[5..]).unwrap();
    assert_eq!(answer.limits.len(), 48, "{answer:?}");
    assert!(answer.limits.iter().all(|limit| limit.used > 0 && limit.remaining + limit.used == limit.limit));
}
