//! How budgets end at the present pace: as `GetSpend`, the commands and the metrics say it.

use std::process::Command;

use tollgate::{
    domain::Timestamp,
    rpc::proto::{
        self, GetSpendRequest, ListBudgetsRequest, budget_service_client::BudgetServiceClient,
        policy_service_client::PolicyServiceClient,
    },
    runtime::clock::ManualClock,
};
use tonic::transport::Channel;

use crate::{
    access::digest,
    harness::{Server, StoreKind, chat, connect, eventually_within, nanos, organization, used},
    redis_server,
    telemetry::value,
};

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "Europe/Berlin"
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "145", weekly_usd = "40", daily_usd = "500", on_shortfall = "warn" }
[teams.quiet]
models = ["m/*"]
budget = { monthly_usd = "10" }
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1000"
output_usd_per_million_tokens = "1000"
"#;
const DAY_MS: u64 = 86_400_000;
/// 14 October 2026, a Wednesday, 10:00 in Berlin, where summer time ends on the 25th.
const FIRST: Timestamp = Timestamp(1_791_964_800_000);
/// 11 November 2026, a Wednesday, 12:00 in Berlin.
const NOON: Timestamp = Timestamp(1_794_394_800_000);
/// Friday, 20 November 2026, 12:00 in Berlin.
const EXHAUST_SECONDS: i64 = 1_795_172_400;
const USD: u64 = 1_000_000_000;

/// Books so many dollars.
async fn book(client: &mut PolicyServiceClient<Channel>, dollars: i64) -> proto::RecordUsageResponse {
    let id = client.authorize(chat("bot", "m/a", dollars * 1_000, 0)).await.unwrap().into_inner();
    client.record_usage(used(&id.reservation_id, dollars * 1_000, 0)).await.unwrap().into_inner()
}

/// $10 on each working day of four weeks, and $5 until noon of the day after them. So November had seven such days, and has 13 to come.
async fn spend(server: &Server) {
    let mut client = server.client().await;
    // From a Wednesday.
    for day in (0..28).filter(|day| (day + 2) % 7 < 5) {
        server.clock.set(FIRST.plus(day * DAY_MS));
        book(&mut client, 10).await;
    }
    server.clock.set(NOON);
    book(&mut client, 5).await;
}

async fn asked(client: &mut PolicyServiceClient<Channel>, month: &str) -> proto::GetSpendResponse {
    let request = GetSpendRequest { month: month.to_owned(), ..Default::default() };
    client.get_spend(request).await.unwrap().into_inner()
}

/// Projected nano-USD, and the second of exhaustion.
fn forecast(report: Option<&proto::SpendReport>) -> (u64, Option<i64>) {
    let forecast = report.unwrap().spend.as_ref().unwrap().forecast.clone().unwrap();
    (nanos(forecast.projected), forecast.exhaust_time.map(|at| at.seconds))
}

async fn budgets_are_forecast(store: StoreKind) {
    let server = Server::start(store, POLICY, FIRST).await;
    spend(&server).await;
    let mut client = server.client().await;
    let answer = asked(&mut client, "").await;
    assert_eq!(answer.time_zone, "Europe/Berlin");
    assert_eq!(forecast(answer.teams.first()), (210 * USD, Some(EXHAUST_SECONDS)));
    assert_eq!(forecast(answer.teams.get(1)), (0, None), "it spends nothing");
    assert_eq!(forecast(answer.organization.as_ref()), (210 * USD, None), "it has no budget");
    // A month that is over has none, and neither has what a settlement answers.
    let october = asked(&mut client, "2026-10").await;
    assert_eq!(october.teams[0].spend.as_ref().unwrap().forecast, None);
    // The last of the budget, all in one: the answer's time is when it was used up, and its end is still seen.
    let booked = book(&mut client, 70).await;
    assert_eq!(booked.team_spend.unwrap().forecast, None);
    let answer = asked(&mut client, "").await;
    let (projected, exhaust) = forecast(answer.teams.first());
    assert_eq!(exhaust, Some(i64::try_from(NOON.0 / 1_000).unwrap()));
    // $75 in half a day and $2.50 for a quarter more; the rest of the day continues so.
    assert_eq!(projected, (145 + 13 * 10) * USD + 77_500_000_000 * 2 / 3);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_forecast_on_the_embedded_store() {
    budgets_are_forecast(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_forecast_on_redis() {
    if StoreKind::Redis.is_available() {
        budgets_are_forecast(StoreKind::Redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_cannot_be_read_cost_a_team_its_forecast_alone() {
    let Some(redis) = redis_server::shared() else { return };
    let organization = organization();
    let server = Server::start_on_redis(redis, &organization, POLICY, ManualClock::new(NOON));
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let october = format!("tollgate:{{{organization}}}:usage:d:202610:bot");
    let written: u32 =
        redis::cmd("HSET").arg(october).arg("foreign").arg("foreign").query(&mut connection).unwrap();
    assert_eq!(written, 1);
    let mut client = server.client().await;
    book(&mut client, 5).await;
    let answer = asked(&mut client, "").await;
    let bot = answer.teams[0].spend.as_ref().unwrap();
    assert_eq!((nanos(bot.spent.clone()), &bot.forecast), (5 * USD, &None));
    assert_eq!(forecast(answer.teams.get(1)), (0, None));
    assert!(server.stop().await);
}

/// The same days by a key and for a user, beside as much of the team's own; and another user who has none.
async fn keys_and_users_are_forecast(store: StoreKind) {
    let own = "\nper_user = { budget = { monthly_usd = \"145\", on_shortfall = \"warn\" } }\n[teams.bot.keys.web]\nsha256 = \"DIGEST\"\n\
        budget = { monthly_usd = \"145\", weekly_usd = \"40\", on_shortfall = \"warn\" }\n\
        [teams.bot.keys.idle]\nsha256 = \"DIGEST_OF_IDLE\"\nbudget = { monthly_usd = \"9\" }\n[teams.quiet]";
    let policy = POLICY.replace("\n[teams.quiet]", own).replace("DIGEST_OF_IDLE", &digest("tgk_idle"));
    let server = Server::start(store, &policy.replace("DIGEST", &digest("tgk_web")), FIRST).await;
    let mut calls = server.client().await;
    let mut book = async |at: Timestamp, tokens: i64| {
        server.clock.set(at);
        let by_key = proto::AuthorizeRequest {
            caller: Some(proto::authorize_request::Caller::ApiKey("tgk_web".to_owned())),
            user: "ann".to_owned(),
            ..chat("bot", "m/a", tokens, 0)
        };
        for request in [by_key, chat("bot", "m/a", tokens, 0)] {
            let id = calls.authorize(request).await.unwrap().into_inner().reservation_id;
            calls.record_usage(used(&id, tokens, 0)).await.unwrap();
        }
    };
    for day in (0..28).filter(|day| (day + 2) % 7 < 5) {
        book(FIRST.plus(day * DAY_MS), 10_000).await;
    }
    book(NOON, 5_000).await;
    let mut client = BudgetServiceClient::new(connect(server.address()).await);
    let mut listed = async |key: &str, user: &str| {
        let (key, user) = (key.to_owned(), user.to_owned());
        let request = ListBudgetsRequest { team: "bot".to_owned(), key, user, ..Default::default() };
        let budgets = client.list_budgets(request).await.unwrap().into_inner().budgets;
        let forecast = |budget: proto::Budget| {
            let forecast = budget.spend.unwrap().forecast.unwrap();
            (nanos(forecast.projected), forecast.exhaust_time.map(|at| at.seconds))
        };
        budgets.into_iter().map(forecast).collect::<Vec<_>>()
    };
    let month = (210 * USD, Some(EXHAUST_SECONDS));
    // $25 of the week's 40 are spent: the rest lasts to the end of tomorrow.
    let week = (50 * USD, Some(1_794_394_800 + 86_400 * 3 / 2));
    assert_eq!(listed("web", "").await, [month, week]);
    assert_eq!(listed("idle", "").await, [(0, None)]);
    assert_eq!(listed("", "ann").await, [month]);
    assert_eq!(listed("", "bob").await, [(0, None)]);
    // What is spent after days were read counts: of today.
    book(NOON, 70_000).await;
    for forecasts in [listed("web", "").await, listed("", "ann").await] {
        let projected = (145 + 13 * 10) * USD + 77_500_000_000 * 2 / 3;
        assert_eq!(forecasts[0], (projected, Some(i64::try_from(NOON.0 / 1_000).unwrap())));
    }
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_users_are_forecast_on_the_embedded_store() {
    keys_and_users_are_forecast(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_users_are_forecast_on_redis() {
    if StoreKind::Redis.is_available() {
        keys_and_users_are_forecast(StoreKind::Redis).await;
    }
}

/// Then some of what a user spent may be among that of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_forecast_where_a_day_had_more_users_than_room() {
    let own = "\nper_user = { budget = { monthly_usd = \"145\" } }\n[teams.quiet]";
    let policy = POLICY.replace("\n[teams.quiet]", own) + "[reports]\nmax_values = 10\n";
    let server = Server::start(StoreKind::Embedded, &policy, FIRST).await;
    let mut calls = server.client().await;
    let mut client = BudgetServiceClient::new(connect(server.address()).await);
    for (users, has_forecast) in [(0..40, true), (40..41, false)] {
        for user in users {
            let request = proto::AuthorizeRequest { user: format!("u{user}"), ..chat("bot", "m/a", 10, 0) };
            let id = calls.authorize(request).await.unwrap().into_inner().reservation_id;
            calls.record_usage(used(&id, 10, 0)).await.unwrap();
        }
        let request = ListBudgetsRequest { user: "u0".to_owned(), ..Default::default() };
        let budgets = client.list_budgets(request).await.unwrap().into_inner().budgets;
        let forecast = budgets[0].spend.as_ref().unwrap().forecast.is_some();
        assert_eq!(forecast, has_forecast);
        // Days are read again after an hour.
        server.clock.set(FIRST.plus(3_600_000));
    }
    assert!(server.stop().await);
}

/// What a command prints.
async fn printed(server: &Server, arguments: &'static [&'static str]) -> Vec<Vec<String>> {
    let address = server.address().to_string();
    let ask = move || {
        let of_all = ["--address", &address, "--color=never"];
        Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments).args(of_all).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cells = |line: &str| {
        line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    String::from_utf8(output.stdout).unwrap().lines().map(cells).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_until_when_a_budget_lasts() {
    let server = Server::start(StoreKind::Embedded, POLICY, FIRST).await;
    spend(&server).await;
    let lines = printed(&server, &["spend"]).await;
    assert_eq!(lines[1][8..], ["PROJECTED", "LASTS UNTIL"]);
    assert_eq!(lines[2][0], "acme (all)");
    assert_eq!(lines[2][8..], ["$210.00", "-"]);
    assert_eq!(lines[3][8..], ["$210.00", "2026-11-20 12:00"]);
    assert_eq!(lines[4][8..], ["$0.00", "the month's end"]);
    let over = printed(&server, &["spend", "--month=2026-10"]).await;
    assert_eq!(over[3][8..], ["-", "-"]);
    for period in [&["report", "--month=2026-11"] as &[_], &["report", "--week=2026-11-11"]] {
        let lines = printed(&server, period).await;
        assert_eq!(lines[1].last().unwrap(), "LASTS UNTIL");
        assert_eq!((&*lines[2][0], &**lines[2].last().unwrap()), ("bot", "2026-11-20 12:00"));
    }
    book(&mut server.client().await, 70).await;
    assert_eq!(printed(&server, &["spend", "--team=bot"]).await[2][8..], ["$326.66", "used up"]);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_say_when_each_budget_is_used_up() {
    const METRIC: &str = "tollgate_budget_exhaust_timestamp_seconds";
    // The store is read every five seconds.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
    let server = Server::start_measured(POLICY, FIRST).await;
    spend(&server).await;
    let month = ["organization=\"acme\"", "scope=\"team\"", "team=\"bot\"", "period=\"month\""];
    let is = |period: &str, expected: f64| {
        value(&server.page(), METRIC, &["team=\"bot\"", period]) == Some(expected)
    };
    eventually_within(PATIENCE, "the month is forecast", async || {
        value(&server.page(), METRIC, &month) == Some(1_795_172_400.0)
    })
    .await;
    // $25 of the week's 40 are spent: the rest lasts to the end of tomorrow. The day's lasts, as does what others have.
    assert!(is("period=\"week\"", 1_794_394_800.0 + 86_400.0 * 1.5), "{}", server.page());
    for labels in
        [&["team=\"bot\"", "period=\"day\""] as &[_], &["team=\"quiet\""], &["scope=\"organization\""]]
    {
        assert_eq!(value(&server.page(), METRIC, labels), None, "{labels:?}");
    }
    // What is spent since the days were read counts: all of the month's budget.
    book(&mut server.client().await, 70).await;
    eventually_within(PATIENCE, "the month is used up", async || is("period=\"month\"", 1_794_394_800.0))
        .await;
    // An hour later it was used up when it was.
    server.clock.set(NOON.plus(3_600_000));
    book(&mut server.client().await, 1).await;
    eventually_within(PATIENCE, "it is read again", async || {
        value(&server.page(), "tollgate_budget_spent_usd", &month) == Some(146.0)
    })
    .await;
    assert!(is("period=\"month\"", 1_794_394_800.0), "{}", server.page());
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forecast_reads_the_month_before_once() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
    const ASKED: u32 = 20;
    let server = Server::start_measured(POLICY, FIRST).await;
    spend(&server).await;
    let reads = || {
        let counted =
            value(&server.page(), "tollgate_store_call_duration_seconds_count", &["operation=\"spend\""]);
        counted.unwrap_or(0.0)
    };
    let before = reads();
    let mut client = server.client().await;
    for _ in 0..ASKED {
        assert!(asked(&mut client, "").await.organization.is_some());
    }
    // Of the organization and both teams, this month each time. What metrics read beside it is a few more.
    let this_month = f64::from(ASKED * 3);
    eventually_within(PATIENCE, "the reads are counted", async || reads() >= before + this_month).await;
    assert!(reads() <= before + this_month + 20.0, "{} reads for {ASKED} answers", reads() - before);
    assert!(server.stop().await);
}
