//! Usage by what it is asked by, and `tollgate report`.

use std::process::Command;

use tollgate::rpc::proto::{
    self, Granularity, QueryUsageRequest, QueryUsageResponse, UsageFilter,
    policy_service_client::PolicyServiceClient, report_service_client::ReportServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::harness::{START, Server, StoreKind, chat, connect, errors::is_of, nanos, used};

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "Asia/Kolkata"
[reports]
labels = ["cost_center", "environment"]
max_values = 10
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
labels = { cost_center = "team's", environment = "prod" }
budget = { monthly_usd = "100" }
[teams.other]
models = ["m/*"]
max_output_tokens = 1000
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
[[prices]]
model = "m/b"
input_usd_per_million_tokens = "2"
output_usd_per_million_tokens = "2"
"#;

/// Books a request of so many tokens.
async fn book(
    client: &mut PolicyServiceClient<Channel>,
    (team, model, user): (&str, &str, &str),
    labels: &[(&str, &str)],
    tokens: i64,
) {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let user = user.to_owned();
    let request = proto::AuthorizeRequest { labels, user, ..chat(team, model, tokens, 0) };
    let id = client.authorize(request).await.unwrap().into_inner().reservation_id;
    client.record_usage(used(&id, tokens, 0)).await.unwrap();
}

fn november(group_by: &[&str]) -> QueryUsageRequest {
    QueryUsageRequest {
        start_date: "2026-11-01".to_owned(),
        end_date: "2026-12-01".to_owned(),
        group_by: group_by.iter().map(|of| (*of).to_owned()).collect(),
        ..Default::default()
    }
}

/// The dimensions of rows that are not empty, and the input tokens.
fn shown(answer: &QueryUsageResponse) -> Vec<(String, i64)> {
    let row = |row: &proto::UsageRow| {
        let of = row.dimensions.clone().unwrap();
        let labels = of.labels.values().cloned().collect::<String>();
        let all = [of.team, of.key, of.user, of.model, of.project, labels];
        let all: Vec<String> = all.into_iter().filter(|value| !value.is_empty()).collect();
        (all.join(" "), row.amounts.as_ref().unwrap().input_tokens)
    };
    answer.rows.iter().map(row).collect()
}

fn rows(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(values, tokens)| ((*values).to_owned(), *tokens)).collect()
}

pub(crate) async fn start(store: StoreKind) -> (Server, ReportServiceClient<Channel>) {
    let server = Server::start(store, POLICY, START).await;
    let mut client = server.client().await;
    // At 15:30 in Kolkata, where a day begins at half past six in the evening.
    book(&mut client, ("bot", "m/a", "ann"), &[("cost_center", "7")], 100).await;
    book(&mut client, ("bot", "m/b", "bob"), &[("environment", "test")], 20).await;
    server.clock.set(START.plus(3 * 3_600_000));
    book(&mut client, ("bot", "m/a", ""), &[], 3).await;
    server.clock.set(START.plus(9 * 3_600_000));
    book(&mut client, ("other", "m/b", "ann"), &[], 4_000).await;
    let reports = ReportServiceClient::new(connect(server.address()).await);
    (server, reports)
}

async fn usage_is_reported_by_what_it_is_asked_by(store: StoreKind) {
    let (server, mut reports) = start(store).await;
    let mut ask = async |request: QueryUsageRequest| reports.query_usage(request).await.unwrap().into_inner();
    let filter = |filter: UsageFilter| Some(filter);
    assert_eq!(shown(&ask(november(&["team"])).await), rows(&[("bot", 123), ("other", 4_000)]));
    let by_cost = QueryUsageRequest { order_by: "amounts.cost desc".to_owned(), ..november(&["model"]) };
    assert_eq!(shown(&ask(by_cost).await), rows(&[("m/b", 4_020), ("m/a", 103)]));
    // Usage without a user or a label comes without a value, so that nothing is missing.
    assert_eq!(shown(&ask(november(&["user"])).await), rows(&[("", 3), ("ann", 4_100), ("bob", 20)]));
    let of_cost_center = ask(november(&["team", "labels.cost_center"])).await;
    assert_eq!(shown(&of_cost_center), rows(&[("bot 7", 100), ("bot team's", 23), ("other", 4_000)]));
    let of_bot = UsageFilter { teams: vec!["bot".to_owned()], ..Default::default() };
    let environment = QueryUsageRequest { filter: filter(of_bot), ..november(&["labels.environment"]) };
    assert_eq!(shown(&ask(environment).await), rows(&[("prod", 103), ("test", 20)]));
    let of_ann = UsageFilter { users: vec!["ann".to_owned()], ..Default::default() };
    let of_ann = QueryUsageRequest { filter: filter(of_ann), ..november(&["team", "model"]) };
    assert_eq!(shown(&ask(of_ann).await), rows(&[("bot m/a", 100), ("other m/b", 4_000)]));
    // Hours and days are those of the zone, which is half an hour off.
    let by =
        |granularity: Granularity| QueryUsageRequest { granularity: granularity.into(), ..november(&[]) };
    let hours = ask(by(Granularity::Hour)).await;
    let starts: Vec<_> =
        hours.rows.iter().map(|row| row.start_time.unwrap().seconds - 1_795_428_000).collect();
    assert_eq!(starts, [-1_800, 9_000, 30_600]);
    assert_eq!(shown(&hours), rows(&[("", 120), ("", 3), ("", 4_000)]));
    let days = ask(by(Granularity::Day)).await;
    assert_eq!(shown(&days), rows(&[("", 123), ("", 4_000)]));
    let week = ask(by(Granularity::Week)).await;
    assert_eq!(week.rows[0].end_time.unwrap().seconds - week.rows[0].start_time.unwrap().seconds, 7 * 86_400);
    assert_eq!(nanos(week.total.unwrap().cost), 103_000 + 8_040_000);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_reported_from_the_embedded_store() {
    usage_is_reported_by_what_it_is_asked_by(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_reported_from_redis() {
    if StoreKind::Redis.is_available() {
        usage_is_reported_by_what_it_is_asked_by(StoreKind::Redis).await;
    }
}

/// As many as the policy says, the most expensive; and what is stored is bounded as well.
#[tokio::test(flavor = "multi_thread")]
async fn users_beyond_the_bound_are_others() {
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let mut client = server.client().await;
    // The first 40 have rows of their own, of which ten are shown.
    for user in 0..50 {
        book(&mut client, ("bot", "m/a", &format!("u{user:02}")), &[], 1 + user % 40).await;
    }
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    let request = QueryUsageRequest { order_by: "amounts.cost desc".to_owned(), ..november(&["user"]) };
    let answer = reports.query_usage(request).await.unwrap().into_inner();
    let all: i64 = (0..50).map(|user| 1 + user % 40).sum();
    let own: i64 = (31..=40).sum();
    let mut expected = vec![("(other)".to_owned(), all - own)];
    expected.extend((0..10).map(|rank| (format!("u{}", 39 - rank), 40 - rank)));
    assert_eq!(shown(&answer), expected);
    assert_eq!(answer.total.unwrap().input_tokens, all);
    assert!(server.stop().await);
}

/// What is booked while a client reads neither moves a row past it nor comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_an_answer_are_of_one_moment() {
    let server = Server::start(StoreKind::Embedded, POLICY, START).await;
    let mut client = server.client().await;
    for user in 1..=5 {
        book(&mut client, ("bot", "m/a", &format!("u{user}")), &[], user).await;
    }
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    let request =
        QueryUsageRequest { order_by: "amounts.cost desc".to_owned(), page_size: 2, ..november(&["user"]) };
    let first = reports.query_usage(request.clone()).await.unwrap().into_inner();
    book(&mut client, ("bot", "m/a", "u1"), &[], 100).await;
    let (mut seen, mut page_token) = (shown(&first), first.next_page_token);
    while !page_token.is_empty() {
        let page = reports.query_usage(QueryUsageRequest { page_token, ..request.clone() }).await.unwrap();
        let page = page.into_inner();
        assert_eq!(page.total, first.total);
        seen.extend(shown(&page));
        page_token = page.next_page_token;
    }
    assert_eq!(seen, rows(&[("u5", 5), ("u4", 4), ("u3", 3), ("u2", 2), ("u1", 1)]));
    let again = reports.query_usage(request).await.unwrap().into_inner();
    assert_eq!(shown(&again), rows(&[("u1", 101), ("u5", 5)]), "a first page is of a new answer");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_said() {
    let (server, mut reports) = start(StoreKind::Embedded).await;
    let mut refused = async |request: QueryUsageRequest, field: &str| {
        let status = reports.query_usage(request).await.unwrap_err();
        assert!(status.message().contains(&format!("`{field}`")), "{status:?}");
        is_of(&status, "INVALID_REQUEST");
    };
    let days = |start: &str, end: &str| QueryUsageRequest {
        start_date: start.to_owned(),
        end_date: end.to_owned(),
        ..november(&[])
    };
    refused(days("", "2026-12-01"), "start_date").await;
    refused(days("2026-11-31", "2026-12-01"), "start_date").await;
    refused(days("2026-11-01", "2026-11-01"), "end_date").await;
    refused(days("2026-01-01", "2027-12-01"), "end_date").await;
    refused(november(&["teams"]), "group_by").await;
    refused(november(&["team", "team"]), "group_by").await;
    refused(november(&["labels.unknown"]), "group_by").await;
    refused(november(&["user", "labels.cost_center"]), "group_by").await;
    refused(november(&["team", "key", "model", "project", "operation"]), "group_by").await;
    let by_hour =
        |group_by: &[&str]| QueryUsageRequest { granularity: Granularity::Hour.into(), ..november(group_by) };
    refused(by_hour(&["user"]), "granularity").await;
    refused(QueryUsageRequest { granularity: 99, ..november(&[]) }, "granularity").await;
    refused(QueryUsageRequest { order_by: "cost".to_owned(), ..november(&[]) }, "order_by").await;
    for request in [
        days("2025-09-01", "2025-10-01"),
        QueryUsageRequest { granularity: Granularity::Hour.into(), ..days("2026-10-01", "2026-11-01") },
    ] {
        let status = reports.query_usage(request).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        is_of(&status, "HISTORY_NOT_KEPT");
    }
    // A token is good for its own request only.
    let request = QueryUsageRequest { page_size: 1, ..november(&["team"]) };
    let page_token = reports.query_usage(request.clone()).await.unwrap().into_inner().next_page_token;
    assert!(!page_token.is_empty());
    let other = QueryUsageRequest { page_token: page_token.clone(), ..november(&["model"]) };
    is_of(&reports.query_usage(other).await.unwrap_err(), "PAGE_TOKEN_INVALID");
    let next = QueryUsageRequest { page_token, ..request };
    let answer = reports.query_usage(next).await.unwrap().into_inner();
    assert_eq!((shown(&answer), answer.next_page_token.as_str()), (rows(&[("other", 4_000)]), ""));
    assert!(server.stop().await);
}

async fn usage_without_a_reservation_has_labels(store: StoreKind) {
    let server = Server::start(store, POLICY, START).await;
    let mut client = server.client().await;
    let report = |id: &str, team: &str, labels: &[(&str, &str)]| proto::RecordUsageRequest {
        caller: Some(proto::record_usage_request::Caller::Team(team.to_owned())),
        request_id: id.to_owned(),
        model: "m/a".to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..used("", 100, 0)
    };
    // Its own, else the team's, and none that reports do not know.
    client.record_usage(report("1", "bot", &[("cost_center", "7"), ("unknown", "x")])).await.unwrap();
    client.record_usage(report("2", "bot", &[("environment", "test")])).await.unwrap();
    client.record_usage(report("3", "other", &[])).await.unwrap();
    // A repeat is booked once, under the labels of the first.
    let repeated = client.record_usage(report("1", "bot", &[("cost_center", "8")])).await.unwrap();
    assert!(repeated.into_inner().already_recorded);
    let mut reports = ReportServiceClient::new(connect(server.address()).await);
    let mut ask = async |by: &str| shown(&reports.query_usage(november(&[by])).await.unwrap().into_inner());
    assert_eq!(ask("labels.cost_center").await, rows(&[("", 100), ("7", 100), ("team's", 100)]));
    assert_eq!(ask("labels.environment").await, rows(&[("", 100), ("prod", 100), ("test", 100)]));
    // A reservation has its own.
    let id = client.authorize(chat("bot", "m/a", 5, 0)).await.unwrap().into_inner().reservation_id;
    let labels = [("cost_center".to_owned(), "9".to_owned())].into();
    let refused =
        client.record_usage(proto::RecordUsageRequest { labels, ..used(&id, 5, 0) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("a reservation has its own"), "{}", refused.message());
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_without_a_reservation_has_labels_on_the_embedded_store() {
    usage_without_a_reservation_has_labels(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_without_a_reservation_has_labels_on_redis() {
    if StoreKind::Redis.is_available() {
        usage_without_a_reservation_has_labels(StoreKind::Redis).await;
    }
}

/// What `tollgate report` prints.
pub(crate) async fn report(server: &Server, arguments: &'static [&'static str]) -> String {
    let address = server.address().to_string();
    let ask = move || {
        let command = ["report", "--address", &address, "--color=never"];
        Command::new(env!("CARGO_BIN_EXE_tollgate")).args(command).args(arguments).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_each_form() {
    let (server, _) = start(StoreKind::Embedded).await;
    let week = report(&server, &["--week", "2026-11-24", "--compare"]).await;
    let lines: Vec<Vec<&str>> = week.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], "Usage from 2026-11-23 to 2026-11-29".split(' ').collect::<Vec<_>>());
    assert_eq!(
        lines[1],
        ["TEAM", "COST", "REQUESTS", "TOKENS", "CHANGE", "TOP", "MODEL", "BUDGET", "USED", "LASTS", "UNTIL"]
    );
    assert_eq!(lines[2][..6], ["other", "$0.008", "1", "4,000", "new", "m/b"]);
    assert_eq!(lines[3][..7], ["bot", "$0.000143", "3", "123", "new", "m/a", "$100.00"]);
    assert_eq!(lines[4][..4], ["all", "$0.008143", "4", "4,123"]);
    let markdown =
        report(&server, &["--month", "2026-11", "--by", "team,labels.cost_center", "--markdown"]).await;
    assert!(
        markdown.contains("| TEAM | COST_CENTER | COST | REQUESTS | TOKENS | SHARE |\n| --- | --- | --: |"),
        "{markdown}"
    );
    assert!(markdown.contains("| bot | 7 | $0.0001 | 1 | 100 |"), "{markdown}");
    let address = server.address().to_string();
    let record = move || {
        let of_all = ["record", "--address", &address, "--team=bot", "--request-id=r", "--model=m/a"];
        let labels = ["--label", "cost_center=of-the-command", "--input-tokens=0", "--output-tokens=0"];
        Command::new(env!("CARGO_BIN_EXE_tollgate")).args(of_all).args(labels).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(record).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let by_label = report(&server, &["--month", "2026-11", "--by", "labels.cost_center", "--csv"]).await;
    assert!(by_label.contains(",of-the-command,0.00,1,"), "{by_label}");
    let csv =
        report(&server, &["--from", "2026-11-01", "--to", "2026-11-30", "--by", "model", "--csv"]).await;
    let mut csv = csv.lines();
    assert!(
        csv.next().unwrap().starts_with("start_time,end_time,model,cost_usd,request_count,input_tokens,")
    );
    assert!(csv.next().unwrap().starts_with("2026-10-31T18:30:00Z,2026-11-30T18:30:00Z,m/b,0.00804,2,4020,"));
    let json: serde_json::Value =
        serde_json::from_str(&report(&server, &["--month=2026-11", "--json"]).await).unwrap();
    assert_eq!(json["rows"][0]["dimensions"]["team"], "other");
    let focus = report(&server, &["--month", "2026-11", "--focus"]).await;
    let mut lines = focus.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let cost = columns.iter().position(|column| *column == "BilledCost").unwrap();
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    // The month of the organization, five and a half hours ahead, holds its first day whole.
    for (name, expected) in
        [("BillingPeriodStart", "2026-10-31T18:30:00Z"), ("BillingPeriodEnd", "2026-11-30T18:30:00Z")]
    {
        let at = columns.iter().position(|column| *column == name).unwrap();
        assert!(lines.iter().all(|line| line[at] == expected), "{name}: {focus}");
    }
    // Days that can be answered, whose whole months have more days than can.
    let long = report(&server, &["--from", "2025-11-10", "--to", "2026-12-10", "--focus"]).await;
    assert_eq!(long, focus, "the usage of November, in its month");
    let costs = lines.iter().map(|line| line[cost].parse::<f64>().unwrap());
    assert_eq!(costs.map(|cost| (cost * 1e9).round()).sum::<f64>().to_string(), "8143000");
    assert!(server.stop().await);
}
