//! Budgets as `ListBudgets` and `tollgate budgets` show them.

mod crossed;

use std::process::Command;

use tollgate::rpc::{
    google_type::Money,
    proto::{
        self, Budget, LimitMode, ListBudgetsRequest, OnShortfall, Period, Scope,
        budget_service_client::BudgetServiceClient, key_service_client::KeyServiceClient,
    },
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    access::{by, digest, reason},
    harness::{START, Server, StoreKind, chat, connect, nanos, new_key, used},
};

const USD: u64 = 1_000_000_000;
const DAY_MS: u64 = 86_400_000;

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "Europe/Berlin"
budget = { monthly_usd = "1000" }
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
budget = { monthly_usd = "100", weekly_usd = "40", daily_usd = "20", alerts = ["50%", "$90"], on_shortfall = "warn" }
per_user = { budget = { daily_usd = "5" } }
[teams.bot.keys.web]
sha256 = "DIGEST_OF_BOT"
budget = { monthly_usd = "10", daily_usd = "3", on_shortfall = "clamp" }
[teams.bot.keys.free]
sha256 = "DIGEST_OF_FREE"
[teams.bot.keys.gone]
sha256 = "DIGEST_OF_GONE"
expires = "2026-11-01T00:00:00Z"
budget = { monthly_usd = "1" }
[teams.lab]
models = ["m/*"]
budget = { weekly_usd = "7", mode = "shadow" }
[teams.lab.keys.web]
sha256 = "DIGEST_OF_LAB"
budget = { monthly_usd = "2" }
[teams.none]
models = ["m/*"]
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1000"
output_usd_per_million_tokens = "1000"
"#;

const VIEWER: &str = "tgs_secret_of_the_viewer_of_lab";
const AUDITOR: &str = "tgs_secret_of_the_auditor";
const ADMIN: &str = "tgs_secret_of_the_admin";

/// What is listed where nothing is asked for, and keys were made as [`start`] makes them.
const ALL: [&str; 9] = [
    "organization.budget.monthly_usd",
    "teams.bot.budget.monthly_usd",
    "teams.bot.budget.weekly_usd",
    "teams.bot.budget.daily_usd",
    "teams.lab.budget.weekly_usd",
    "teams.bot.keys.bot-prod-job.budget.weekly_usd",
    "teams.bot.keys.web.budget.monthly_usd",
    "teams.bot.keys.web.budget.daily_usd",
    "teams.lab.keys.web.budget.monthly_usd",
];

fn policy() -> String {
    ["BOT", "FREE", "GONE", "LAB"].iter().fold(POLICY.to_owned(), |text, of| {
        text.replace(&format!("DIGEST_OF_{of}\""), &format!("{}\"", digest(&format!("tgk_{of}"))))
    })
}

fn of(team: &str, key: &str, user: &str) -> ListBudgetsRequest {
    let [team, key, user] = [team, key, user].map(str::to_owned);
    ListBudgetsRequest { team, key, user, ..Default::default() }
}

async fn list(
    client: &mut BudgetServiceClient<Channel>,
    token: &str,
    mut request: ListBudgetsRequest,
    page_size: i32,
) -> Result<Vec<Budget>, Status> {
    request.page_size = page_size;
    let mut budgets = Vec::new();
    loop {
        let page = client.list_budgets(by(token, request.clone())).await?.into_inner();
        assert!(page.policy_revision.contains('/') && page.read_time.is_some());
        assert_eq!(page.time_zone, "Europe/Berlin");
        assert!(page.budgets.len() <= usize::try_from(page_size).unwrap(), "{page:?}");
        budgets.extend(page.budgets);
        if page.next_page_token.is_empty() {
            return Ok(budgets);
        }
        request.page_token = page.next_page_token;
    }
}

fn ids(budgets: &[Budget]) -> Vec<&str> {
    budgets.iter().map(|budget| budget.limit_id.as_str()).collect()
}

/// A server with two created keys, of which one is revoked.
async fn start(store: StoreKind, text: &str, token: &str) -> (Server, BudgetServiceClient<Channel>) {
    let server = Server::start(store, text, START).await;
    let channel = connect(server.address()).await;
    let mut keys = KeyServiceClient::new(channel.clone());
    for name in ["bot-prod-job", "bot-prod-old"] {
        let mut request = new_key(name, "bot");
        let weekly_budget = Some(Money { currency_code: "USD".to_owned(), units: 4, nanos: 0 });
        request.key.as_mut().unwrap().limits = Some(proto::KeyLimits { weekly_budget, ..Default::default() });
        keys.create_key(by(token, request)).await.unwrap();
    }
    let name = "bot-prod-old".to_owned();
    keys.revoke_key(by(token, proto::RevokeKeyRequest { name })).await.unwrap();
    (server, BudgetServiceClient::new(channel))
}

/// What `budget` has: its amount, what is spent and what is reserved, in dollars, and whether there is a forecast.
fn spend(budget: &Budget) -> (u64, u64, u64, bool) {
    let spend = budget.spend.clone().unwrap();
    let usd = |money| nanos(money) / USD;
    (usd(spend.budget), usd(spend.spent), usd(spend.reserved), spend.forecast.is_some())
}

async fn budgets_are_listed(store: StoreKind) {
    let (server, mut client) = start(store, &policy(), "").await;
    let mut calls = server.client().await;
    // $2 spent and $1 reserved, by a key, for a user; and $3 a day before, by the team alone.
    let by_key = |input, output| proto::AuthorizeRequest {
        caller: Some(proto::authorize_request::Caller::ApiKey("tgk_BOT".to_owned())),
        user: "ann".to_owned(),
        ..chat("bot", "m/a", input, output)
    };
    let id = calls.authorize(chat("bot", "m/a", 3_000, 0)).await.unwrap().into_inner().reservation_id;
    calls.record_usage(used(&id, 3_000, 0)).await.unwrap();
    server.clock.set(START.plus(DAY_MS));
    let id = calls.authorize(by_key(2_000, 1)).await.unwrap().into_inner().reservation_id;
    calls.record_usage(used(&id, 2_000, 0)).await.unwrap();
    calls.authorize(by_key(500, 500)).await.unwrap();

    let all = list(&mut client, "", of("", "", ""), 1_000).await.unwrap();
    assert_eq!(ids(&all), ALL);
    for page_size in 1..=10 {
        assert_eq!(list(&mut client, "", of("", "", ""), page_size).await.unwrap(), all, "{page_size}");
    }
    let told: Vec<_> = all.iter().map(spend).collect();
    assert_eq!(
        told,
        [
            (1_000, 5, 1, true),
            (100, 5, 1, true),
            (40, 5, 1, true),
            (20, 2, 1, true),
            (7, 0, 0, true),
            (4, 0, 0, true),
            (10, 2, 1, true),
            (3, 2, 1, true),
            (2, 0, 0, true),
        ]
    );
    let owner = |budget: &Budget| (budget.scope(), budget.team.clone(), budget.key.clone(), budget.period());
    let of_key = (Scope::Key, "bot".to_owned(), "web".to_owned(), Period::Day);
    assert_eq!(owner(&all[0]), (Scope::Organization, String::new(), String::new(), Period::Month));
    assert_eq!(owner(&all[2]), (Scope::Team, "bot".to_owned(), String::new(), Period::Week));
    assert_eq!(owner(&all[7]), of_key);
    // Monday in Berlin, an hour ahead, to the next one.
    let times = |budget: &Budget| (budget.start_time.unwrap().seconds, budget.end_time.unwrap().seconds);
    let monday = i64::try_from(START.0 / 1_000).unwrap() - 11 * 3_600;
    assert_eq!(times(&all[2]), (monday, monday + 7 * 86_400));
    assert_eq!(times(&all[3]), (monday + 86_400, monday + 2 * 86_400));
    assert_eq!(all[1].on_shortfall(), OnShortfall::Warn);
    assert_eq!(all[7].on_shortfall(), OnShortfall::Clamp);
    assert_eq!((all[1].mode(), all[4].mode()), (LimitMode::Enforce, LimitMode::Shadow));
    let thresholds: Vec<_> =
        all[1].thresholds.iter().map(|t| (t.threshold.as_str(), nanos(t.amount.clone()) / USD)).collect();
    assert_eq!(thresholds, [("50%", 50), ("$90", 90)]);
    // The forecast is that of reports, also where the days of it were read before and more was spent since.
    let of_report = async |calls: &mut proto::policy_service_client::PolicyServiceClient<Channel>| {
        let request = proto::GetSpendRequest { team: "bot".to_owned(), ..Default::default() };
        calls.get_spend(request).await.unwrap().into_inner().teams[0].spend.clone()
    };
    assert_eq!(all[1].spend, of_report(&mut calls).await);
    let id = calls.authorize(chat("bot", "m/a", 6_000, 0)).await.unwrap().into_inner().reservation_id;
    calls.record_usage(used(&id, 6_000, 0)).await.unwrap();
    let now = list(&mut client, "", of("bot", "", ""), 100).await.unwrap();
    assert_eq!(now[0].spend, of_report(&mut calls).await);
    assert_ne!(now[0].spend, all[1].spend);
    // Filters hold together.
    assert_eq!(ids(&now), [&ALL[1..4], &ALL[5..8]].concat());
    let mut asked = async |request, page_size| list(&mut client, "", request, page_size).await.unwrap();
    assert_eq!(ids(&asked(of("", "web", ""), 1).await), ALL[6..]);
    assert_eq!(ids(&asked(of("lab", "web", ""), 1).await), ALL[8..]);
    assert_eq!(ids(&asked(of("", "gone", ""), 9).await), ["teams.bot.keys.gone.budget.monthly_usd"]);
    assert_eq!(
        ids(&asked(of("", "bot-prod-old", ""), 9).await),
        ["teams.bot.keys.bot-prod-old.budget.weekly_usd"]
    );
    for request in [of("none", "", ""), of("unknown", "", ""), of("", "free", ""), of("lab", "", "ann")] {
        assert_eq!(asked(request, 9).await, []);
    }
    let of_ann = asked(of("", "", "ann"), 9).await;
    assert_eq!((of_ann.len(), spend(&of_ann[0])), (1, (5, 2, 1, true)));
    assert_eq!((of_ann[0].scope(), &*of_ann[0].user, &*of_ann[0].team), (Scope::User, "ann", "bot"));
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_listed_from_the_embedded_store() {
    budgets_are_listed(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_are_listed_from_redis() {
    if StoreKind::Redis.is_available() {
        budgets_are_listed(StoreKind::Redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_a_team_sees_its_budgets_alone() {
    let mut text = policy();
    for (name, secret, role, teams) in [
        ("admin", ADMIN, "admin", ""),
        ("audit", AUDITOR, "auditor", ""),
        ("view", VIEWER, "viewer", "teams = [\"lab\"]\n"),
    ] {
        let digest = digest(secret);
        text += &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n{teams}");
    }
    let (server, mut client) = start(StoreKind::Embedded, &text, ADMIN).await;
    assert_eq!(ids(&list(&mut client, AUDITOR, of("", "", ""), 4).await.unwrap()), ALL);
    for team in ["", "lab"] {
        let own = list(&mut client, VIEWER, of(team, "", ""), 1).await.unwrap();
        assert_eq!(ids(&own), [ALL[4], ALL[8]]);
    }
    assert_eq!(ids(&list(&mut client, VIEWER, of("", "web", ""), 9).await.unwrap()), ALL[8..]);
    assert_eq!(list(&mut client, VIEWER, of("", "", "ann"), 9).await.unwrap(), []);
    for team in ["bot", "unknown"] {
        let status = list(&mut client, VIEWER, of(team, "", ""), 9).await.unwrap_err();
        assert_eq!(reason(&status), (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()), "{team}");
    }
    for (request, told) in [
        (of("", "web", "ann"), "INVALID_REQUEST"),
        (of("", &"k".repeat(65), ""), "INVALID_REQUEST"),
        (of("", "", &"u".repeat(257)), "INVALID_REQUEST"),
        (ListBudgetsRequest { page_token: "x".to_owned(), ..of("", "", "") }, "PAGE_TOKEN_INVALID"),
    ] {
        let status = client.list_budgets(by(AUDITOR, request)).await.unwrap_err();
        assert_eq!(reason(&status), (Code::InvalidArgument, told.to_owned()));
    }
    assert!(server.stop().await);
}

/// Teams and keys enough that no call may read them all.
fn many() -> String {
    let mut text = "[organization]\nid = \"acme\"\ntime_zone = \"Europe/Berlin\"\n".to_owned();
    for team in 0..250 {
        text += &format!("[teams.t{team:03}]\nmodels = [\"*\"]\nbudget = {{ monthly_usd = \"9\" }}\n");
        for key in 0..8 {
            let number = team * 8 + key;
            text += &format!(
                "[teams.t{team:03}.keys.k{number:04}]\nsha256 = \"{number:064x}\"\nbudget = {{ monthly_usd = \"1\" }}\n"
            );
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_budgets_each_page_reads_some_and_each_budget_comes_once() {
    let server = Server::start(StoreKind::Embedded, &many(), START).await;
    let mut client = BudgetServiceClient::new(connect(server.address()).await);
    let mut request = ListBudgetsRequest { page_size: 1_000, ..Default::default() };
    let (mut lengths, mut budgets) = (Vec::new(), Vec::new());
    loop {
        let page = client.list_budgets(request.clone()).await.unwrap().into_inner();
        lengths.push(page.budgets.len());
        budgets.extend(page.budgets.into_iter().map(|budget| (budget.key, budget.team)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    // Of a hundred teams each: teams, then the last of the teams and keys, then keys.
    assert_eq!(lengths, [100, 100, 450, 800, 800]);
    let team = |number: usize| format!("t{number:03}");
    let teams = (0..250).map(|number| (String::new(), team(number)));
    let keys = (0..2_000).map(|number| (format!("k{number:04}"), team(number / 8)));
    assert_eq!(budgets, teams.chain(keys).collect::<Vec<_>>());
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_budgets_with_how_long_they_last() {
    let (server, _) = start(StoreKind::Embedded, &policy(), "").await;
    let mut calls = server.client().await;
    let id = calls.authorize(chat("bot", "m/a", 25_000, 0)).await.unwrap().into_inner().reservation_id;
    calls.record_usage(used(&id, 25_000, 0)).await.unwrap();
    let run = async |arguments: &'static [&'static str]| {
        let address = server.address().to_string();
        let ask = move || {
            let command = Command::new(env!("CARGO_BIN_EXE_tollgate"))
                .arg("budgets")
                .args(arguments)
                .args(["--address", &address, "--color=never"])
                .output();
            command.unwrap()
        };
        let output = tokio::task::spawn_blocking(ask).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&[]).await;
    let cells = |line: &str| {
        let cells = line.split("  ").map(|cell| cell.trim().to_owned());
        cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    let lines: Vec<Vec<String>> = table.lines().map(cells).collect();
    assert_eq!(lines.len(), 10, "{table}");
    assert_eq!(lines[0][..3], ["OF", "PERIOD", "BUDGET"]);
    assert_eq!(lines[1][..4], ["organization", "month", "$1,000.00", "$25.00"], "{table}");
    assert_eq!(lines[4][..2], ["team bot", "day"], "{table}");
    assert_eq!(lines[4][8..], ["used up", "warn"], "{table}");
    assert_eq!(lines[5][8..], ["its period's end", "shadow"], "{table}");
    assert_eq!(lines[7][..2], ["key web (bot)", "month"], "{table}");
    assert_eq!(lines[7][8..], ["its period's end", "clamp"], "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&run(&["list", "--team=bot", "--json", "--limit=3"]).await).unwrap();
    assert_eq!(json["budgets"].as_array().unwrap().len(), 3, "{json}");
    assert_eq!(
        (&json["budgets"][0]["period"], &json["timeZone"]),
        (&"PERIOD_MONTH".into(), &"Europe/Berlin".into())
    );
    assert!(run(&["list", "--team=none"]).await.contains("there are no such budgets"));
    assert!(server.stop().await);
}
