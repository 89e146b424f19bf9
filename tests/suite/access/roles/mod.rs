//! Each role before each RPC, with a team of its own and another one.

mod asking;
mod every_rpc;

use prost::Message as _;
use prost_types::value::Kind;
use tollgate::rpc::{
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue, Metadata},
        service::{
            auth::v3::CheckResponse,
            ext_proc::v3::{HttpHeaders, ProcessingRequest, processing_request},
        },
    },
    proto::{
        self, audit_service_client::AuditServiceClient, key_service_client::KeyServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use tonic::Code;

use self::asking::{admitted, ask, checked, create, process, reserve};
use super::{by, digest, reason};
use crate::harness::{START, Server, StoreKind, chat, connect, eventually, json_of, used};

const MODEL: &str = "openai/gpt-oss-20b";

/// A team that the callers of [`CALLERS`] may be bound to, and another one.
fn policy() -> String {
    let mut text = "[organization]\nid = \"acme\"\n\
                    [teams.own]\nmodels = [\"*\"]\nmax_output_tokens = 99\nbudget = { monthly_usd = \"9\" }\n\
                    [teams.other]\nmodels = [\"*\"]\nmax_output_tokens = 99\nbudget = { monthly_usd = \"9\" }\n\
                    [envoy]\ncallers = [\"header\"]\nteam_header = \"x-team\"\n"
        .to_owned();
    for key in ["own", "other"] {
        text += &format!("[teams.{key}.keys.{key}-key]\nsha256 = \"{}\"\n", digest(&format!("tgk_{key}")));
    }
    for (name, roles, bound, _) in CALLERS {
        let teams = if bound { "teams = [\"own\"]\n" } else { "" };
        let digest = digest(&secret(name));
        text += &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [{roles}]\n{teams}");
    }
    text
}

fn secret(name: &str) -> String {
    format!("tgs_secret_of_{name}")
}

/// Callers: a name, roles, whether bound to the team `own`, and what is permitted in the order of [`QUESTIONS`].
const CALLERS: [(&str, &str, bool, &str); 12] = [
    (
        "admin",
        "\"admin\"",
        false,
        "yy yy yy yyy yyy yyy yyy yyy yyy yy y y y y yy yy yyy yy yy yy yy yyy yy yyy y y y yyy yy yy yy y",
    ),
    (
        "operator",
        "\"operator\"",
        false,
        "-- -- -- --- --- --- --- yyy --- -- - y y - -- yy yyy -- yy yy yy yyy yy yyy y y y yyy yy yy yy y",
    ),
    (
        "auditor",
        "\"auditor\"",
        false,
        "-- -- -- yyy yyy yyy yyy yyy yyy -- - y y y -- yy yyy -- -- -- -- --y y- yyy y - - yyy yy -- yy y",
    ),
    (
        "viewer",
        "\"viewer\"",
        false,
        "-- -- -- yyy yyy yyy yyy yyy yyy -- - y - - -- -- --- -- -- -- -- --- -- yyy y - - --- yy -- -- y",
    ),
    (
        "bound-viewer",
        "\"viewer\"",
        true,
        "-- -- -- y-o y-o y-y y-o y-y y-o -- - y - - -- -- --- -- -- -- -- --- -- y-o y - - --- y- -- -- y",
    ),
    (
        "monitor",
        "\"monitor\"",
        false,
        "-- -- -- --- --- --- --- --- --- -- - y - - -- -- --- -- -- -- -- --- -- --- - - - --- -- -- yy y",
    ),
    (
        "gateway",
        "\"gateway\"",
        false,
        "yy yy yy --- --- --- --- --- --- yy y y - - -- -- --- -- -- -- -- --- -- --- - - - --- -- -- -- y",
    ),
    (
        "bound-gateway",
        "\"gateway\"",
        true,
        "y- y- y- --- --- --- --- --- --- y- y y - - -- -- --- -- -- -- -- --- -- --- - - - --- -- -- -- y",
    ),
    (
        "team-admin",
        "\"team-admin\"",
        true,
        "-- -- -- y-o y-o y-y y-o y-y y-o -- - y - - y- y- y-o y- y- y- y- --- -- y-o y - - --- y- -- -- y",
    ),
    (
        "both",
        "\"gateway\", \"viewer\"",
        true,
        "y- y- y- y-o y-o y-y y-o y-y y-o y- y y - - -- -- --- -- -- -- -- --- -- y-o y - - --- y- -- -- y",
    ),
    (
        "nothing",
        "",
        false,
        "-- -- -- --- --- --- --- --- --- -- - y - - -- -- --- -- -- -- -- --- -- --- - - - --- -- -- -- y",
    ),
    (
        "of-nobody",
        "\"gateway\", \"viewer\"",
        true,
        "y- y- y- y-o y-o y-y y-o y-y y-o y- y y - - -- -- --- -- -- -- -- --- -- y-o y - - --- y- -- -- y",
    ),
];

/// What is asked: an RPC, and about which team; the same order as in [`CALLERS`].
const QUESTIONS: [(&str, &str); 66] = [
    ("Authorize", "own"),
    ("Authorize", "other"),
    ("Authorize by key", "own"),
    ("Authorize by key", "other"),
    ("RecordUsage", "own"),
    ("RecordUsage", "other"),
    ("GetSpend", "own"),
    ("GetSpend", "other"),
    ("GetSpend", ""),
    ("QueryUsage", "own"),
    ("QueryUsage", "other"),
    ("QueryUsage", ""),
    ("QueryDenials", "own"),
    ("QueryDenials", "other"),
    ("QueryDenials", ""),
    ("ListLimits", "own"),
    ("ListLimits", "other"),
    ("ListLimits", ""),
    ("StreamDecisions", "own"),
    ("StreamDecisions", "other"),
    ("StreamDecisions", ""),
    ("ListBudgets", "own"),
    ("ListBudgets", "other"),
    ("ListBudgets", ""),
    ("Check", "own"),
    ("Check", "other"),
    ("Process", ""),
    ("Reflection", ""),
    ("ListUpstreamKeys", ""),
    ("ListAuditEvents", ""),
    ("CreateKey", "own"),
    ("CreateKey", "other"),
    ("GetKey", "own"),
    ("GetKey", "other"),
    ("ListKeys", "own"),
    ("ListKeys", "other"),
    ("ListKeys", ""),
    ("UpdateKey", "own"),
    ("UpdateKey", "other"),
    ("RotateKey", "own"),
    ("RotateKey", "other"),
    ("RevokeKey", "own"),
    ("RevokeKey", "other"),
    ("RevokeKeySecret", "own"),
    ("RevokeKeySecret", "other"),
    ("Pause", ""),
    ("Resume", ""),
    ("ListPauses", ""),
    ("ListCooldowns", ""),
    ("LiftCooldown", ""),
    ("ListAlerts", "own"),
    ("ListAlerts", "other"),
    ("ListAlerts", ""),
    ("ListReceivers", ""),
    ("TestReceiver", ""),
    ("ReportDrift", ""),
    ("GetPolicy", ""),
    ("ListPolicyRevisions", ""),
    ("GetPolicyRevision", ""),
    ("DescribeTeam", "own"),
    ("DescribeTeam", "other"),
    ("CheckPolicy", ""),
    ("ReplayPolicy", ""),
    ("GetStatus", ""),
    ("ListReplicas", ""),
    ("ListOrganizations", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_ask_what_it_is_for_and_nothing_else() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let channel = connect(server.address()).await;
    for (name, _, _, expected) in CALLERS {
        let expected: Vec<char> = expected.chars().filter(|c| *c != ' ').collect();
        assert_eq!(expected.len(), QUESTIONS.len());
        for ((rpc, team), expected) in QUESTIONS.into_iter().zip(expected) {
            let answer = ask(&channel, &secret(name), rpc, team).await;
            match (&answer, expected) {
                (Ok('y'), 'y') | (Ok('o'), 'o') => {}
                (Err(status), '-') if rpc == "Check" && status.details().is_empty() => {
                    assert_eq!(status.code(), Code::PermissionDenied);
                }
                (Err(status), '-') => {
                    let (code, reason) = reason(status);
                    let expected = ["PERMISSION_MISSING", "TEAM_NOT_PERMITTED"];
                    assert_eq!(code, Code::PermissionDenied, "{name} {rpc} {team}");
                    assert!(expected.contains(&reason.as_str()), "{name} {rpc} {team}: {reason}");
                    assert!(!status.message().contains("tgs_"), "{status:?}");
                }
                _ => panic!("{name} asks {rpc} of `{team}`: {answer:?}, expected {expected}"),
            }
        }
    }
    // Nobody, and somebody who is not known, hear nothing but that.
    for (rpc, team) in QUESTIONS {
        for (token, expected) in [("", "MISSING_CREDENTIAL"), ("tgs_unknown", "INVALID_TOKEN")] {
            if rpc == "RecordUsage" {
                continue;
            }
            let status = ask(&channel, token, rpc, team).await.unwrap_err();
            assert_eq!(reason(&status), (Code::Unauthenticated, expected.to_owned()), "{rpc}");
        }
    }
    // Orchestrators ask without a token.
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_reservation_out_of_reach_nothing_is_told() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let channel = connect(server.address()).await;
    let mut client = PolicyServiceClient::new(channel.clone());
    let there = reserve(&mut client, "other").await;
    let mut told = Vec::new();
    for id in [there.as_str(), "01000000000000000000000000000000"] {
        let status = client.record_usage(by(&secret("bound-gateway"), used(id, 1, 1))).await.unwrap_err();
        told.push((reason(&status), status.message().to_owned()));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0, (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()));
    // Usage of another team that has no reservation is not booked either.
    let report = proto::RecordUsageRequest {
        caller: Some(proto::record_usage_request::Caller::Team("other".to_owned())),
        request_id: "r".to_owned(),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", 1, 1)
    };
    let status = client.record_usage(by(&secret("bound-gateway"), report)).await.unwrap_err();
    assert_eq!(reason(&status).1, "TEAM_NOT_PERMITTED");
    // A key that is nobody's is no secret: it is denied like by any gateway.
    let mut request = chat("", MODEL, 10, 10);
    request.caller = Some(proto::authorize_request::Caller::ApiKey("tgk_unknown".to_owned()));
    let answer = client.authorize(by(&secret("bound-gateway"), request)).await.unwrap().into_inner();
    assert_eq!(answer.violations[0].reason(), proto::Reason::InvalidKey);
    assert!(server.stop().await);
}

/// What ext_authz told of a request, as Envoy would pass it on, and an answer of Groq that ends it.
fn exchange(admitted: &CheckResponse, team: &str) -> Vec<ProcessingRequest> {
    let mut told = admitted.dynamic_metadata.clone().expect("metadata");
    for value in told.fields.values_mut() {
        if let Some(Kind::StringValue(text)) = &mut value.kind {
            let mut fields: serde_json::Value = serde_json::from_str(text).expect("JSON");
            fields["team"] = team.into();
            *text = fields.to_string();
        }
    }
    let metadata = Metadata { filter_metadata: [("envoy.filters.http.ext_authz".to_owned(), told)].into() };
    let status = HeaderValue { key: ":status".into(), raw_value: "500".into(), ..HeaderValue::default() };
    let headers = HttpHeaders { headers: Some(HeaderMap { headers: vec![status] }), end_of_stream: true };
    vec![ProcessingRequest {
        request: Some(processing_request::Request::ResponseHeaders(headers)),
        metadata_context: metadata.encode_to_vec().into(),
        ..ProcessingRequest::default()
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_settles_nothing_of_a_team_that_is_not_its_own() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let channel = connect(server.address()).await;
    let (admin, proxy) = (secret("admin"), secret("bound-gateway"));
    let open = async |team: &str| {
        let mut client = PolicyServiceClient::new(channel.clone());
        let request = proto::GetSpendRequest { team: team.to_owned(), ..Default::default() };
        let answer = client.get_spend(by(&admin, request)).await.unwrap().into_inner();
        answer.teams[0].unsettled_requests
    };
    let own = admitted(checked(&channel, &admin, "own", "process").await.unwrap()).unwrap();
    let other = admitted(checked(&channel, &admin, "other", "process").await.unwrap()).unwrap();
    // Also where it says that the reservation is of its own team.
    let endless = "x".repeat(2 << 20);
    for (admitted, team) in [(&other, "other"), (&other, "own"), (&other, &*endless), (&own, "own")] {
        process(&channel, &proxy, exchange(admitted, team)).await.unwrap();
    }
    eventually("its own is settled", async || open("own").await == 0).await;
    assert_eq!(open("other").await, 1);
    // All are recorded: the one by the team that was told; the one by a reservation and the one by no name without.
    let refused = async || {
        let request =
            proto::ListAuditEventsRequest { action: "role.denied".to_owned(), ..Default::default() };
        let mut log = AuditServiceClient::new(channel.clone());
        let events = log.list_audit_events(by(&admin, request)).await.unwrap().into_inner().events;
        let told = |event: proto::AuditEvent| {
            (event.actor.unwrap().name, event.subject, json_of(event.after.as_ref()).to_string())
        };
        let mut told: Vec<_> = events.into_iter().map(told).collect();
        told.sort();
        told
    };
    eventually("all refusals are recorded", async || refused().await.len() == 3).await;
    let of = |after: &str| {
        let rpc = "envoy.service.ext_proc.v3.ExternalProcessor/Process";
        ("bound-gateway".to_owned(), rpc.to_owned(), after.to_owned())
    };
    assert_eq!(refused().await, ["null", "null", r#"{"team":"other"}"#].map(of));
    process(&channel, &admin, exchange(&other, "other")).await.unwrap();
    eventually("the other is settled", async || open("other").await == 0).await;
    assert!(server.stop().await);
}

/// Of a key out of reach nothing is told: one that exists and one that does not are refused alike.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_key_out_of_reach_nothing_is_told() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut client = KeyServiceClient::new(connect(server.address()).await);
    let name = create(&mut client, "other").await;
    let token = secret("team-admin");
    let mut refused = Vec::new();
    for name in [name.as_str(), "other-test-none"] {
        let request = proto::GetKeyRequest { name: name.to_owned(), ..Default::default() };
        let status = client.get_key(by(&token, request)).await.unwrap_err();
        refused.push((status.code(), status.message().to_owned()));
    }
    assert_eq!(refused[0], refused[1]);
    assert_eq!(refused[0].0, Code::PermissionDenied);
    assert!(server.stop().await);
}
