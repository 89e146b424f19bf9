//! Envoy's rate-limit protocol: what the service answers, and the real Envoy with the shipped configuration that speaks only this.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate::rpc::{
    envoy::{
        extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
        service::ratelimit::v3::{
            RateLimitRequest, RateLimitResponse,
            rate_limit_response::{Code, rate_limit::Unit},
            rate_limit_service_client::RateLimitServiceClient,
        },
    },
    proto::{QueryUsageRequest, report_service_client::ReportServiceClient},
};
use tonic::{Code as Status, transport::Channel};

use super::{
    edge::{Envoy, KEY, RATE_LIMIT, chat_body, digest, is_available},
    http::Request,
};
use crate::{
    access::by,
    harness::{START, Server, StoreKind, chat, connect, errors::is_of, eventually, team_spend},
    support::mock_groq::{MockGroq, UPSTREAM_KEY},
};

const MODEL: &str = "openai/gpt-oss-20b";
const GATEWAY: &str = "tgs_secret_of_the_gateway_of_lab";
const OF_ALL: &str = "tgs_secret_of_the_gateway_of_all";

fn policy() -> String {
    format!(
        "[organization]\nid = \"acme\"\nrequests_per_minute = 100\ntokens_per_minute = 2000\n\
         [teams.chatbot]\nmodels = [\"openai/*\"]\nrequests_per_minute = 3\ntokens_per_minute = 1000\n\
         tokens_per_day = 1_000_000\nbudget = {{ monthly_usd = \"100.00\" }}\n\
         limits.\"{MODEL}\".requests_per_hour = 50\nper_user = {{ requests_per_minute = 1 }}\n\
         [teams.chatbot.keys.chatbot-test-web]\nsha256 = \"{}\"\nrequests_per_minute = 1\n\
         [teams.lab]\nmodels = [\"*\"]\nmode = \"shadow\"\nrequests_per_minute = 1\n\
         [teams.idle]\nmodels = [\"*\"]\nrequests_per_minute = 0\ntokens_per_minute = 0\n",
        digest(KEY)
    )
}

struct Calls(RateLimitServiceClient<Channel>);

impl Calls {
    async fn of(server: &Server) -> Self {
        Self(RateLimitServiceClient::new(connect(server.address()).await))
    }

    async fn ask(&self, descriptors: Vec<RateLimitDescriptor>) -> RateLimitResponse {
        self.try_ask(request(descriptors)).await.unwrap()
    }

    async fn try_ask(&self, request: RateLimitRequest) -> Result<RateLimitResponse, tonic::Status> {
        Ok(self.0.clone().should_rate_limit(request).await?.into_inner())
    }

    /// Whether one descriptor is within its limits.
    async fn passes(&self, entries: &[(&str, &str)], hits: Option<u64>) -> bool {
        let answer = self.ask(vec![descriptor(entries, hits)]).await;
        assert_eq!(answer.statuses.len(), 1);
        assert_eq!(answer.statuses[0].code, answer.overall_code);
        answer.overall_code() == Code::Ok
    }
}

fn request(descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest { domain: "acme".to_owned(), descriptors, hits_addend: 0 }
}

fn descriptor(entries: &[(&str, &str)], hits: Option<u64>) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        hits_addend: hits,
        ..Default::default()
    }
}

const TEAM: (&str, &str) = ("tollgate_team", "chatbot");
const TOKENS: (&str, &str) = ("tollgate_quantity", "tokens");

async fn requests_count_in_the_windows_that_authorize_counts_in(store: StoreKind) {
    if !store.is_available() {
        return;
    }
    let server = Server::start(store, &policy(), START).await;
    let (calls, mut client) = (Calls::of(&server).await, server.client().await);
    let of_model = [TEAM, ("tollgate_model", MODEL), ("generic_key", "ignored")];
    let first = calls.ask(vec![descriptor(&of_model, None)]).await;
    assert_eq!(first.overall_code(), Code::Ok);
    let [status] = &*first.statuses else { panic!("{first:?}") };
    let limit = status.current_limit.as_ref().unwrap();
    assert_eq!((limit.name.as_str(), limit.requests_per_unit), ("teams.chatbot.requests_per_minute", 3));
    assert_eq!((limit.unit(), status.limit_remaining), (Unit::Minute, 2));
    // What is authorized counts here, and what is counted here counts there.
    assert!(
        client.authorize(chat("chatbot", MODEL, 10, 10)).await.unwrap().into_inner().violations.is_empty()
    );
    assert!(calls.passes(&[TEAM], None).await);
    let denied = client.authorize(chat("chatbot", MODEL, 10, 10)).await.unwrap().into_inner();
    assert_eq!(denied.violations[0].limit_id, "teams.chatbot.requests_per_minute");
    let over = calls.ask(vec![descriptor(&of_model, None)]).await;
    assert_eq!(over.overall_code(), Code::OverLimit);
    let headers: BTreeMap<_, _> = over.response_headers_to_add.iter().map(|h| (&*h.key, &*h.value)).collect();
    assert_eq!(headers[&b"content-type"[..]], b"application/json");
    assert!(headers.contains_key(&b"retry-after"[..]), "{headers:?}");
    let body: Value = serde_json::from_slice(&over.raw_body).unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    assert!(body["error"]["message"].as_str().unwrap().contains("3 requests in any minute: 3 requests used"));
    // No money, no reservation.
    let spend = team_spend(&mut client, "chatbot").await;
    assert_eq!(spend.unsettled_requests, 1, "the one that was authorized");
    assert!(server.stop().await);
}

async fn all_descriptors_count_or_none(store: StoreKind) {
    if !store.is_available() {
        return;
    }
    let server = Server::start(store, &policy(), START).await;
    let calls = Calls::of(&server).await;
    let user = [TEAM, ("tollgate_user", "ada")];
    assert!(calls.passes(&user, None).await);
    // The user's limit refuses, so the key's and the team's have one left.
    let key = [("tollgate_api_key", KEY)];
    let answer = calls.ask(vec![descriptor(&key, None), descriptor(&user, None)]).await;
    let codes: Vec<_> = answer.statuses.iter().map(|status| status.code()).collect();
    assert_eq!((answer.overall_code(), &*codes), (Code::OverLimit, &[Code::Ok, Code::OverLimit][..]));
    assert!(calls.passes(&key, None).await);
    // Two descriptors that share a counter count together.
    let twice = vec![descriptor(&[TEAM], Some(1)), descriptor(&key, Some(1))];
    assert_eq!(calls.ask(twice).await.overall_code(), Code::OverLimit);
    assert!(calls.passes(&[TEAM], None).await, "neither took the third");
    assert!(!calls.passes(&[TEAM], None).await);
    // A limit in shadow refuses nothing, one of none everything.
    for _ in 0..3 {
        assert!(calls.passes(&[("tollgate_team", "lab")], None).await);
    }
    for (quantity, hits) in [("requests", 1), ("requests", 0), ("tokens", 0), ("tokens", 5)] {
        let entries = [("tollgate_team", "idle"), ("tollgate_quantity", quantity)];
        assert!(!calls.passes(&entries, Some(hits)).await, "{hits} {quantity}");
    }
    assert!(server.stop().await);
}

async fn tokens_are_asked_for_before_and_reported_after(store: StoreKind) {
    if !store.is_available() {
        return;
    }
    let server = Server::start(store, &policy(), START).await;
    let calls = Calls::of(&server).await;
    let tokens = [TEAM, TOKENS];
    let question = || vec![descriptor(&[TEAM], None), descriptor(&tokens, Some(0))];
    assert_eq!(calls.ask(question()).await.overall_code(), Code::Ok);
    // An estimate before the request is held to the limit, together with the request.
    let estimate = vec![descriptor(&[TEAM], None), descriptor(&tokens, Some(1_001))];
    assert_eq!(calls.ask(estimate).await.overall_code(), Code::OverLimit);
    assert!(calls.passes(&tokens, Some(999)).await);
    assert_eq!(calls.ask(question()).await.overall_code(), Code::Ok, "one is left");
    // What was used counts, past the limit as well.
    assert!(!calls.passes(&tokens, Some(500)).await);
    let over = calls.ask(question()).await;
    assert_eq!(over.overall_code(), Code::OverLimit);
    let body: Value = serde_json::from_slice(&over.raw_body).unwrap();
    assert!(body["error"]["message"].as_str().unwrap().contains("1499 tokens used"), "{body}");
    assert!(calls.passes(&[TEAM], None).await, "the refused questions took no request");
    // Denials are counted as others are.
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    let usage = QueryUsageRequest {
        start_date: "2026-11-01".to_owned(),
        end_date: "2026-12-01".to_owned(),
        ..Default::default()
    };
    assert!(reports.query_usage(usage).await.unwrap().into_inner().rows.is_empty(), "nothing is booked");
    assert!(server.stop().await);
}

/// The tests of one behaviour on both stores.
macro_rules! on_both {
    ($($name:ident, $embedded:ident, $redis:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $embedded() {
            $name(StoreKind::Embedded).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $redis() {
            $name(StoreKind::Redis).await;
        }
    )*};
}

on_both! {
    requests_count_in_the_windows_that_authorize_counts_in, requests_count_embedded, requests_count_redis;
    all_descriptors_count_or_none, descriptors_count_together_embedded, descriptors_count_together_redis;
    tokens_are_asked_for_before_and_reported_after, tokens_are_reported_embedded, tokens_are_reported_redis;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_is_over_its_limit_and_what_is_malformed_an_error() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let calls = Calls::of(&server).await;
    for (entries, code) in [
        (vec![("tollgate_team", "unknown")], "invalid_api_key"),
        (vec![("tollgate_api_key", "tgk_unknown")], "invalid_api_key"),
        (vec![TEAM, ("tollgate_model", "llama-3.1-8b-instant")], "permission_denied"),
    ] {
        let answer = calls.ask(vec![descriptor(&entries, None)]).await;
        assert_eq!(answer.overall_code(), Code::OverLimit, "{entries:?}");
        let body: Value = serde_json::from_slice(&answer.raw_body).unwrap();
        assert_eq!(body["error"]["code"], code, "{entries:?}");
    }
    let one = |entries: &[(&str, &str)]| request(vec![descriptor(entries, None)]);
    let mut negative = one(&[TEAM]);
    negative.descriptors[0].is_negative_hits = true;
    for (request, field) in [
        (RateLimitRequest { domain: "other".to_owned(), ..one(&[TEAM]) }, "domain"),
        (request(Vec::new()), "descriptors"),
        (request(vec![descriptor(&[TEAM], None); 17]), "descriptors"),
        (one(&[]), "descriptors[0].entries"),
        (one(&[("generic_key", "x")]), "descriptors[0].entries"),
        (one(&[TEAM; 17]), "descriptors[0].entries"),
        (one(&[TEAM, TEAM]), "descriptors[0].entries[1]"),
        (one(&[TEAM, ("tollgate_api_key", KEY)]), "descriptors[0].entries[1]"),
        (one(&[("tollgate_tema", "chatbot")]), "descriptors[0].entries[0]"),
        (one(&[TEAM, ("tollgate_quantity", "dollars")]), "descriptors[0].entries[1]"),
        (one(&[TEAM, ("tollgate_user", "a\nb")]), "descriptors[0].entries[1]"),
        (request(vec![descriptor(&[TEAM], Some(1_001))]), "descriptors[0].hits_addend"),
        (request(vec![descriptor(&[TEAM, TOKENS], Some(u64::MAX))]), "descriptors[0].hits_addend"),
        (negative, "descriptors[0].is_negative_hits"),
    ] {
        let status = calls.try_ask(request).await.unwrap_err();
        assert_eq!(status.code(), Status::InvalidArgument, "{field}: {status:?}");
        is_of(&status, "INVALID_REQUEST");
        assert!(status.message().contains(&format!("`{field}`")), "{field}: {status:?}");
        assert!(!format!("{status:?}").contains(KEY));
    }
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_counts_only_for_its_teams() {
    let bound = format!(
        "{}[access.tokens.edge]\nsha256 = \"{}\"\nroles = [\"gateway\"]\nteams = [\"lab\"]\n\
         [access.tokens.main]\nsha256 = \"{}\"\nroles = [\"gateway\"]\n",
        policy(),
        digest(GATEWAY),
        digest(OF_ALL)
    );
    let server = Server::start(StoreKind::Embedded, &bound, START).await;
    let mut client = RateLimitServiceClient::new(connect(server.address()).await);
    let mut ask = async |secret: &str, team: &str| {
        let asked = request(vec![descriptor(&[("tollgate_team", team)], None)]);
        client.should_rate_limit(by(secret, asked)).await.map(|answer| answer.into_inner().overall_code())
    };
    assert_eq!(ask(GATEWAY, "lab").await.unwrap(), Code::Ok);
    // An answer, as an error may let the request pass.
    assert_eq!(ask(GATEWAY, "chatbot").await.unwrap(), Code::OverLimit);
    is_of(&ask("", "lab").await.unwrap_err(), "MISSING_CREDENTIAL");
    // What is reported for one team fills no window of all, unless the gateway speaks for all.
    let mut report = async |secret: &str, team: &str, hits: u64| {
        let asked = request(vec![descriptor(&[("tollgate_team", team), TOKENS], Some(hits))]);
        client.should_rate_limit(by(secret, asked)).await.unwrap().into_inner().overall_code()
    };
    assert_eq!(report(GATEWAY, "lab", 100_000_000).await, Code::Ok);
    assert_eq!(report(OF_ALL, "chatbot", 0).await, Code::Ok);
    assert_eq!(report(OF_ALL, "lab", 2_001).await, Code::OverLimit);
    assert_eq!(report(OF_ALL, "chatbot", 0).await, Code::OverLimit);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_counts_requests_and_then_their_tokens() {
    if !is_available() {
        return;
    }
    let mock = MockGroq::start().await;
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let key = ("%ENVIRONMENT(GROQ_API_KEY)%", UPSTREAM_KEY);
    let envoy = Envoy::start_shipped(RATE_LIMIT, &[server.address()], mock.address(), &[key]).await.unwrap();
    let send = async || {
        let body = chat_body(r#"{"prompt_tokens":400,"completion_tokens":200}"#, &json!({"max_tokens": 200}));
        Request::json("/openai/v1/chat/completions", KEY, &body).send(envoy.address).await
    };
    let calls = Calls::of(&server).await;
    let left = async |entries: &[(&str, &str)]| {
        calls.ask(vec![descriptor(entries, Some(0))]).await.statuses[0].limit_remaining
    };
    let first = send().await;
    assert_eq!(first.status, 200, "{:?} {}", String::from_utf8_lossy(&first.body), envoy.log());
    assert_eq!(left(&[TEAM]).await, 2);
    eventually("its tokens are counted", async || left(&[TEAM, TOKENS]).await == 400).await;
    assert_eq!(send().await.status, 200);
    eventually("past the limit", async || left(&[TEAM, TOKENS]).await == 0).await;
    let third = send().await;
    assert_eq!(third.status, 429);
    let body: Value = serde_json::from_slice(&third.body).unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded", "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("tokens_per_minute"), "{body}");
    assert_eq!(left(&[TEAM]).await, 1, "what was refused took no request");
    assert_eq!(mock.requests().len(), 2);
    assert!(server.stop().await);
}
