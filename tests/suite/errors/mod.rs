//! Each reason of the table of errors is sent as the table has it.

mod rare;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use tollgate::rpc::{
    ERRORS,
    proto::{
        self, alert_service_client::AlertServiceClient, audit_service_client::AuditServiceClient,
        key_service_client::KeyServiceClient, pause_service_client::PauseServiceClient,
        policy_service_client::PolicyServiceClient, upstream_service_client::UpstreamServiceClient,
    },
};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use crate::{
    access::{by, digest},
    harness::{
        START, Server, StoreKind, chat, connect,
        errors::{detail_of, is_of},
        used,
    },
};

const MODEL: &str = "openai/gpt-oss-20b";
const GATEWAY: &str = "tgs_secret_of_the_gateway";

const POLICY: &str = r#"
[organization]
id = "acme"
[teams.bot]
models = ["*"]
unreserved = { max_cost_usd = "0.001", daily_usd = "0.0015" }
[teams.lab]
models = ["*"]
[[prices]]
model = "dear/one"
input_usd_per_million_tokens = "1000000"
output_usd_per_million_tokens = "1000000"
"#;

const PAGES: &str = "tests/suite/status.rs";
const OF_PAGES: &str = "errors_of_pages_are_json_for_programs_and_text_for_people";
const RARE: &str = "tests/suite/errors/rare.rs";

/// Reasons that other tests provoke over a connection, each held to the table by [`is_of`]: the file of each, and its name.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("UNKNOWN_PAGE", PAGES, OF_PAGES),
    ("METHOD_NOT_ALLOWED", PAGES, OF_PAGES),
    ("FOREIGN_HOST", PAGES, OF_PAGES),
    ("FOREIGN_FORM", "tests/suite/console/keys.rs", "forms_of_other_pages_change_nothing"),
    ("UNKNOWN_SECRET", "tests/suite/keys/secrets.rs", "what_is_in_use_ends_only_by_force"),
    ("KEY_EXISTS", "tests/suite/keys/secrets.rs", "a_revoked_key_is_refused_for_ever"),
    ("KEY_REVOKED", "tests/suite/keys/secrets.rs", "a_revoked_key_is_refused_for_ever"),
    ("SECRET_IN_USE", "tests/suite/keys/secrets.rs", "what_is_in_use_ends_only_by_force"),
    ("ONLY_SECRET", "tests/suite/keys/secrets.rs", "what_is_in_use_ends_only_by_force"),
    ("KEY_CHANGED", "tests/suite/keys/mod.rs", "only_the_version_that_was_read_is_changed"),
    (
        "TOKEN_EXPIRED",
        "tests/suite/access/tokens.rs",
        "what_is_signed_by_the_issuer_for_this_service_is_taken",
    ),
    (
        "ORGANIZATION_REQUIRED",
        "tests/suite/organizations/envoy.rs",
        "the_domain_of_a_rate_limit_is_the_organization",
    ),
    (
        "ORGANIZATION_NOT_PERMITTED",
        "tests/suite/organizations/envoy.rs",
        "a_route_does_not_lead_out_of_the_organization_of_envoys_own_credential",
    ),
    ("UNKNOWN_ORGANIZATION", "tests/suite/organizations/found.rs", "one_organization_is_named_or_not"),
    ("UNKNOWN_CERTIFICATE", "tests/suite/tls/mod.rs", "who_is_named_in_no_policy_is_told_so"),
    ("ACCESS_NOT_CONFIGURED", RARE, "a_caller_on_another_machine_needs_a_policy_with_access"),
    (
        "ISSUER_UNAVAILABLE",
        "tests/suite/access/tokens.rs",
        "while_an_issuer_does_not_answer_known_keys_go_on_and_others_are_refused_soon",
    ),
    ("TOO_MANY_STREAMS", "tests/suite/decision_stream/mod.rs", "a_process_has_a_bounded_number_of_streams"),
    (
        "UNKNOWN_REVISION",
        "tests/suite/policy_history.rs",
        "revisions_are_listed_in_pages_and_only_known_ones_are_shown",
    ),
    ("TOO_MANY_KEYS", RARE, "a_full_registry_says_so"),
    ("TOO_MANY_PAUSES", RARE, "a_full_registry_says_so"),
    ("OVERLOADED", RARE, "more_than_redis_can_answer_in_time_is_refused_at_once"),
    ("SPOOL_FULL", "tests/suite/spool/processes.rs", "a_full_spool_refuses_and_what_it_took_is_booked"),
    ("SHUTTING_DOWN", RARE, "a_call_that_outlasts_the_drain_is_told"),
    ("STORE_UNAVAILABLE", "tests/suite/crash/outage.rs", "an_outage_of_redis_is_answered_in_time_and_passes"),
    ("SNAPSHOT_STALE", "tests/suite/snapshot.rs", "a_key_given_to_another_team_ends_the_wait_of_its_request"),
    ("LAYOUT_UNSUPPORTED", "tests/suite/layouts/mod.rs", "a_layout_that_is_raised_stops_a_running_process"),
    ("DEADLINE_EXCEEDED", "tests/suite/answers.rs", "the_timeout_of_a_caller_is_kept_and_holds_nothing"),
    // Not over a connection: others have to change the same record between eight readings and their writes, which no test can
    // bring about at will. It goes through the conversion of each such error.
    ("PAUSE_CHANGED", "src/rpc/error/tests.rs", "a_pause_that_others_keep_changing_has_its_reason"),
];

/// The functions that hold an error to the table, and those of tests that call them.
const CHECKS: [&str; 6] = ["is_of(", "is_of_json(", "is_of_with(", "refused(", "unauthenticated(", "reason("];

/// The errors that were provoked, by what each was expected to be.
#[derive(Default)]
struct Provoked(Vec<(&'static str, Status)>);

impl Provoked {
    fn add<T: std::fmt::Debug>(&mut self, reason: &'static str, answer: Result<T, Status>) {
        let Err(status) = answer else { panic!("{reason} was not provoked: {answer:?}") };
        self.0.push((reason, status));
    }
}

fn unreserved(id: &str, model: &str, output_tokens: i64) -> proto::RecordUsageRequest {
    proto::RecordUsageRequest {
        caller: Some(proto::record_usage_request::Caller::Team("bot".to_owned())),
        request_id: id.to_owned(),
        model: model.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", 10, output_tokens)
    }
}

async fn of_usage(provoked: &mut Provoked, channel: &Channel) {
    let mut calls = PolicyServiceClient::new(channel.clone());
    provoked.add("INVALID_REQUEST", calls.authorize(proto::AuthorizeRequest::default()).await);
    let spend = |team: &str, month: &str, page_token: &str| proto::GetSpendRequest {
        team: team.to_owned(),
        month: month.to_owned(),
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    provoked.add("UNKNOWN_TEAM", calls.get_spend(spend("none", "", "")).await);
    provoked.add("HISTORY_NOT_KEPT", calls.get_spend(spend("", "2020-01", "")).await);
    provoked.add("PAGE_TOKEN_INVALID", calls.get_spend(spend("", "", "x")).await);

    let request =
        |input| proto::AuthorizeRequest { request_id: "one".to_owned(), ..chat("bot", MODEL, input, 10) };
    let first = calls.authorize(request(10)).await.unwrap().into_inner();
    provoked.add("REQUEST_ID_REUSED", calls.authorize(request(11)).await);
    calls.record_usage(used(&first.reservation_id, 10, 10)).await.unwrap();
    provoked.add("REQUEST_ID_SPENT", calls.authorize(request(10)).await);

    let mut other = first.reservation_id.clone();
    let last = if other.ends_with('0') { "1" } else { "0" };
    other.replace_range(other.len() - 1.., last);
    provoked.add("UNKNOWN_RESERVATION", calls.record_usage(used(&other, 10, 10)).await);
    let caller = Some(proto::record_usage_request::Caller::ApiKey("a-secret-of-no-key".to_owned()));
    let of_no_key = proto::RecordUsageRequest { caller, ..unreserved("two", MODEL, 10) };
    provoked.add("INVALID_KEY", calls.record_usage(of_no_key).await);
    provoked.add("MODEL_NOT_PRICED", calls.record_usage(unreserved("three", "no/such", 10)).await);
    let mut of_tool = unreserved("four", MODEL, 10);
    let tool = proto::ToolUsage { tool: "crystal_ball.gaze".to_owned(), call_count: 1, ..Default::default() };
    of_tool.usage.as_mut().unwrap().tool_calls.push(tool);
    provoked.add("TOOL_NOT_PRICED", calls.record_usage(of_tool).await);
    provoked.add("AMOUNT_OUT_OF_RANGE", calls.record_usage(unreserved("dear", "dear/one", 90_000_000)).await);
    provoked.add("UNRESERVED_BOUND_EXCEEDED", calls.record_usage(unreserved("five", MODEL, 10_000)).await);
}

async fn of_subjects(provoked: &mut Provoked, channel: &Channel) {
    let mut keys = KeyServiceClient::new(channel.clone());
    let get = |name: String| proto::GetKeyRequest { name, ..Default::default() };
    provoked.add("UNKNOWN_KEY", keys.get_key(get("bot-prod-none".to_owned())).await);
    provoked.add("MESSAGE_TOO_LARGE", keys.get_key(get("x".repeat(64 << 10))).await);
    let page_token = "x".to_owned();
    let list = proto::ListKeysRequest { page_token: page_token.clone(), ..Default::default() };
    provoked.add("PAGE_TOKEN_INVALID", keys.list_keys(list).await);

    let mut audit = AuditServiceClient::new(channel.clone());
    let list = proto::ListAuditEventsRequest { page_token: page_token.clone(), ..Default::default() };
    provoked.add("PAGE_TOKEN_INVALID", audit.list_audit_events(list).await);

    let mut upstream = UpstreamServiceClient::new(channel.clone());
    let list = proto::ListCooldownsRequest { page_token, ..Default::default() };
    provoked.add("PAGE_TOKEN_INVALID", upstream.list_cooldowns(list).await);
    let lift = proto::LiftCooldownRequest {
        project: "default".to_owned(),
        model: MODEL.to_owned(),
        reason: "why".to_owned(),
        ..Default::default()
    };
    provoked.add("UNKNOWN_COOLDOWN", upstream.lift_cooldown(lift).await);

    let mut alerts = AlertServiceClient::new(channel.clone());
    let list = proto::ListAlertsRequest { page_token: "x".to_owned(), ..Default::default() };
    provoked.add("PAGE_TOKEN_INVALID", alerts.list_alerts(list).await);
    let name = "none".to_owned();
    provoked.add("UNKNOWN_RECEIVER", alerts.test_receiver(proto::TestReceiverRequest { name }).await);

    let mut pauses = PauseServiceClient::new(channel.clone());
    let target = proto::PauseTarget { target: Some(proto::pause_target::Target::Team("none".to_owned())) };
    let pause = proto::PauseRequest { target: Some(target), reason: "why".to_owned() };
    provoked.add("UNKNOWN_TARGET", pauses.pause(pause).await);
}

/// What the libraries refuse.
async fn of_protocol(provoked: &mut Provoked, channel: &Channel) {
    let mut health = HealthClient::new(channel.clone());
    provoked.add("UNKNOWN_SERVICE", health.check(HealthCheckRequest { service: "none".to_owned() }).await);
    // Its first field is a number, where that of `AuthorizeRequest` is text.
    let number = || Request::new(proto::ListCooldownsRequest { page_size: 1, ..Default::default() });
    let mut compressed = number();
    compressed.metadata_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    for (reason, path, request) in [
        ("INVALID_REQUEST", "/tollgate.v1.PolicyService/Authorize", number()),
        ("INVALID_REQUEST", "/envoy.service.auth.v3.Authorization/Check", number()),
        ("COMPRESSION_UNSUPPORTED", "/tollgate.v1.PolicyService/Authorize", compressed),
        ("UNKNOWN_RPC", "/tollgate.v1.PolicyService/Guess", number()),
    ] {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let codec = ProstCodec::<proto::ListCooldownsRequest, proto::ListCooldownsResponse>::default();
        provoked.add(reason, client.unary(request, PathAndQuery::from_static(path), codec).await);
        let (reason, status) = provoked.0.last().unwrap();
        // Its sender learns how to send it.
        let encodings = status.metadata().get("grpc-accept-encoding");
        assert_eq!(encodings.is_some(), *reason == "COMPRESSION_UNSUPPORTED", "{status:?}");
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<proto::AuthorizeRequest, proto::AuthorizeResponse>::default();
    let path = PathAndQuery::from_static("/tollgate.v1.PolicyService/Authorize");
    let without_message = Request::new(tokio_stream::empty());
    provoked.add("INTERNAL", client.client_streaming(without_message, path, codec).await);
}

/// What ends a stream.
async fn of_streams(provoked: &mut Provoked, channel: &Channel) {
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let none = || MessageRequest::FileContainingSymbol("no.such.Symbol".to_owned());
    for (reason, message_request) in [("UNKNOWN_SYMBOL", Some(none())), ("INVALID_REQUEST", None)] {
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let answer = reflection.server_reflection_info(tokio_stream::iter([request])).await;
        provoked.add(reason, answer.unwrap().into_inner().message().await);
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    // Its second field is text, where that of `ProcessingRequest` is a message.
    let secret_id = "xyz".to_owned();
    let text = tokio_stream::iter([proto::RevokeKeySecretRequest { secret_id, ..Default::default() }]);
    let codec = ProstCodec::<proto::RevokeKeySecretRequest, proto::RevokeKeySecretResponse>::default();
    let path = PathAndQuery::from_static("/envoy.service.ext_proc.v3.ExternalProcessor/Process");
    let answer = client.streaming(Request::new(text), path, codec).await;
    provoked.add("INVALID_REQUEST", answer.unwrap().into_inner().message().await);
    let service = "none".to_owned();
    let mut health = HealthClient::new(channel.clone());
    provoked.add("UNKNOWN_SERVICE", health.watch(HealthCheckRequest { service }).await);
}

/// What a policy with `[access]` refuses.
async fn of_access(provoked: &mut Provoked) {
    let digest = digest(GATEWAY);
    let policy = format!(
        "{POLICY}[access.tokens.edge]\nsha256 = \"{digest}\"\nroles = [\"gateway\"]\nteams = [\"bot\"]\n"
    );
    let server = Server::start(StoreKind::Embedded, &policy, START).await;
    let channel = connect(server.address()).await;
    let mut calls = PolicyServiceClient::new(channel.clone());
    let request = || chat("lab", MODEL, 10, 10);
    provoked.add("MISSING_CREDENTIAL", calls.authorize(by("", request())).await);
    provoked.add("INVALID_TOKEN", calls.authorize(by("tgs_another", request())).await);
    provoked.add("TEAM_NOT_PERMITTED", calls.authorize(by(GATEWAY, request())).await);
    let mut pauses = PauseServiceClient::new(channel);
    let list = by(GATEWAY, proto::ListPausesRequest::default());
    provoked.add("PERMISSION_MISSING", pauses.list_pauses(list).await);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_is_sent_as_the_table_has_it() {
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let channel = connect(server.address()).await;
    let mut provoked = Provoked::default();
    of_usage(&mut provoked, &channel).await;
    of_subjects(&mut provoked, &channel).await;
    of_protocol(&mut provoked, &channel).await;
    of_access(&mut provoked).await;
    of_streams(&mut provoked, &channel).await;
    for (reason, status) in &provoked.0 {
        is_of(status, reason);
    }
    let here: BTreeSet<&str> = provoked.0.iter().map(|(reason, _)| *reason).collect();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(reason, ..)| *reason).collect();
    assert!(here.is_disjoint(&elsewhere), "what is provoked here need not be elsewhere");
    let all: BTreeSet<&str> = here.union(&elsewhere).copied().collect();
    let rows = ERRORS.iter().map(|row| row.reason).collect();
    assert_eq!(all, rows, "each reason has a provocation, and each is in the table");
    assert!(server.stop().await);
}

#[test]
fn the_tests_that_provoke_other_reasons_exist() {
    for (reason, file, test) in ELSEWHERE {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let functions: BTreeMap<&str, &str> = text
            .split("fn ")
            .skip(1)
            .filter_map(|function| Some((function.split_once('(')?.0, function.split("\n}\n").next()?)))
            .collect();
        let body = functions.get(test).unwrap_or_else(|| panic!("{file} has no test `{test}`"));
        // The test itself, or a helper beside it that it calls.
        let is_called = |name: &str| body.contains(&format!("{name}("));
        let is_checked =
            functions.iter().any(|(name, of)| (name == test || is_called(name)) && checks(of, reason));
        assert!(is_checked, "`{test}` in {file} does not hold {reason} to the table");
    }
}

/// Whether a statement of `body` hands `reason` to one of [`CHECKS`].
fn checks(body: &str, reason: &str) -> bool {
    body.match_indices(&format!("\"{reason}\"")).any(|(at, _)| {
        let statement = body[..at].rsplit(';').next().unwrap_or_default();
        CHECKS.iter().any(|check| statement.contains(check))
    })
}

#[test]
fn the_table_has_each_reason_once_with_the_detail_of_its_status() {
    let reasons: BTreeSet<_> = ERRORS.iter().map(|row| row.reason).collect();
    assert_eq!(reasons.len(), ERRORS.len());
    for row in ERRORS {
        assert_eq!(row.detail, detail_of(row.code).unwrap_or_default(), "{}", row.reason);
        assert_eq!(row.metadata.contains(&"effect"), row.code == Code::Unavailable, "{}", row.reason);
    }
}
