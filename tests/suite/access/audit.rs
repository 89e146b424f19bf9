//! The audit log and the decision log of the real process.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::{
    envoy::service::auth::v3::authorization_client::AuthorizationClient,
    proto::{
        AuditEvent, GetKeyRequest, GetSpendRequest, ListAuditEventsRequest, ListKeysRequest,
        ListUpstreamKeysRequest, RevokeKeyRequest, RotateKeyRequest,
        audit_service_client::AuditServiceClient, authorize_request::Caller,
        key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
        upstream_service_client::UpstreamServiceClient,
    },
};
use tonic::{Code, transport::Channel};

use super::{
    by, digest,
    issuer::{Issuer, SigningKey},
    reason,
};
use crate::{
    envoy::checks::check,
    harness::{Process, chat, connect, eventually, json_of, new_key, used},
};

const AUDITOR: &str = "tgs_secret_of_the_auditor";
const ADMIN: &str = "tgs_secret_of_the_admin";
const GATEWAY: &str = "tgs_secret_of_the_gateway";
const LEAD: &str = "tgs_secret_of_the_lead";
const MODEL: &str = "openai/gpt-oss-20b";

fn policy(issuer: &str, rate: u32) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.own]\nmodels = [\"*\"]\nmax_output_tokens = 9\nrequests_per_minute = {rate}\n\
         [teams.other]\nmodels = [\"*\"]\nmax_output_tokens = 9\n\
         [access.tokens.auditor]\nsha256 = \"{}\"\nroles = [\"auditor\"]\n\
         [access.tokens.admin]\nsha256 = \"{}\"\nroles = [\"admin\"]\n\
         [access.tokens.edge]\nsha256 = \"{}\"\nroles = [\"gateway\"]\nteams = [\"own\"]\n\
         [[access.oidc]]\nissuer = \"{issuer}\"\naudience = \"tollgate\"\nclaim = \"groups\"\n\
         [access.oidc.map.staff]\nroles = [\"viewer\"]\n",
        digest(AUDITOR),
        digest(ADMIN),
        digest(GATEWAY),
    )
}

async fn list(channel: &Channel, request: ListAuditEventsRequest) -> (Vec<AuditEvent>, String) {
    let answer = AuditServiceClient::new(channel.clone()).list_audit_events(by(AUDITOR, request)).await;
    let answer = answer.unwrap().into_inner();
    (answer.events, answer.next_page_token)
}

async fn start(directory: &TempDir, text: &str) -> (Process, Channel) {
    let store = format!("--store=embedded:{}", directory.path().join("data").display());
    let arguments = [&store, "--admin-enabled=false", "--decision-log-denials", "--decision-log-allowed=50%"];
    let process = Process::start_arguments(directory.path(), text, &arguments).await;
    let channel = connect(process.address()).await;
    (process, channel)
}

fn lines(directory: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(directory.join("data/audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_refusals_are_recorded_once_and_can_be_read() {
    let directory = TempDir::new().unwrap();
    let key = SigningKey::new(Algorithm::ES256, "k");
    let issuer = Issuer::start(&[&key]).await;
    let (process, channel) = start(&directory, &policy(issuer.url(), 5)).await;
    // Refusals: a role that is lacking, a team out of reach, and a token of a provider, twice as it is known the second time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let staff = issuer.token(&key, &["staff"], now, |_| {});
    let mut client = PolicyServiceClient::new(channel.clone());
    let mut upstream = UpstreamServiceClient::new(channel.clone());
    client.get_spend(by(GATEWAY, GetSpendRequest::default())).await.unwrap_err();
    client.authorize(by(GATEWAY, chat("other", MODEL, 1, 1))).await.unwrap_err();
    for _ in 0..2 {
        upstream.list_upstream_keys(by(&staff, ListUpstreamKeysRequest {})).await.unwrap_err();
    }
    // Of nobody, and of what is permitted, nothing is recorded.
    client.get_spend(by("tgs_secret_of_nobody", GetSpendRequest::default())).await.unwrap_err();
    client.get_spend(by(AUDITOR, GetSpendRequest::default())).await.unwrap();
    // A policy that does not load, then one that does.
    let file = directory.path().join("policy.toml");
    std::fs::write(&file, policy(issuer.url(), 5).replace("id = ", "idd = ")).unwrap();
    let count = async || lines(directory.path()).len();
    eventually("the rejection is recorded", async || count().await == 5).await;
    std::fs::write(&file, policy(issuer.url(), 2)).unwrap();
    eventually("the reload is recorded", async || count().await == 6).await;
    // The store is a sink of its own, written beside the file.
    let stored = async || list(&channel, ListAuditEventsRequest::default()).await.0.len();
    eventually("the store has all", async || stored().await == 6).await;
    let mut events = Vec::new();
    let mut request = ListAuditEventsRequest { page_size: 4, ..Default::default() };
    loop {
        let (page, next) = list(&channel, request.clone()).await;
        events.extend(page);
        if next.is_empty() {
            break;
        }
        request.page_token = next;
    }
    events.reverse();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let actor = event.actor.clone().unwrap();
            format!("{} {} {} {}", event.action, actor.kind().as_str_name(), actor.name, event.outcome)
        })
        .collect();
    let of_somebody = format!("role.denied ACTOR_KIND_OIDC {}#somebody PERMISSION_MISSING", issuer.url());
    let expected = [
        "role.denied ACTOR_KIND_SERVICE_TOKEN edge PERMISSION_MISSING",
        "role.denied ACTOR_KIND_SERVICE_TOKEN edge TEAM_NOT_PERMITTED",
        &*of_somebody,
        &*of_somebody,
        "policy.rejected ACTOR_KIND_SYSTEM changed file rejected",
        "policy.reload ACTOR_KIND_SYSTEM changed file done",
    ];
    assert_eq!(told, expected);
    assert_eq!(events[0].subject, "tollgate.v1.PolicyService/GetSpend");
    assert_eq!(events[0].actor.as_ref().unwrap().address, "127.0.0.1");
    let after = json_of(events[5].after.as_ref());
    assert_eq!(after["changes"], json!([{"path": "teams.own.requests_per_minute", "before": 5, "after": 2}]));
    let rejected = json_of(events[4].after.as_ref()).to_string();
    assert!(rejected.contains("idd"), "{rejected}");
    assert!(events.iter().all(|event| event.organization == "acme" && event.replica == events[0].replica));
    let random = events[0].replica.rsplit(':').next().unwrap();
    assert!(random.len() == 8 && random.bytes().all(|b| b.is_ascii_hexdigit()), "{}", events[0].replica);
    let until_time = events[4].time;
    let of_edge = ListAuditEventsRequest { actor_name: "edge".to_owned(), until_time, ..Default::default() };
    let of_edge = list(&channel, of_edge).await.0;
    assert_eq!(
        of_edge.iter().rev().map(|event| &event.id).collect::<Vec<_>>(),
        [&events[0].id, &events[1].id]
    );
    let filtered = ListAuditEventsRequest {
        action: "role.denied".to_owned(),
        subject_prefix: "tollgate.v1.UpstreamService/".to_owned(),
        ..Default::default()
    };
    assert_eq!(list(&channel, filtered).await.0.len(), 2);
    assert_eq!(
        list(&channel, ListAuditEventsRequest { page_size: 1_001, ..Default::default() }).await.0.len(),
        6
    );
    let first = list(&channel, ListAuditEventsRequest { page_size: 4, ..Default::default() }).await.1;
    let other = ListAuditEventsRequest { actor_name: "edge".to_owned(), ..Default::default() };
    for (request, expected) in [
        (ListAuditEventsRequest { action: "unknown".to_owned(), ..Default::default() }, "INVALID_REQUEST"),
        (ListAuditEventsRequest { page_token: "x".to_owned(), ..Default::default() }, "PAGE_TOKEN_INVALID"),
        (ListAuditEventsRequest { page_token: first.clone(), ..other }, "PAGE_TOKEN_INVALID"),
        (ListAuditEventsRequest { page_size: -1, ..Default::default() }, "INVALID_REQUEST"),
    ] {
        let mut log = AuditServiceClient::new(channel.clone());
        let status = log.list_audit_events(by(AUDITOR, request)).await.unwrap_err();
        assert_eq!(reason(&status), (Code::InvalidArgument, expected.to_owned()));
    }
    let shown = tokio::task::block_in_place(|| {
        let address = process.address().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args([
            "audit",
            "list",
            "--address",
            &address,
            "--limit",
            "2",
            "--since",
            "1h",
            "--actor",
            "changed file",
        ]);
        command.env("TOLLGATE_TOKEN", AUDITOR).output().unwrap()
    });
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().count() == 3 && shown.contains("policy.reload"), "{shown}");
    // A restart appends.
    process.stop().await;
    let (process, channel) = start(&directory, &policy(issuer.url(), 2)).await;
    PolicyServiceClient::new(channel.clone())
        .get_spend(by(GATEWAY, GetSpendRequest::default()))
        .await
        .unwrap_err();
    process.stop().await;
    assert_eq!(lines(directory.path()).len(), 7);
    let path = directory.path().join("data/audit.jsonl");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in ["tgs_", staff.as_str(), &digest(AUDITOR), &digest(GATEWAY)] {
        assert!(!text.contains(secret), "`{secret}` is in the audit log:\n{text}");
    }
}

/// What was asked for is recorded as it was named. The caller hears the same in all cases: whether there is such a team or
/// key is not told.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_team_or_the_key_that_was_asked_for() {
    let directory = TempDir::new().unwrap();
    let text = policy("https://login.example", 5)
        + &format!("[teams.other.keys.other-key]\nsha256 = \"{}\"\n", digest("tgk_of_the_other"))
        + &format!("[access.tokens.lead]\nsha256 = \"{}\"\n", digest(LEAD))
        + "roles = [\"team-admin\"]\nteams = [\"own\", \"third\"]\n[teams.third]\nmodels = [\"*\"]\n\
           [envoy]\ncallers = [\"header\"]\nteam_header = \"x-team\"\n";
    let (process, channel) = start(&directory, &text).await;
    let mut calls = PolicyServiceClient::new(channel.clone());
    let mut keys = KeyServiceClient::new(channel.clone());
    let mut checks = AuthorizationClient::new(channel);
    keys.create_key(by(ADMIN, new_key("other-test-made", "other"))).await.unwrap();
    let mut by_key = chat("", MODEL, 1, 1);
    by_key.caller = Some(Caller::ApiKey("tgk_of_the_other".to_owned()));
    let spend = GetSpendRequest { team: "nowhere \"\u{e9}\"".to_owned(), ..Default::default() };
    let list = |team: &str| ListKeysRequest { team: team.to_owned(), ..Default::default() };
    let get = |name: &str| GetKeyRequest { name: name.to_owned(), ..Default::default() };
    let rotate = RotateKeyRequest { name: "other-test-made".to_owned(), ..Default::default() };
    let report = used("01000000000000000000000000000000", 1, 1);
    let refused = [
        (calls.authorize(by(GATEWAY, chat("other", MODEL, 1, 1))).await.err(), json!({"team": "other"})),
        (calls.authorize(by(GATEWAY, by_key)).await.err(), json!({"team": "other"})),
        (calls.record_usage(by(GATEWAY, report)).await.err(), Value::Null),
        (calls.get_spend(by(LEAD, spend)).await.err(), json!({"team": "nowhere \"\u{e9}\""})),
        (keys.create_key(by(LEAD, new_key("k", "other"))).await.err(), json!({"team": "other"})),
        (keys.list_keys(by(LEAD, list("other"))).await.err(), json!({"team": "other"})),
        (keys.list_keys(by(LEAD, list(""))).await.err(), Value::Null),
        (keys.get_key(by(LEAD, get("other-test-made"))).await.err(), json!({"key": "other-test-made"})),
        (keys.get_key(by(LEAD, get("other-test-none"))).await.err(), json!({"key": "other-test-none"})),
        (keys.rotate_key(by(LEAD, rotate)).await.err(), json!({"key": "other-test-made"})),
    ];
    let mut expected = Vec::new();
    for (status, after) in refused {
        let status = status.expect("refused");
        assert_eq!(reason(&status), (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()));
        let told = format!("{status:?} {:?}", status.metadata().clone().into_headers());
        for word in ["other", "nowhere"] {
            assert!(!told.contains(word), "{told}");
        }
        expected.push(after);
    }
    // Envoy is answered, in its own protocol.
    let request = check("id", &[("x-team", "other")], &json!({}));
    let answer = checks.check(by(GATEWAY, request)).await.unwrap().into_inner();
    assert!(answer.status.is_some_and(|status| status.code == Code::PermissionDenied as i32));
    expected.push(json!({"team": "other"}));
    process.stop().await;
    let recorded = lines(directory.path());
    let refused = recorded.iter().filter(|event| event["outcome"] == "TEAM_NOT_PERMITTED");
    assert_eq!(refused.map(|event| event["after"].clone()).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_logged_with_reasons_and_without_secrets() {
    let directory = TempDir::new().unwrap();
    let text = policy("https://login.example", 4)
        + &format!("[teams.own.keys.own-key]\nsha256 = \"{}\"\n", digest("tgk_of_own"))
        + "labels = { env = \"prod\", cost_center = \"7\" }\n";
    let (process, channel) = start(&directory, &text).await;
    let mut client = PolicyServiceClient::new(channel);
    let mut taken = 0;
    for _ in 0..6 {
        let mut request = chat("", MODEL, 1, 1);
        request.caller = Some(Caller::ApiKey("tgk_of_own".to_owned()));
        request.labels.insert("env".to_owned(), "test".to_owned());
        let answer = client.authorize(by(GATEWAY, request)).await.unwrap().into_inner();
        assert_eq!(answer.violations.is_empty(), !answer.reservation_id.is_empty());
        // Half of all ids.
        let last = answer.reservation_id.get(16..).map(|bits| u64::from_str_radix(bits, 16).unwrap());
        taken += usize::from(last.is_some_and(|bits| bits < 1 << 63));
    }
    eventually("all is logged", async || process.log().matches("request denied").count() == 2).await;
    let log = process.log();
    let denied = log.lines().find(|line| line.contains("request denied")).unwrap();
    for words in [
        "INFO",
        "own",
        MODEL,
        "reason=\"request_rate_exceeded\"",
        "scope=\"team\"",
        "quantity=\"requests\"",
        "operation=chat_completion",
        "teams.own.requests_per_minute",
        "limit=4",
        "used=4",
        "labels={\"cost_center\": \"7\", \"env\": \"test\"}",
    ] {
        assert!(denied.contains(words), "{words}: {denied}");
    }
    let allowed: Vec<_> = log.lines().filter(|line| line.contains("request allowed")).collect();
    assert_eq!(allowed.len(), taken, "{log}");
    for line in allowed {
        assert!(line.contains("labels={\"cost_center\": \"7\", \"env\": \"test\"}"), "{line}");
    }
    assert!(!log.contains("tgs_"), "{log}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_keys_are_recorded_without_their_secrets() {
    let directory = TempDir::new().unwrap();
    let issuer = Issuer::start(&[&SigningKey::new(Algorithm::ES256, "k")]).await;
    let (process, channel) = start(&directory, &policy(issuer.url(), 5)).await;
    let mut keys = KeyServiceClient::new(channel.clone());
    let name = "own-test-audit".to_owned();
    let created = keys.create_key(by(ADMIN, new_key(&name, "own"))).await.unwrap().into_inner();
    let rotate = RotateKeyRequest { name: name.clone(), ..Default::default() };
    let rotated = keys.rotate_key(by(ADMIN, rotate)).await.unwrap().into_inner();
    let revoke = RevokeKeyRequest { name: name.clone() };
    // The second time nothing is changed, and nothing recorded.
    for _ in 0..2 {
        keys.revoke_key(by(ADMIN, revoke.clone())).await.unwrap();
    }
    let request = ListAuditEventsRequest { subject_prefix: name.clone(), ..Default::default() };
    eventually("the changes are recorded", async || list(&channel, request.clone()).await.0.len() == 3).await;
    let (events, _) = list(&channel, request).await;
    let told: Vec<_> = events
        .iter()
        .map(|event| (&*event.action, &*event.subject, &*event.actor.as_ref().unwrap().name, &*event.outcome))
        .collect();
    let expected = ["key.revoke", "key.rotate", "key.create"].map(|action| (action, &*name, "admin", "done"));
    assert_eq!(told, expected);
    let (before, after) = (json_of(events[1].before.as_ref()), json_of(events[1].after.as_ref()));
    let secrets = |key: &Value| key["secrets"].as_array().unwrap().len();
    assert_eq!((secrets(&before), secrets(&after)), (1, 2));
    assert_eq!(before["team"], "own");
    assert!(json_of(events[0].before.as_ref()).get("revoke_time").is_none());
    assert!(json_of(events[0].after.as_ref()).get("revoke_time").is_some());
    process.stop().await;
    let text = std::fs::read_to_string(directory.path().join("data/audit.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 3);
    for secret in [&created.secret, &rotated.secret] {
        assert!(!text.contains(&**secret), "a secret is in the audit log");
    }
    assert!(!text.contains("\"hash\""), "{text}");
}
