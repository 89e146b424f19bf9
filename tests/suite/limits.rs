//! Limits as `ListLimits` and `tollgate limits` show them: as `Authorize` does, without a decision.

use std::process::Command;

use tollgate::rpc::proto::{
    self, LimitStatus, ListLimitsRequest, key_service_client::KeyServiceClient,
    report_service_client::ReportServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    access::{by, digest, reason},
    harness::{START, Server, StoreKind, chat, connect, new_key, used},
};

const POLICY: &str = r#"
[organization]
id = "acme"
requests_per_minute = 1000
budget = { monthly_usd = "1000" }
[organization.limits."m/*"]
tokens_per_minute = 50000
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
requests_per_minute = 10
tokens_per_hour = 5
shadow = ["tokens_per_hour"]
max_in_flight = 5
budget = { monthly_usd = "100" }
per_user = { requests_per_minute = 3 }
[teams.bot.limits."m/b"]
requests_per_day = 7
[teams.bot.keys.web]
sha256 = "DIGEST_OF_BOT"
requests_per_minute = 4
[teams.lab]
models = ["m/*"]
tokens_per_minute = 900
[teams.lab.keys.web]
sha256 = "DIGEST_OF_LAB"
tokens_per_minute = 800
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
[[prices]]
model = "m/b"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
"#;

const ORGANIZATION: [&str; 3] = [
    "organization.budget.monthly_usd",
    "organization.requests_per_minute",
    "organization.limits.\"m/*\".tokens_per_minute",
];
const BOT: [&str; 4] = [
    "teams.bot.budget.monthly_usd",
    "teams.bot.max_in_flight",
    "teams.bot.requests_per_minute",
    "teams.bot.limits.\"m/b\".requests_per_day",
];
const KEY_AND_USER: [&str; 2] =
    ["teams.bot.keys.web.requests_per_minute", "teams.bot.per_user.requests_per_minute"];
const LAB: [&str; 1] = ["teams.lab.tokens_per_minute"];

const VIEWER: &str = "tgs_secret_of_the_viewer_of_bot";
const AUDITOR: &str = "tgs_secret_of_the_auditor";

fn policy() -> String {
    POLICY.replace("DIGEST_OF_BOT", &digest("tgk_bot")).replace("DIGEST_OF_LAB", &digest("tgk_lab"))
}

fn of(team: &str, key: &str, user: &str) -> ListLimitsRequest {
    let [team, key, user] = [team, key, user].map(str::to_owned);
    ListLimitsRequest { team, key, user, ..Default::default() }
}

/// All pages, each of `page_size` but the last.
async fn list(
    client: &mut ReportServiceClient<Channel>,
    token: &str,
    mut request: ListLimitsRequest,
    page_size: i32,
) -> Result<Vec<LimitStatus>, Status> {
    request.page_size = page_size;
    let mut limits = Vec::new();
    loop {
        let page = client.list_limits(by(token, request.clone())).await?.into_inner();
        assert!(page.policy_revision.contains('/') && page.read_time.is_some());
        let is_last = page.next_page_token.is_empty();
        assert!(is_last || page.limits.len() == usize::try_from(page_size).unwrap(), "{page:?}");
        limits.extend(page.limits);
        if is_last {
            return Ok(limits);
        }
        request.page_token = page.next_page_token;
    }
}

fn ids(limits: &[LimitStatus]) -> Vec<&str> {
    limits.iter().map(|limit| limit.limit_id.as_str()).collect()
}

/// A request that each limit of its caller counts.
fn counted(model: &str) -> proto::AuthorizeRequest {
    proto::AuthorizeRequest {
        caller: Some(proto::authorize_request::Caller::ApiKey("tgk_bot".to_owned())),
        user: "ann".to_owned(),
        ..chat("bot", model, 100, 50)
    }
}

async fn limits_are_listed_as_decisions_show_them(store: StoreKind) {
    let server = Server::start(store, &policy(), START).await;
    let mut calls = server.client().await;
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    // One is in flight, and one is settled, with usage.
    calls.authorize(counted("m/b")).await.unwrap();
    let id = calls.authorize(counted("m/a")).await.unwrap().into_inner().reservation_id;
    calls.record_usage(used(&id, 100, 50)).await.unwrap();
    let only_asks = proto::AuthorizeRequest { dry_run: true, ..counted("m/b") };
    let mut shown = calls.authorize(only_asks.clone()).await.unwrap().into_inner().limits;
    let all = list(&mut reports, "", of("bot", "web", "ann"), 1_000).await.unwrap();
    assert_eq!(ids(&all), [&ORGANIZATION[..], &BOT, &KEY_AND_USER].concat());
    let mut listed = all.clone();
    for limits in [&mut shown, &mut listed] {
        limits.sort_by(|one, other| one.limit_id.cmp(&other.limit_id));
    }
    assert_eq!(listed, shown);
    let requests = all.iter().find(|limit| limit.limit_id == BOT[2]).unwrap();
    assert_eq!((requests.limit, requests.used, requests.remaining), (10, 2, 8));
    let of_day = all.iter().find(|limit| limit.limit_id == BOT[3]).unwrap();
    assert_eq!(of_day.used, 1, "of one of the models");
    // Nothing was counted, and pages leave nothing out.
    for page_size in 1..=10 {
        assert_eq!(list(&mut reports, "", of("bot", "web", "ann"), page_size).await.unwrap(), all);
    }
    let again = calls.authorize(only_asks).await.unwrap().into_inner().limits;
    assert_eq!(again.iter().map(|limit| limit.used).sum::<i64>(), all.iter().map(|l| l.used).sum::<i64>());
    // Less of a caller has fewer limits, and another user has used nothing.
    let of_bot = list(&mut reports, "", of("bot", "", ""), 5).await.unwrap();
    assert_eq!(of_bot, all[..7]);
    let of_bob = list(&mut reports, "", of("bot", "", "bob"), 100).await.unwrap();
    let last = of_bob.last().unwrap();
    assert_eq!((last.limit_id.as_str(), last.used), (KEY_AND_USER[1], 0));
    assert_eq!(last.reset_delay, Some(prost_types::Duration::default()));
    let everything = list(&mut reports, "", of("", "", ""), 3).await.unwrap();
    assert_eq!(ids(&everything), [&ORGANIZATION[..], &BOT, &LAB].concat());
    // An hour later minutes are over, and the month is not.
    server.clock.set(START.plus(3_600_000));
    let later = list(&mut reports, "", of("bot", "", ""), 100).await.unwrap();
    let used: Vec<_> = later.iter().map(|limit| limit.used).collect();
    assert_eq!(used, [300_000, 0, 0, 300_000, 0, 0, 1]);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_listed_from_the_embedded_store() {
    limits_are_listed_as_decisions_show_them(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_listed_from_redis() {
    if StoreKind::Redis.is_available() {
        limits_are_listed_as_decisions_show_them(StoreKind::Redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn created_keys_have_theirs_and_what_is_unknown_is_refused() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let channel = connect(server.address()).await;
    let (mut keys, mut reports) = (KeyServiceClient::new(channel.clone()), ReportServiceClient::new(channel));
    let mut request = new_key("bot-prod-job", "bot");
    request.key.as_mut().unwrap().limits =
        Some(proto::KeyLimits { requests_per_hour: Some(6), ..Default::default() });
    keys.create_key(request).await.unwrap();
    // The team follows from the key.
    let of_key = list(&mut reports, "", of("", "bot-prod-job", ""), 100).await.unwrap();
    let own = "teams.bot.keys.bot-prod-job.requests_per_hour";
    assert_eq!(ids(&of_key), [&ORGANIZATION[..], &BOT, &[own]].concat());
    assert_eq!(of_key.last().unwrap().remaining, 6);
    for (request, code, told) in [
        (of("none", "", ""), Code::NotFound, "UNKNOWN_TEAM"),
        (of("none", "web", ""), Code::NotFound, "UNKNOWN_TEAM"),
        (of("bot", "none", ""), Code::NotFound, "UNKNOWN_KEY"),
        (of("lab", "bot-prod-job", ""), Code::NotFound, "UNKNOWN_KEY"),
        // Two teams have one.
        (of("", "web", ""), Code::InvalidArgument, "INVALID_REQUEST"),
        (of("", "", "ann"), Code::InvalidArgument, "INVALID_REQUEST"),
        (of(&"t".repeat(65), "", ""), Code::InvalidArgument, "INVALID_REQUEST"),
        (of("bot", "", "a\u{1b}"), Code::InvalidArgument, "INVALID_REQUEST"),
        (ListLimitsRequest { page_size: -1, ..of("", "", "") }, Code::InvalidArgument, "INVALID_REQUEST"),
        (
            ListLimitsRequest { page_token: "x".to_owned(), ..of("", "", "") },
            Code::InvalidArgument,
            "PAGE_TOKEN_INVALID",
        ),
    ] {
        let status = reports.list_limits(request.clone()).await.unwrap_err();
        assert_eq!(reason(&status), (code, told.to_owned()), "{request:?}");
    }
    // A token continues the list that it is of, and no other.
    let first = ListLimitsRequest { page_size: 2, ..of("bot", "", "") };
    let page_token = reports.list_limits(first).await.unwrap().into_inner().next_page_token;
    let other = ListLimitsRequest { page_token, ..of("lab", "", "") };
    assert_eq!(reason(&reports.list_limits(other).await.unwrap_err()).1, "PAGE_TOKEN_INVALID");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_a_team_sees_what_holds_it_up_and_not_what_others_spend() {
    let mut text = policy();
    for (name, secret, role, teams) in
        [("audit", AUDITOR, "auditor", ""), ("view", VIEWER, "viewer", "teams = [\"bot\"]\n")]
    {
        let digest = digest(secret);
        text += &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n{teams}");
    }
    let server = Server::start(StoreKind::Embedded, &text, START).await;
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    let all = list(&mut reports, AUDITOR, of("", "", ""), 4).await.unwrap();
    assert_eq!(ids(&all), [&ORGANIZATION[..], &BOT, &LAB].concat());
    for team in ["", "bot"] {
        let own = list(&mut reports, VIEWER, of(team, "", ""), 4).await.unwrap();
        assert_eq!(ids(&own), [&ORGANIZATION[1..], &BOT].concat());
    }
    // It is of one team, so its key and its user need not say so.
    let own = list(&mut reports, VIEWER, of("", "web", "ann"), 100).await.unwrap();
    assert_eq!(ids(&own), [&ORGANIZATION[1..], &BOT, &KEY_AND_USER].concat());
    for request in [of("lab", "", ""), of("none", "", ""), of("", "none", ""), of("lab", "web", "")] {
        let status = reports.list_limits(by(VIEWER, request.clone())).await.unwrap_err();
        assert_eq!(reason(&status), (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()), "{request:?}");
    }
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_what_is_left() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let mut calls = server.client().await;
    calls.authorize(counted("m/b")).await.unwrap();
    let run = async |arguments: &'static [&'static str]| {
        let address = server.address().to_string();
        let ask = move || {
            let command = Command::new(env!("CARGO_BIN_EXE_tollgate"))
                .arg("limits")
                .args(arguments)
                .args(["--address", &address, "--color=never"])
                .output();
            command.unwrap()
        };
        let output = tokio::task::spawn_blocking(ask).await.unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, table) = run(&["--team", "bot", "--key=web", "--user=ann"]).await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, &lines[0][..]), (Some(0), &["LIMIT", "BOUND", "USED", "LEFT", "RESET"][..]));
    assert_eq!(lines.len(), 10, "{table}");
    assert_eq!(lines[6][..5], [BOT[2], "10", "1", "9", "1m"], "{table}");
    let (code, json) = run(&["list", "--json", "--limit=2"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["limits"].as_array().unwrap().len()), (Some(0), 2));
    assert_eq!(json["limits"][0]["limitId"], ORGANIZATION[0]);
    assert!(json["policyRevision"].as_str().unwrap().contains('/'), "{json}");
    let (code, text) = run(&["list", "--team=none"]).await;
    assert!(code == Some(2) && text.contains("the policy has no team `none`"), "{text}");
    assert!(server.stop().await);
}
