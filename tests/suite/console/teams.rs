//! The pages of teams: who sees which, and that what they say is what happened.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::rpc::proto::{
    self, PauseRequest, PauseTarget, authorize_request::Caller, pause_service_client::PauseServiceClient,
    pause_target::Target,
};

use crate::{
    access::{by, digest},
    envoy::http::Request,
    harness::{Process, chat, connect, eventually, used},
    redis_server::free_port,
};

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "UTC"
[reports]
labels = ["app"]
[teams.bot]
models = ["m/*"]
max_output_tokens = 1000
requests_per_minute = 100
max_in_flight = 4
budget = { monthly_usd = "20", weekly_usd = "10", daily_usd = "9", alerts = ["25%", "80%"] }
[teams.bot.keys.bot-web]
sha256 = "DIGEST_OF_KEY"
[teams.lab]
models = ["m/a"]
max_output_tokens = 1000
mode = "shadow"
requests_per_minute = 7
[[prices]]
model = "m/a"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
[[prices]]
model = "m/b"
input_usd_per_million_tokens = "1"
output_usd_per_million_tokens = "1"
"#;

const READERS: [(&str, &str); 7] = [
    ("admin", ""),
    ("auditor", ""),
    ("operator", ""),
    ("monitor", ""),
    ("gateway", ""),
    ("viewer", "bot"),
    ("team-admin", "lab"),
];

fn secret(role: &str) -> String {
    format!("tgs_the_secret_of_the_{role}")
}

fn policy() -> String {
    let policy = POLICY.replace("DIGEST_OF_KEY", &digest("tgk_bot"));
    READERS.iter().fold(policy, |text, (role, team)| {
        let teams = if team.is_empty() { String::new() } else { format!("teams = [\"{team}\"]\n") };
        text + &format!(
            "[access.tokens.{role}]\nsha256 = \"{}\"\nroles = [\"{role}\"]\n{teams}",
            digest(&secret(role))
        )
    })
}

/// The service with its console.
struct Console {
    process: Process,
    admin: SocketAddr,
    _directory: TempDir,
}

impl Console {
    async fn start() -> Self {
        let (directory, admin) = (TempDir::new().unwrap(), free_port());
        let process =
            Process::start_arguments(directory.path(), &policy(), &[&format!("--admin={admin}")]).await;
        let console = Self { process, admin, _directory: directory };
        let ready = async || Request::new("GET", "/readyz").send(admin).await.status == 200;
        eventually("the service is ready", ready).await;
        console
    }

    /// The code of a page below the organization's, and what it says.
    async fn page(&self, role: &str, path: &str) -> (u16, String) {
        let request = Request::new("GET", &format!("/console/acme{path}")).header("accept", "text/html");
        let answer = request.key(&secret(role)).send(self.admin).await;
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    /// The page, which has to be there.
    async fn shown(&self, role: &str, path: &str) -> String {
        let (status, page) = self.page(role, path).await;
        assert_eq!(status, 200, "{role} {path}: {page}");
        page
    }

    /// Spends a dollar for each million of `tokens`.
    async fn spend(&self, request: proto::AuthorizeRequest, tokens: i64) {
        let mut client = self.process.client().await;
        let answer = client.authorize(by(&secret("gateway"), request)).await.unwrap().into_inner();
        assert!(!answer.reservation_id.is_empty(), "{answer:?}");
        let report = by(&secret("gateway"), used(&answer.reservation_id, tokens, 0));
        client.record_usage(report).await.unwrap();
    }
}

/// Tags, quotes and all that HTML has a meaning for.
const HOSTILE: &str = "<script>alert('x')</script>";
const ESCAPED: &str = "&lt;script&gt;alert('x')&lt;/script&gt;";

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_pages_of_their_teams_and_no_others() {
    let console = Console::start().await;
    for (role, bot, lab) in [
        ("admin", true, true),
        ("auditor", true, true),
        ("operator", true, true),
        ("viewer", true, false),
        ("team-admin", false, true),
        ("monitor", false, false),
        ("gateway", false, false),
    ] {
        let list = console.shown(role, "/teams").await;
        for (team, is_seen) in [("bot", bot), ("lab", lab)] {
            assert_eq!(list.contains(&format!("/teams/{team}\"")), is_seen, "{role}: {list}");
            let (status, page) = console.page(role, &format!("/teams/{team}")).await;
            assert_eq!(status, if is_seen { 200 } else { 404 }, "{role} {team}");
            // A team outside the reader's reach is as unknown as one that there is not.
            let (_, unknown) = console.page(role, "/teams/unknown").await;
            let told = |page: &str| page.split("Page made").next().unwrap().to_owned();
            assert_eq!(told(&page) == told(&unknown), !is_seen, "{role} {team}");
        }
    }
    assert!(console.shown("monitor", "/teams").await.contains("There is no team that you may see."));
    // Operators read what the policy says, and keys, and not what is spent.
    let page = console.shown("operator", "/teams/bot").await;
    assert!(page.contains("What it may do") && page.contains("/keys/bot-web?team=bot"), "{page}");
    assert!(!page.contains("burn-month") && !page.contains("By model") && !page.contains("Limits now"));
    assert!(!console.shown("operator", "/teams").await.contains("Spent"));
    // Viewers read what is spent, and no keys.
    let page = console.shown("viewer", "/teams/bot").await;
    assert!(
        page.contains("burn-month") && page.contains("What it may do") && !page.contains("/keys"),
        "{page}"
    );
    let found = console.shown("admin", "/teams?q=ab").await;
    assert!(found.contains("/teams/lab\"") && !found.contains("/teams/bot\""));
    let none = console.shown("admin", &format!("/teams?q={}", "%3Cscript%3E")).await;
    assert!(none.contains("“&lt;script&gt;”") && !none.contains("“<script>"));
    let stranger = Request::new("GET", "/console/acme/teams/bot");
    assert_eq!(stranger.header("accept", "application/json").send(console.admin).await.status, 401);
    console.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teams_page_says_what_is_left_who_spent_and_what_was_refused() {
    let console = Console::start().await;
    let named = |user: &str, app: &str| proto::AuthorizeRequest {
        caller: Some(Caller::ApiKey("tgk_bot".to_owned())),
        user: user.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ..chat("bot", "m/a", 10, 10)
    };
    console.spend(named(HOSTILE, HOSTILE), 3_000_000).await;
    for user in 0..6 {
        console.spend(named(&format!("user-{user}"), "web"), 250_000).await;
    }
    console.spend(chat("bot", "m/b", 10, 10), 500_000).await;
    let mut client = console.process.client().await;
    // One stays in flight, and one is refused.
    client.authorize(by(&secret("gateway"), chat("bot", "m/a", 10, 10))).await.unwrap();
    client.authorize(by(&secret("gateway"), chat("bot", "other", 10, 10))).await.unwrap();
    let refused = async || {
        let page = console.shown("viewer", "/teams/bot").await;
        page.contains("MODEL_NOT_ALLOWED") || page.contains("MODEL_NOT_PRICED")
    };
    eventually("the refusal is counted", refused).await;
    let page = console.shown("auditor", "/teams/bot").await;
    assert!(page.contains("title=\"$5.00\">$5.00</data> <span class=\"of\">of"), "{page}");
    for drawing in ["burn-month-t", "burn-week-t", "burn-day-t", "refusals-t"] {
        assert!(page.contains(&format!("id=\"{drawing}\"")), "{drawing}");
    }
    // What remains of each budget stands in the tables: of 20, 10 and 9 dollars, 5 are spent.
    for left in ["$15.00", "$5.00", "$4.00"] {
        assert!(page.contains(&format!("<td class=\"num\"><data value=\"{}", &left[1..])), "{left}: {page}");
    }
    // With the time of day at which it was crossed.
    let (_, crossed) = page.split_once("Alerts at 25% ($5.00, passed ").unwrap();
    let (time, rest) = crossed.split_at(5);
    assert!(time.replace(|digit: char| digit.is_ascii_digit(), "0") == "00:00", "{time}");
    assert!(rest.starts_with("), 80% ($16.00)."), "{page}");
    assert!(page.contains("<code>max_in_flight</code><span class=\"sub\">requests in flight</span>"));
    assert!(page.contains("data-label=\"Left\"><span class=\"\">3</span>"), "{page}");
    // Breakdowns sum to the whole; names are as they were given, and nothing of them is markup.
    assert!(page.contains(&format!("<th scope=\"row\">{ESCAPED}</th>")), "{page}");
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("/keys/bot-web?team=bot\">bot-web</a>") && page.contains("without a key"));
    assert!(page.contains("By app") && page.contains("without the label app"));
    assert!(page.contains("3 others") && page.contains(">All 8</a>"), "{page}");
    let opened = console.shown("auditor", "/teams/bot?by=user").await;
    assert!(opened.contains("section class=\"opened\"") && !opened.contains("3 others"), "{opened}");
    for user in 0..6 {
        assert!(opened.contains(&format!("<th scope=\"row\">user-{user}</th>")));
    }
    assert!(opened.len() < 100_000, "{}", opened.len());
    for (path, expected) in [
        ("/teams/bot?by=reason", 400),
        ("/teams/bot?by=labels.other", 400),
        ("/teams/bot?month=2999-01", 400),
        ("/teams/bot?month=nonsense", 400),
        ("/teams/bot?month=1999-01", 409),
        ("/teams/%3Cscript%3E", 404),
    ] {
        let (status, page) = console.page("admin", path).await;
        assert_eq!(status, expected, "{path}");
        assert!(!page.contains("<script>"), "{path}");
    }
    console.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_team_and_one_in_shadow_say_so() {
    let console = Console::start().await;
    assert!(!console.shown("admin", "/teams/bot").await.contains("is-paused"));
    let page = console.shown("team-admin", "/teams/lab").await;
    assert!(page.contains("lab is in shadow mode.") && page.contains("in shadow</span>"), "{page}");
    let target = PauseTarget { target: Some(Target::Team("bot".to_owned())) };
    let pause = PauseRequest { target: Some(target), reason: HOSTILE.to_owned() };
    let mut pauses = PauseServiceClient::new(connect(console.process.address()).await);
    pauses.pause(by(&secret("operator"), pause)).await.unwrap();
    // Viewers may not list pauses: an alert tells them, about a second later.
    for role in ["admin", "operator", "viewer"] {
        let is_told = async || console.shown(role, "/teams/bot").await.contains("bot is paused.");
        eventually("the banner is there", is_told).await;
        let page = console.shown(role, "/teams/bot").await;
        assert!(page.contains(&format!("“{ESCAPED}”, operator, since ")), "{role}: {page}");
        assert!(page.contains("class=\"is-paused\"") && page.contains("badge-paused"), "{role}");
        assert!(!page.contains("<script>alert"));
    }
    assert!(!console.shown("admin", "/teams/lab").await.contains("is paused."));
    console.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_follows_its_budgets_and_leads_from_reasons_to_decisions() {
    let console = Console::start().await;
    let mut client = console.process.client().await;
    let asked = by(&secret("gateway"), chat("bot", "other/model", 10, 10));
    assert!(client.authorize(asked).await.unwrap().into_inner().reservation_id.is_empty());
    let link = "<a class=\"reason\" href=\"/console/acme/decisions?team=bot&amp;reason=MODEL_NOT_ALLOWED\">";
    eventually("the refusal is counted", async || console.shown("viewer", "/teams/bot").await.contains(link))
        .await;
    let events = "data-events=\"/console/acme/events?topics=budgets&amp;team=bot\"";
    for (role, is_live) in [("admin", true), ("viewer", true), ("operator", false)] {
        let page = console.shown(role, "/teams/bot").await;
        assert_eq!(page.contains(events), is_live, "{role}: {page}");
        // The script finds each part by its id.
        let parts: Vec<_> = page.split(" data-live").collect();
        let named = parts
            .iter()
            .take(parts.len() - 1)
            .filter(|before| before.rsplit('<').next().is_some_and(|tag| tag.contains(" id=\"")));
        assert_eq!(named.count(), parts.len() - 1, "{role}: {page}");
        assert!(parts.len() > 1);
    }
    // A month that is over does not change, and its refusals are not among the last decisions.
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let before = now.first_of_month().unwrap().yesterday().unwrap();
    let page = console.shown("admin", &format!("/teams/bot?month={}", before.strftime("%Y-%m"))).await;
    assert!(!page.contains("data-events") && !page.contains("reason=MODEL"), "{page}");
    console.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_look_at_once_get_their_pages() {
    let console = Console::start().await;
    console.spend(chat("bot", "m/a", 10, 10), 1_000).await;
    // Each asks for five reports, and only so many may wait for theirs.
    let mut pages = JoinSet::new();
    for place in 0..40 {
        let path = ["/teams/bot", "/teams/lab", "/", "/reports"][place % 4];
        let request = Request::new("GET", &format!("/console/acme{path}")).key(&secret("admin"));
        let admin = console.admin;
        pages.spawn(async move { (path, request.send(admin).await.status) });
    }
    for (path, status) in pages.join_all().await {
        assert_eq!(status, 200, "{path}");
    }
    console.process.stop().await;
}
