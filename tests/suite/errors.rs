//! Each reason of the table of errors is sent as the table has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use tollgate::rpc::{
    ERROR_DOMAIN, ERRORS, ErrorRow,
    proto::{
        self, audit_service_client::AuditServiceClient, key_service_client::KeyServiceClient,
        pause_service_client::PauseServiceClient, policy_service_client::PolicyServiceClient,
        upstream_service_client::UpstreamServiceClient,
    },
};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    access::{by, digest},
    harness::{START, Server, StoreKind, chat, connect, used},
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
"#;

/// Reasons that other tests provoke: the file of each, and its name. The file has the reason in words.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("UNKNOWN_SECRET", "tests/suite/keys/secrets.rs", "what_is_in_use_ends_only_by_force"),
    ("KEY_EXISTS", "tests/suite/keys/secrets.rs", "a_revoked_key_is_refused_for_ever"),
    ("KEY_REVOKED", "tests/suite/keys/secrets.rs", "a_revoked_key_is_refused_for_ever"),
    ("SECRET_IN_USE", "tests/suite/keys/secrets.rs", "what_is_in_use_ends_only_by_force"),
    ("ONLY_SECRET", "tests/suite/keys/secrets.rs", "what_is_in_use_ends_only_by_force"),
    ("KEY_CHANGED", "tests/suite/keys/mod.rs", "only_the_version_that_was_read_is_changed"),
    ("TOKEN_EXPIRED", "tests/suite/access/provider.rs", "groups_of_a_real_provider_become_roles"),
    ("UNKNOWN_CERTIFICATE", "src/rpc/access/refusal.rs", "a_refusal_has_one_reason_wherever_it_is_told"),
    ("ACCESS_NOT_CONFIGURED", "src/rpc/access/refusal.rs", "a_refusal_has_one_reason_wherever_it_is_told"),
    (
        "ISSUER_UNAVAILABLE",
        "tests/suite/access/tokens.rs",
        "while_an_issuer_does_not_answer_known_keys_go_on_and_others_are_refused_soon",
    ),
    ("TOO_MANY_KEYS", "src/rpc/status.rs", "rare_errors_have_their_reasons_and_effects"),
    ("TOO_MANY_PAUSES", "src/rpc/status.rs", "rare_errors_have_their_reasons_and_effects"),
    ("PAUSE_CHANGED", "src/rpc/status.rs", "rare_errors_have_their_reasons_and_effects"),
    ("INTERNAL", "src/rpc/status.rs", "rare_errors_have_their_reasons_and_effects"),
    ("OVERLOADED", "src/rpc/status.rs", "rare_errors_have_their_reasons_and_effects"),
    ("AMOUNT_OUT_OF_RANGE", "src/rpc/status.rs", "rare_errors_have_their_reasons_and_effects"),
    ("STORE_UNAVAILABLE", "tests/suite/crash/outage.rs", "an_outage_of_redis_is_answered_in_time_and_passes"),
    ("SNAPSHOT_STALE", "tests/suite/snapshot.rs", "a_key_given_to_another_team_ends_the_wait_of_its_request"),
    ("LAYOUT_UNSUPPORTED", "tests/suite/layouts/mod.rs", "a_layout_that_is_raised_stops_a_running_process"),
    ("DEADLINE_EXCEEDED", "tests/suite/answers.rs", "the_timeout_of_a_caller_is_kept_and_holds_nothing"),
];

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
    }
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

fn beside(details: &ErrorDetails) -> Vec<&'static str> {
    [
        ("BadRequest", details.bad_request().is_some()),
        ("ResourceInfo", details.resource_info().is_some()),
        ("PreconditionFailure", details.precondition_failure().is_some()),
        ("QuotaFailure", details.quota_failure().is_some()),
        ("RetryInfo", details.retry_info().is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| is_there.then_some(name))
    .collect()
}

/// Whether the status is as its row.
fn is_of(row: &ErrorRow, status: &Status) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(
        (status.code(), &*info.reason, &*info.domain),
        (row.code, row.reason, ERROR_DOMAIN),
        "{status:?}"
    );
    let expected: Vec<_> = [row.detail].into_iter().filter(|detail| !detail.is_empty()).collect();
    assert_eq!(beside(&details), expected, "{status:?}");
    let told: BTreeSet<&str> = info.metadata.keys().map(String::as_str).collect();
    assert_eq!(told, row.metadata.iter().copied().collect(), "{status:?}");
    for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
        assert!(!violation.description.is_empty(), "{status:?}");
    }
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
    let rows: BTreeMap<_, _> = ERRORS.iter().map(|row| (row.reason, row)).collect();
    for (reason, status) in &provoked.0 {
        is_of(rows[reason], status);
    }
    let here: BTreeSet<&str> = provoked.0.iter().map(|(reason, _)| *reason).collect();
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(reason, ..)| *reason).collect();
    assert!(here.is_disjoint(&elsewhere), "what is provoked here need not be elsewhere");
    let all: BTreeSet<&str> = here.union(&elsewhere).copied().collect();
    assert_eq!(
        all,
        rows.keys().copied().collect(),
        "each reason has a provocation, and each is in the table"
    );
    assert!(server.stop().await);
}

#[test]
fn the_tests_that_provoke_other_reasons_exist() {
    for (reason, file, test) in ELSEWHERE {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "{file} has no test `{test}`");
        assert!(text.contains(&format!("\"{reason}\"")), "{file} does not expect {reason}");
    }
}

#[test]
fn the_table_has_each_reason_once_with_the_detail_of_its_status() {
    let reasons: BTreeSet<_> = ERRORS.iter().map(|row| row.reason).collect();
    assert_eq!(reasons.len(), ERRORS.len());
    for row in ERRORS {
        let detail = match row.code {
            Code::InvalidArgument => "BadRequest",
            Code::NotFound | Code::AlreadyExists | Code::Aborted => "ResourceInfo",
            Code::FailedPrecondition => "PreconditionFailure",
            Code::ResourceExhausted => "QuotaFailure",
            Code::Unavailable => "RetryInfo",
            _ => "",
        };
        assert_eq!(row.detail, detail, "{}", row.reason);
        assert_eq!(row.metadata.contains(&"effect"), row.code == Code::Unavailable, "{}", row.reason);
    }
}
