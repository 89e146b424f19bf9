//! Requests that were refused, in the usage history.

use std::{process::Command, time::Duration};

use tollgate::{
    rpc::proto::{
        self, DenialRow, Granularity, QueryDenialsRequest, QueryDenialsResponse, Reason, UsageFilter,
        authorize_request::Caller, policy_service_client::PolicyServiceClient,
        report_service_client::ReportServiceClient,
    },
    runtime::clock::ManualClock,
};
use tonic::transport::Channel;

use crate::{
    access::{by, digest},
    harness::{
        Process, START, Server, StoreKind, chat, connect, errors::is_of, eventually_within, organization,
        used,
    },
    redis_server,
};

/// More than the 5 seconds between two writings, on a busy machine.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

fn policy() -> String {
    let key = digest("tgk_bot");
    let tokens: String =
        [("all", "\"viewer\", \"gateway\"", ""), ("of-bot", "\"viewer\"", "teams = [\"bot\"]\n")]
            .map(|(name, roles, teams)| {
                let digest = digest(&format!("tgs_{name}"));
                format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [{roles}]\n{teams}")
            })
            .concat();
    format!(
        r#"
[organization]
id = "acme"
time_zone = "Asia/Kolkata"
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
requests_per_minute = 1
tokens_per_minute = 10
[teams.bot.keys.bot-key]
sha256 = "{key}"
models = ["m/b"]
[teams.other]
models = ["m/*"]
max_output_tokens = 1000
budget = {{ monthly_usd = "0.000001" }}
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
[[prices]]
model = "m/b"
input_usd_per_million_tokens = "2"
output_usd_per_million_tokens = "2"
{tokens}"#
    )
}

fn november(group_by: &[&str]) -> QueryDenialsRequest {
    QueryDenialsRequest {
        start_date: "2026-11-01".to_owned(),
        end_date: "2026-12-01".to_owned(),
        group_by: group_by.iter().map(|of| (*of).to_owned()).collect(),
        ..Default::default()
    }
}

async fn ask(channel: &Channel, token: &str, request: QueryDenialsRequest) -> QueryDenialsResponse {
    let mut client = ReportServiceClient::new(channel.clone());
    client.query_denials(by(token, request)).await.unwrap().into_inner()
}

/// What rows are by, and how many requests.
fn shown(answer: &QueryDenialsResponse) -> Vec<(String, i64)> {
    let row = |row: &DenialRow| {
        let of = row.dimensions.clone().unwrap();
        let reason = match of.reason() {
            Reason::Unspecified => String::new(),
            reason => reason.as_str_name().trim_start_matches("REASON_").to_lowercase(),
        };
        let all = [of.team, of.key, of.model, reason, of.limit_id];
        let all: Vec<String> = all.into_iter().filter(|value| !value.is_empty()).collect();
        (all.join(" "), row.request_count)
    };
    answer.rows.iter().map(row).collect()
}

fn rows(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(values, count)| ((*values).to_owned(), *count)).collect()
}

/// Asks for a decision; `true`: allowed.
async fn decide(client: &mut PolicyServiceClient<Channel>, request: proto::AuthorizeRequest) -> bool {
    let answer = client.authorize(by("tgs_all", request)).await.unwrap().into_inner();
    answer.decision() == proto::Decision::Allowed
}

fn with_key(key: &str, model: &str) -> proto::AuthorizeRequest {
    proto::AuthorizeRequest { caller: Some(Caller::ApiKey(key.to_owned())), ..chat("", model, 1, 1) }
}

/// One that is allowed and six that are not, and a dry run that would not be.
async fn deny(channel: &Channel) {
    let mut client = PolicyServiceClient::new(channel.clone());
    assert!(decide(&mut client, chat("bot", "m/a", 1, 1)).await);
    // The rate of requests refuses it, and that of tokens as well.
    assert!(!decide(&mut client, chat("bot", "m/a", 50, 1)).await);
    assert!(!decide(&mut client, chat("bot", "m/a", 1, 1)).await);
    assert!(!decide(&mut client, with_key("tgk_bot", "m/a")).await);
    assert!(!decide(&mut client, with_key("tgk_unknown", "=cmd|x,\"(other)")).await);
    assert!(!decide(&mut client, chat("other", "m/b", 100, 1)).await);
    assert!(!decide(&mut client, chat("other", "no/|m<b>'; --", 1, 1)).await);
    let dry_run = proto::AuthorizeRequest { dry_run: true, ..chat("other", "m/b", 100, 1) };
    assert!(!decide(&mut client, dry_run).await);
}

async fn denials_are_reported(store: StoreKind) {
    let server = Server::start(store, &policy(), START).await;
    let channel = connect(server.address()).await;
    deny(&channel).await;
    eventually_within(WRITTEN_WITHIN, "all denials are written down", async || {
        ask(&channel, "tgs_all", november(&[])).await.total_request_count == 6
    })
    .await;
    let all = async |request| ask(&channel, "tgs_all", request).await;
    let by_limit = [
        ("invalid_key", 1),
        ("bot model_not_allowed teams.bot.keys.bot-key.models", 1),
        ("bot request_rate_exceeded teams.bot.requests_per_minute", 2),
        ("other model_not_allowed teams.other.models", 1),
        ("other team_budget_exhausted teams.other.budget.monthly_usd", 1),
    ];
    assert_eq!(shown(&all(november(&["team", "reason", "limit_id"])).await), rows(&by_limit));
    // A model that the price list does not have is other, whatever it is called.
    assert_eq!(shown(&all(november(&["model"])).await), rows(&[("(other)", 2), ("m/a", 3), ("m/b", 1)]));
    let key = shown(&all(november(&["key"])).await);
    assert_eq!(key, rows(&[("", 5), ("bot-key", 1)]));
    let most = QueryDenialsRequest {
        order_by: "request_count desc".to_owned(),
        page_size: 1,
        ..november(&["team"])
    };
    let first = all(most.clone()).await;
    assert_eq!((shown(&first), first.total_request_count), (rows(&[("bot", 3)]), 6));
    let next = all(QueryDenialsRequest { page_token: first.next_page_token, ..most }).await;
    assert_eq!(shown(&next), rows(&[("other", 2)]));
    let of_models = UsageFilter { models: vec!["m/b".to_owned()], ..Default::default() };
    let of_models = QueryDenialsRequest { filter: Some(of_models), ..november(&["team"]) };
    assert_eq!(shown(&all(of_models).await), rows(&[("other", 1)]));
    // At 15:30 in Kolkata.
    let hours = all(QueryDenialsRequest { granularity: Granularity::Hour.into(), ..november(&[]) }).await;
    let start = hours.rows[0].start_time.unwrap().seconds;
    assert_eq!((hours.rows.len(), start), (1, 1_795_428_000 - 1_800));
    // Callers of a team see those of that team only, and no names of limits of others.
    let own = ask(&channel, "tgs_of-bot", november(&["team", "limit_id"])).await;
    assert_eq!(own.total_request_count, 3);
    assert!(shown(&own).iter().all(|(row, _)| row.starts_with("bot ")), "{own:?}");
    let others = UsageFilter { teams: vec!["other".to_owned()], ..Default::default() };
    let others = QueryDenialsRequest { filter: Some(others), ..november(&[]) };
    let mut client = ReportServiceClient::new(channel.clone());
    let status = client.query_denials(by("tgs_of-bot", others)).await.unwrap_err();
    is_of(&status, "TEAM_NOT_PERMITTED");
    for (field, request) in [
        ("group_by", november(&["user"])),
        ("group_by", november(&["labels.x"])),
        ("order_by", QueryDenialsRequest { order_by: "amounts.cost".to_owned(), ..november(&[]) }),
        (
            "filter.users",
            QueryDenialsRequest {
                filter: Some(UsageFilter { users: vec!["u".to_owned()], ..Default::default() }),
                ..november(&[])
            },
        ),
    ] {
        let status = client.query_denials(by("tgs_all", request)).await.unwrap_err();
        assert!(status.message().contains(&format!("`{field}`")), "{status:?}");
    }
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_are_reported_from_the_embedded_store() {
    denials_are_reported(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_are_reported_from_redis() {
    if StoreKind::Redis.is_available() {
        denials_are_reported(StoreKind::Redis).await;
    }
}

/// Each counts its own, and both add to the same rows. What was refused just before a stop is written down by it.
#[tokio::test(flavor = "multi_thread")]
async fn denials_of_all_replicas_add_up_and_a_stop_loses_none() {
    let Some(redis) = redis_server::shared() else { return };
    let (organization, clock) = (organization(), ManualClock::new(START));
    let start = || Server::start_on_redis(redis, &organization, &policy(), clock.clone());
    let (one, other) = (start(), start());
    for (server, times) in [(&one, 3), (&other, 4)] {
        let mut client = PolicyServiceClient::new(connect(server.address()).await);
        for _ in 0..times {
            assert!(!decide(&mut client, chat("other", "m/b", 100, 1)).await);
        }
    }
    assert!(one.stop().await && other.stop().await);
    let last = start();
    let channel = connect(last.address()).await;
    let answer = ask(&channel, "tgs_all", november(&["team", "reason"])).await;
    assert_eq!(shown(&answer), rows(&[("other team_budget_exhausted", 7)]));
    assert!(last.stop().await);
}

/// What is no row of a team costs that team its denials of the day, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_data_in_the_place_of_denials_loses_those_of_no_other_team() {
    let Some(redis) = redis_server::shared() else { return };
    let (organization, clock) = (organization(), ManualClock::new(START));
    let server = Server::start_on_redis(redis, &organization, &policy(), clock.clone());
    let channel = connect(server.address()).await;
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let foreign = format!("tollgate:{{{organization}}}:usage:n:20261123:bot");
    redis::cmd("SET").arg(foreign).arg("foreign").exec(&mut connection).unwrap();
    deny(&channel).await;
    assert!(server.stop().await);
    let server = Server::start_on_redis(redis, &organization, &policy(), clock);
    let channel = connect(server.address()).await;
    let others = UsageFilter { teams: vec!["other".to_owned()], ..Default::default() };
    for granularity in [Granularity::Day, Granularity::Hour] {
        let filter = Some(others.clone());
        let request = QueryDenialsRequest { filter, granularity: granularity.into(), ..november(&[]) };
        assert_eq!(ask(&channel, "tgs_all", request).await.total_request_count, 2, "{granularity:?}");
    }
    let hours = format!("tollgate:{{{organization}}}:usage:nh:20261123:bot");
    let rows: u32 = redis::cmd("HLEN").arg(hours).query(&mut connection).unwrap();
    assert_eq!(rows, 2);
    assert!(server.stop().await);
}

/// A kill loses what was refused since the last writing, and nothing before it; the journal keeps the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_denial_that_was_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("embedded:{}", directory.path().join("data").display());
    let process = Process::start(directory.path(), &policy(), &store).await;
    let channel = connect(process.address()).await;
    let mut client = PolicyServiceClient::new(channel.clone());
    for _ in 0..5 {
        assert!(!decide(&mut client, chat("other", "m/b", 100, 1)).await);
    }
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::get("Asia/Kolkata").unwrap()).date();
    let request = QueryDenialsRequest {
        start_date: today.yesterday().unwrap().to_string(),
        end_date: today.tomorrow().unwrap().tomorrow().unwrap().to_string(),
        ..Default::default()
    };
    eventually_within(WRITTEN_WITHIN, "the denials are written down", async || {
        ask(&channel, "tgs_all", request.clone()).await.total_request_count == 5
    })
    .await;
    // What is read may not be on disk yet. This is once it is acknowledged, with all that came before.
    let allowed = client.authorize(by("tgs_all", chat("bot", "m/a", 1, 1))).await.unwrap().into_inner();
    client.record_usage(by("tgs_all", used(&allowed.reservation_id, 1, 1))).await.unwrap();
    assert!(!decide(&mut client, chat("other", "m/b", 100, 1)).await);
    process.kill();
    let process = Process::start(directory.path(), &policy(), &store).await;
    let after = ask(&connect(process.address()).await, "tgs_all", request).await.total_request_count;
    // The last may have been written down just before.
    assert!((5..=6).contains(&after), "{after}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_denials_in_each_form() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let channel = connect(server.address()).await;
    deny(&channel).await;
    eventually_within(WRITTEN_WITHIN, "all denials are written down", async || {
        ask(&channel, "tgs_all", november(&[])).await.total_request_count == 6
    })
    .await;
    let address = server.address().to_string();
    let report = async |form: &'static str| {
        let address = address.clone();
        let run = move || {
            Command::new(env!("CARGO_BIN_EXE_tollgate"))
                .args(["report", "--denials", "--month=2026-11", "--color=never", "--address", &address])
                .args(form.split_whitespace())
                .env("TOLLGATE_TOKEN", "tgs_all")
                .output()
                .unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = report("").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["TEAM", "REASON", "LIMIT_ID", "REFUSED", "SHARE"]);
    assert_eq!(lines[2][..4], ["bot", "request_rate_exceeded", "teams.bot.requests_per_minute", "2"]);
    assert_eq!(lines.last().unwrap()[..], ["all", "6"]);
    let csv = report("--csv --by=reason").await;
    assert!(csv.starts_with("start_time,end_time,reason,request_count\n"), "{csv}");
    assert!(csv.contains("2026-10-31T18:30:00Z,2026-11-30T18:30:00Z,request_rate_exceeded,2\n"), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&report("--json --by=team").await).unwrap();
    assert_eq!((&json["totalRequestCount"], &json["rows"][0]["requestCount"]), (&"6".into(), &"3".into()));
    let markdown = report("--markdown --by=team").await;
    assert!(markdown.contains("| TEAM | REFUSED | SHARE |\n| --- | --: | --- |"), "{markdown}");
    assert!(server.stop().await);
}
