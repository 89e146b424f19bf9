//! Keys that the policy document declares, as they are shown beside created ones: on both stores, over real gRPC.

use std::process::Command;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tollgate::rpc::{
    google_type::Money,
    proto::{self, GetKeyRequest, KeyLimits, KeyOrigin, KeyState, ListKeysRequest, VirtualKey},
};
use tonic::{Code, Status};

use super::{DAY, MODEL, POLICY, Service, StoreKind, dollars, fields, instant, is_refused, key};
use crate::{
    harness::{Process, START, nanos, used},
    redis_server::free_port,
};

/// The digest of a declared key's secret, as the document has it.
fn sha256(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The suite's policy with more declared keys: of one team, its name, and lines. The secret of each is `team/name`.
fn policy(keys: &[(&str, &str, &str)]) -> String {
    keys.iter().fold(POLICY.to_owned(), |policy, (team, name, lines)| {
        let digest = sha256(&format!("{team}/{name}"));
        policy + &format!("[teams.{team}.keys.\"{name}\"]\nsha256 = \"{digest}\"\n{lines}\n")
    })
}

impl Service {
    async fn declare(&self, keys: &[(&str, &str, &str)]) {
        self.server.set_policy(&policy(keys)).await;
    }

    async fn get_of(&mut self, team: &str, name: &str) -> Result<VirtualKey, Status> {
        let request = GetKeyRequest { name: name.to_owned(), team: team.to_owned() };
        self.keys.get_key(request).await.map(|answer| answer.into_inner().key.unwrap())
    }

    /// All pages of so many keys, as `team/name`, a declared one in brackets.
    async fn listed(&mut self, team: &str, page_size: i32) -> Vec<String> {
        let mut request = ListKeysRequest { team: team.to_owned(), page_size, ..Default::default() };
        let mut listed = Vec::new();
        loop {
            let page = self.keys.list_keys(request.clone()).await.unwrap().into_inner();
            assert!(page.keys.len() <= usize::try_from(page_size).unwrap());
            listed.extend(page.keys.iter().map(|key| match key.origin() {
                KeyOrigin::Declared => format!("[{}/{}]", key.team, key.name),
                _ => format!("{}/{}", key.team, key.name),
            }));
            if page.next_page_token.is_empty() {
                return listed;
            }
            request.page_token = page.next_page_token;
        }
    }
}

on_both! {
    a_declared_key_is_shown_with_what_it_may_and_what_it_used
    both_kinds_come_in_one_order_on_pages_of_any_size
    a_page_begins_where_a_key_was
    keys_of_one_name_are_told_apart
    a_declared_key_is_changed_in_the_policy_only
}

async fn a_declared_key_is_shown_with_what_it_may_and_what_it_used(mut s: Service) {
    let lines = "models = [\"m/text\"]\noperations = [\"chat_completion\"]\nmax_output_tokens = 500\n\
                 requests_per_minute = 5\ntokens_per_minute = 5_000\nrequests_per_hour = 50\n\
                 audio_seconds_per_day = 90\nmax_in_flight = 4\n\
                 budget = { monthly_usd = \"1.00\", daily_usd = \"0.50\", on_shortfall = \"clamp\", \
                 min_output_tokens = 3, alerts = [\"$0.9\", \"50%\"] }\nexpires = 2026-11-24T10:00:00Z\n\
                 labels = { owner = \"ann\" }";
    s.declare(&[("bot", "bot-prod-web", lines)]).await;
    let answer = s.ask("bot/bot-prod-web").await;
    s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap();
    let mut shown = s.get("bot-prod-web").await;
    let usage = shown.usage.take().unwrap();
    assert_eq!((usage.requests_today, usage.tokens_today, usage.top_model.as_str()), (1, 150, MODEL));
    assert_eq!((nanos(usage.cost_today), nanos(usage.cost_this_month)), (150, 150));
    // Nothing else is known of it: no secret, no creation time, no version.
    let expected = VirtualKey {
        name: "bot-prod-web".to_owned(),
        team: "bot".to_owned(),
        labels: [("owner".to_owned(), "ann".to_owned())].into(),
        limits: Some(KeyLimits {
            models: vec![MODEL.to_owned()],
            operations: vec![proto::Operation::ChatCompletion.into()],
            requests_per_minute: Some(5),
            tokens_per_minute: Some(5_000),
            max_output_tokens: Some(500),
            monthly_budget: dollars(1),
            daily_budget: Some(Money { currency_code: "USD".to_owned(), units: 0, nanos: 500_000_000 }),
            on_shortfall: proto::OnShortfall::Clamp.into(),
            min_output_tokens: 3,
            budget_alerts: vec!["50%".to_owned(), "$0.9".to_owned()],
            max_in_flight: Some(4),
            requests_per_hour: Some(50),
            audio_seconds_per_day: Some(90),
            ..Default::default()
        }),
        state: KeyState::Active.into(),
        expire_time: instant(START.plus(DAY)),
        origin: KeyOrigin::Declared.into(),
        ..Default::default()
    };
    assert_eq!(shown, expected);
    s.at(DAY);
    let later = s.get("bot-prod-web").await;
    let usage = later.usage.clone().unwrap();
    assert_eq!((later.state(), usage.requests_today), (KeyState::Expired, 0));
    assert_eq!(nanos(usage.cost_this_month), 150);
    // A created one says that it is one.
    let (made, _) = s.create(key("bot-prod-other", KeyLimits::default())).await;
    assert_eq!((made.origin(), made.limits), (KeyOrigin::Created, Some(KeyLimits::default())));
}

/// Names that begin alike, one that several keys have, and teams' keys in between.
const MIXED: [(&str, &str, &str); 6] = [
    ("bot", "bot-prod-a", ""),
    ("other", "bot-prod", ""),
    ("other", "bot-prod-b", ""),
    ("bot", "bot-prod-b", ""),
    ("other", "web", ""),
    ("bot", "web", ""),
];

async fn both_kinds_come_in_one_order_on_pages_of_any_size(mut s: Service) {
    for name in ["bot-prod-b", "other-prod-b"] {
        s.create(key(name, KeyLimits::default())).await;
    }
    // The names of created keys may be declared later.
    s.declare(&MIXED).await;
    let all = [
        "[bot/bot-declared-one]",
        "[other/bot-prod]",
        "[bot/bot-prod-a]",
        "bot/bot-prod-b",
        "[bot/bot-prod-b]",
        "[other/bot-prod-b]",
        "other/other-prod-b",
        "[bot/web]",
        "[other/web]",
    ];
    let others = ["[other/bot-prod]", "[other/bot-prod-b]", "other/other-prod-b", "[other/web]"];
    for page_size in 1..=10 {
        assert_eq!(s.listed("", page_size).await, all, "{page_size}");
        assert_eq!(s.listed("other", page_size).await, others, "{page_size}");
    }
    assert_eq!(s.listed("nobody", 1).await, Vec::<String>::new());
}

async fn a_page_begins_where_a_key_was(mut s: Service) {
    s.declare(&MIXED).await;
    let request = ListKeysRequest { page_size: 3, ..Default::default() };
    let first = s.keys.list_keys(request).await.unwrap().into_inner();
    assert_eq!(first.keys[2].name, "bot-prod-a");
    s.declare(&MIXED[3..]).await;
    let request = ListKeysRequest { page_token: first.next_page_token, ..Default::default() };
    let rest = s.keys.list_keys(request).await.unwrap().into_inner();
    let rest: Vec<_> = rest.keys.iter().map(|key| format!("{}/{}", key.team, key.name)).collect();
    assert_eq!(rest, ["bot/bot-prod-b", "bot/web", "other/web"]);
}

async fn keys_of_one_name_are_told_apart(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-b", KeyLimits::default())).await;
    s.declare(&MIXED).await;
    assert_eq!(fields(&s.get_of("", "web").await.unwrap_err()), ["team"]);
    let answer = s.ask("bot/web").await;
    s.calls.record_usage(used(&answer.reservation_id, 10, 10)).await.unwrap();
    for (team, requests) in [("bot", 1), ("other", 0)] {
        let shown = s.get_of(team, "web").await.unwrap();
        assert_eq!((shown.team.as_str(), shown.usage.unwrap().requests_today), (team, requests));
    }
    is_refused(s.get_of("nobody", "web").await, Code::NotFound, "UNKNOWN_KEY");
    is_refused(s.get_of("", "nothing").await, Code::NotFound, "UNKNOWN_KEY");

    // A created one comes first, which is the one that can be changed; both of its team used what its name used.
    for secret in [&secret, "bot/bot-prod-b"] {
        let answer = s.ask(secret).await;
        s.calls.record_usage(used(&answer.reservation_id, 10, 10)).await.unwrap();
    }
    assert_eq!(s.get("bot-prod-b").await.origin(), KeyOrigin::Created);
    let request = ListKeysRequest { include_usage: true, ..Default::default() };
    let list = s.keys.list_keys(request).await.unwrap().into_inner().keys;
    let same: Vec<_> = list.iter().filter(|key| key.name == "bot-prod-b").collect();
    let requests: Vec<_> = same.iter().map(|key| key.usage.as_ref().unwrap().requests_today).collect();
    assert_eq!(requests, [2, 2, 0]);
    assert_eq!(s.get_of("other", "bot-prod-b").await.unwrap().origin(), KeyOrigin::Declared);
}

async fn a_declared_key_is_changed_in_the_policy_only(mut s: Service) {
    s.declare(&MIXED).await;
    let named = VirtualKey { name: "bot-prod-a".to_owned(), ..Default::default() };
    let answers = [
        s.update(named, &["labels"]).await,
        s.rotate("bot-prod-a", 0, true).await.map(|(key, _)| key),
        s.revoke("bot-prod-a").await,
    ];
    for answer in answers {
        let message = answer.as_ref().unwrap_err().message().to_owned();
        assert!(message.contains("keys in the policy file are changed there"), "{message}");
        is_refused(answer, Code::NotFound, "UNKNOWN_KEY");
    }
    assert_eq!(s.reasons("bot/bot-prod-a").await, []);
    s.declare(&[]).await;
    is_refused(s.get_of("", "bot-prod-a").await, Code::NotFound, "UNKNOWN_KEY");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_make_change_and_end_keys() {
    let directory = TempDir::new().unwrap();
    let admin = format!("--admin={}", free_port());
    let process = Process::start_arguments(directory.path(), POLICY, &[&admin]).await;
    let address = process.address().to_string();
    let run = |arguments: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.arg("keys").args(arguments.split(' ')).args(["--address", &address]);
        let output = command.env_remove("TOLLGATE_CONFIG").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let create = "create bot-prod-web --team bot --weekly-usd 5 --daily-usd 1.50 --on-shortfall clamp \
                  --min-output-tokens 8 --budget-alert 80% --max-in-flight 3 --requests-per-day 900";
    let (code, checked) = run(&format!("{create} --validate-only"));
    assert!(code == Some(0) && checked.contains("nothing was created"), "{checked}");
    assert_eq!(run("get bot-prod-web").0, Some(2));
    let (code, made) = run(create);
    assert!(code == Some(0) && made.contains("shown this once"), "{made}");
    let words = ["week's budget    $5.00", "day's budget     $1.50", "answers get shorter", "80%", "900"];
    for words in words {
        assert!(checked.contains(words) && made.contains(words), "{words}: {made}");
    }
    let (code, changed) = run("update bot-prod-web --clear weekly-usd --tokens-per-hour 70");
    assert!(code == Some(0) && changed.contains("tokens/hour      70"), "{changed}");
    assert!(!changed.contains("week's budget") && changed.contains("day's budget"), "{changed}");
    let (code, refused) = run("update bot-prod-web --requests-per-minute 61 --validate-only");
    assert!(code == Some(2) && refused.contains("key.limits.requests_per_minute"), "{refused}");
    let (_, rotated) = run("rotate bot-prod-web --json");
    let json: serde_json::Value = serde_json::from_str(&rotated).unwrap();
    let old = json["key"]["secrets"][0]["secretId"].as_str().unwrap();
    let (code, ended) = run(&format!("revoke bot-prod-web --secret-id {old}"));
    assert!(code == Some(0) && ended.contains("active"), "{ended}");
    assert_eq!(run("revoke bot-prod-web --force").0, Some(2), "only with the id of a secret");
    let (_, list) = run("list --state active --contains prod");
    assert!(list.contains("bot-prod-web") && !list.contains("declared"), "{list}");
    assert!(!list.contains("COST"), "{list}");
    assert_eq!(run("revoke bot-prod-web").0, Some(0));
    let (_, list) = run("list --state active --contains prod");
    assert!(!list.contains("bot-prod-web"), "{list}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_declared_keys() {
    let directory = TempDir::new().unwrap();
    let text = policy(&[("bot", "bot-prod-web", "requests_per_hour = 1_500\nexpires = 2999-01-01")]);
    let admin = format!("--admin={}", free_port());
    let process = Process::start_arguments(directory.path(), &text, &[&admin]).await;
    let address = process.address().to_string();
    let shown = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.arg("keys").args(arguments).args(["--address", &address]).env_remove("TOLLGATE_CONFIG");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let list = shown(&["list", "--usage"]);
    let line = list.lines().find(|line| line.starts_with("bot-prod-web")).expect(&list);
    let cells: Vec<_> = line.split_whitespace().collect();
    let ends = "2998-12-31T18:15:00Z";
    let usage = ["0", "0", "$0.00", "$0.00"];
    assert_eq!(cells, [&["bot-prod-web", "active", "declared", ends, "-", "-", "-"][..], &usage].concat());
    let one = shown(&["get", "bot-prod-web", "--team", "bot"]);
    for words in ["in the policy file, where it is changed", "requests/hour    1,500", ends] {
        assert!(one.contains(words), "{one}");
    }
    assert!(!one.contains("SECRET"), "{one}");
    let json: serde_json::Value = serde_json::from_str(&shown(&["list", "--json"])).unwrap();
    assert_eq!(json["keys"][1]["origin"], "KEY_ORIGIN_DECLARED");
    assert_eq!(json["keys"][1]["limits"]["requestsPerHour"], "1500");
    process.stop().await;
}
