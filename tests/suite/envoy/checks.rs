//! `Check` asked directly, as Envoy asks it and as it might.

use std::collections::HashMap;

use serde_json::json;
use tollgate::rpc::envoy::{
    config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress},
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, Peer, Request, http_request::HeadersEntry},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};
use tonic::{Code, transport::Channel};

use super::edge::{KEY, organization_spend, policy};
use crate::harness::{START, Server, StoreKind, connect};

/// A chat request as Envoy describes it, the `id`th.
pub(crate) fn check(id: &str, headers: &[(&str, &str)], body: &serde_json::Value) -> CheckRequest {
    let body = body.to_string().into_bytes();
    let length = body.len().to_string();
    let of_all = [
        ("content-length", length.as_str()),
        ("content-type", "application/json"),
        ("x-request-id", "the same for all"),
    ];
    let headers = headers.iter().chain(&of_all).map(|(name, value)| HeadersEntry {
        key: (*name).to_owned().into(),
        value: (*value).to_owned().into(),
    });
    let socket = SocketAddress { address: "192.0.2.1".to_owned(), port_value: 5000 };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(Address { socket_address: Some(socket) }),
                principal: String::new(),
            }),
            request: Some(Request {
                time: Some(prost_types::Timestamp { seconds: 1_795_428_000, nanos: 5 }),
                http: Some(HttpRequest {
                    id: id.to_owned(),
                    method: "POST".to_owned(),
                    path: "/openai/v1/chat/completions".to_owned(),
                    headers: headers.collect(),
                    raw_body: body.into(),
                    ..HttpRequest::default()
                }),
            }),
            context_extensions: HashMap::new(),
        }),
    }
}

/// The HTTP part of it, to be changed.
pub(crate) fn http(request: &mut CheckRequest) -> &mut HttpRequest {
    request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}

fn chat() -> serde_json::Value {
    json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []})
}

pub(crate) async fn ask(server: &Server, request: CheckRequest) -> CheckResponse {
    AuthorizationClient::new(connect(server.address()).await).check(request).await.unwrap().into_inner()
}

/// The status of the answer, and the team or key that it is for by its reservation's existence.
pub(crate) fn status(answer: &CheckResponse) -> i32 {
    // An answer without a status would be taken for «allowed».
    let status = answer.status.as_ref().expect("a status").code;
    match answer.http_response.as_ref().expect("an answer") {
        HttpResponse::OkResponse(_) => {
            assert_eq!(status, 0);
            200
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_ne!(status, 0);
            denied.status.as_ref().expect("an HTTP status").code
        }
    }
}

pub(crate) fn reservation(answer: &CheckResponse) -> String {
    let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else { panic!("denied: {answer:?}") };
    let named =
        |name: &str| ok.response_headers_to_add.iter().find(|h| h.header.as_ref().unwrap().key == name);
    let value = &named("x-tollgate-reservation").unwrap().header.as_ref().unwrap().value;
    String::from_utf8(value.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_twice_for_one_request_it_reserves_once() {
    let server = Server::start(StoreKind::Embedded, &policy(&[]), START).await;
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str())];
    let first = ask(&server, check("1", &headers, &chat())).await;
    let again = ask(&server, check("1", &headers, &chat())).await;
    assert_eq!(reservation(&first), reservation(&again));
    assert_eq!(first.dynamic_metadata, again.dynamic_metadata);
    let other = ask(&server, check("2", &headers, &chat())).await;
    assert_ne!(reservation(&first), reservation(&other));
    let spend = organization_spend(&mut server.client().await).await;
    assert_eq!(spend.unsettled_requests, 2);
    // What was settled pays for nothing more, even where Envoy asks for the same stream again.
    server.client().await.record_usage(crate::harness::used(&reservation(&first), 1, 1)).await.unwrap();
    let late = ask(&server, check("1", &headers, &chat())).await;
    assert_ne!(reservation(&late), reservation(&first));
    let spend = organization_spend(&mut server.client().await).await;
    assert_eq!(spend.unsettled_requests, 2);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_found_in_the_policys_order() {
    let sources = "request_phase = true
callers = [\"principal\", \"header\", \"api_key\", \"route\"]
team_header = \"X-Team\"
user_header = \"x-user\"
principals = { \"spiffe://acme/web\" = \"chatbot\" }";
    let extra = "[teams.other]\nmodels = [\"*\"]\nmax_output_tokens = 5\n\n[teams.chatbot]";
    let text = policy(&[("request_phase = true", sources), ("[teams.chatbot]", extra)]);
    let server = Server::start(StoreKind::Embedded, &text, START).await;
    let bearer = format!("Bearer {KEY}");
    let mut number = 0;
    let mut asked = |principal: &str, route: &str, headers: &[(&str, &str)]| {
        number += 1;
        let mut request = check(&number.to_string(), headers, &chat());
        let attributes = request.attributes.as_mut().unwrap();
        attributes.source.as_mut().unwrap().principal = principal.to_owned();
        if !route.is_empty() {
            attributes.context_extensions.insert("tollgate_team".to_owned(), route.to_owned());
        }
        request
    };
    // The team `other` may have five output tokens and is refused ten, which tells the two apart.
    for (request, expected) in [
        (asked("spiffe://acme/web", "other", &[("x-team", "other")]), 200),
        (asked("", "chatbot", &[("x-team", "other"), ("authorization", &bearer)]), 400),
        (asked("", "other", &[("authorization", &bearer)]), 200),
        (asked("", "other", &[]), 400),
        (asked("", "chatbot", &[]), 200),
        // A source that names somebody decides, also where it names nobody that is known.
        (asked("spiffe://acme/unknown", "chatbot", &[("authorization", &bearer)]), 401),
        (asked("", "chatbot", &[("x-team", "nobody")]), 401),
        (asked("", "chatbot", &[("authorization", "Bearer wrong")]), 401),
        (asked("", "", &[]), 401),
    ] {
        let answer = ask(&server, request.clone()).await;
        assert_eq!(status(&answer), expected, "{request:?}: {answer:?}");
    }
    let answer = ask(&server, asked("", "chatbot", &[("x-user", "u")])).await;
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("denied") };
    for name in ["x-team", "x-user", "accept-encoding"] {
        assert!(ok.headers_to_remove.iter().any(|removed| removed == name), "{name}");
    }
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_headers_are_read_as_well() {
    let server = Server::start(StoreKind::Embedded, &policy(&[]), START).await;
    let mut request = check("1", &[], &chat());
    let described = http(&mut request);
    described.headers.retain(|entry| entry.key == "content-type");
    let header = |key: &str, value: &str| HeaderValue {
        key: key.to_owned().into(),
        raw_value: value.to_owned().into(),
        ..HeaderValue::default()
    };
    described.header_map =
        Some(HeaderMap { headers: vec![header("authorization", &format!("Bearer {KEY}"))] });
    assert_eq!(status(&ask(&server, request.clone()).await), 200);
    // Two credentials are none.
    let described = http(&mut request);
    described.header_map.as_mut().unwrap().headers.push(header("authorization", "Bearer other"));
    assert_eq!(status(&ask(&server, request).await), 401);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_whole_is_refused() {
    let server = Server::start(StoreKind::Embedded, &policy(&[]), START).await;
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str())];
    let partial = [headers[0], ("x-envoy-auth-partial-body", "true")];
    assert_eq!(status(&ask(&server, check("1", &partial, &chat())).await), 413);
    let mut cut = check("2", &headers, &chat());
    let described = http(&mut cut);
    described.raw_body = described.raw_body.slice(..10);
    assert_eq!(status(&ask(&server, cut.clone()).await), 413);
    let described = http(&mut cut);
    described.raw_body.clear();
    assert_eq!(status(&ask(&server, cut).await), 413);
    let spend = organization_spend(&mut server.client().await).await;
    assert_eq!(spend.unsettled_requests, 0);
    let mut client: AuthorizationClient<Channel> = AuthorizationClient::new(connect(server.address()).await);
    assert_eq!(client.check(CheckRequest::default()).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_header_is_held_to_what_the_body_is() {
    let text = policy(&[
        ("request_phase = true", "request_phase = true\nuser_header = \"x-user\""),
        ("tokens_per_day = 9_000_000_000", "per_user = { requests_per_minute = 1 }"),
    ]);
    let server = Server::start(StoreKind::Embedded, &text, START).await;
    let bearer = format!("Bearer {KEY}");
    let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": [], "user": "u"});
    let long = "x".repeat(70_000);
    let mut number = 0;
    let mut asked = |user: &str| {
        number += 1;
        check(&number.to_string(), &[("authorization", &bearer), ("x-user", user)], &body)
    };
    for (user, expected) in [(long.as_str(), 400), ("a\tb", 400), ("", 200), ("", 429), ("other", 200)] {
        assert_eq!(status(&ask(&server, asked(user)).await), expected, "{user:.10}");
    }
}

/// What Groq adds to the input is paid for up to as much as the context holds, with the calls of the tool; a rate counts what
/// was sent, and so a team whose tokens a minute are fewer than a context can use a tool.
#[tokio::test(flavor = "multi_thread")]
async fn input_that_cannot_be_seen_is_taken_for_the_whole_context() {
    let text = policy(&[("tokens_per_day = 9_000_000_000", "tokens_per_minute = 1_000")]);
    let server = Server::start(StoreKind::Embedded, &text, START).await;
    let bearer = format!("Bearer {KEY}");
    let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": [],
        "tools": [{"type": "browser_search"}]});
    let answer = ask(&server, check("1", &[("authorization", &bearer)], &body)).await;
    assert_eq!(status(&answer), 200);
    let spend = organization_spend(&mut server.client().await).await;
    let reserved = crate::harness::nanos(spend.spend.unwrap().reserved);
    assert_eq!(reserved, 131_072 * 75 + 10 * 300 + 10 * 5_000_000);
    for (number, tool, expected) in [("2", "mcp", 200), ("3", "file_search", 403)] {
        let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": [],
            "tools": [{"type": tool}]});
        assert_eq!(
            status(&ask(&server, check(number, &[("authorization", &bearer)], &body)).await),
            expected
        );
    }
}
