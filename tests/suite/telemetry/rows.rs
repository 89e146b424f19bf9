//! What the rows say, after requests of which everything is known.

use tempfile::TempDir;
use tollgate::rpc::proto;

use super::{MODEL, POLICY, eventually_is, page, start, value};
use crate::harness::{chat, used};

const CHATBOT: &str = "team=\"chatbot\"";
const RESEARCH: &str = "team=\"research\"";

#[tokio::test(flavor = "multi_thread")]
async fn decisions_and_what_was_booked_are_counted() {
    let directory = TempDir::new().unwrap();
    let in_shadow = "requests_per_minute = 4\ntokens_per_day = 5_000\nshadow = [\"tokens_per_day\"]";
    let policy = POLICY.replace("requests_per_minute = 4", in_shadow);
    let (process, admin) = start(&directory, &policy, &[]).await;
    let mut client = process.client().await;
    let mut reservations = Vec::new();
    for _ in 0..6 {
        let answer = client.authorize(chat("chatbot", MODEL, 1_000, 500)).await.unwrap().into_inner();
        reservations.extend(Some(answer.reservation_id).filter(|id| !id.is_empty()));
    }
    assert_eq!(reservations.len(), 4);
    client.authorize(chat("stranger", MODEL, 1, 1)).await.unwrap();
    let mut report = used(&reservations[0], 1_000, 300);
    if let Some(usage) = &mut report.usage {
        (usage.cached_input_tokens, usage.reasoning_tokens) = (400, 100);
    }
    let booked = client.record_usage(report.clone()).await.unwrap().into_inner();
    client.record_usage(report).await.unwrap();
    let limited = proto::RecordUsageRequest {
        reservation_id: reservations[1].clone(),
        outcome: proto::Outcome::RateLimited.into(),
        upstream_retry_delay: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    client.record_usage(limited).await.unwrap();
    let page = page(admin).await;
    let is = |metric: &str, labels: &[&str], expected: f64| {
        assert_eq!(value(&page, metric, labels), Some(expected), "{metric} {labels:?}\n{page}");
    };
    let decided = "tollgate_decisions_total";
    let model = format!("model=\"{MODEL}\"");
    let own = [CHATBOT, &model, "operation=\"chat_completion\"", "organization=\"acme\""];
    is(decided, &[&own[..], &["decision=\"allowed\"", "reason=\"none\""]].concat(), 4.0);
    is(decided, &[&own[..], &["decision=\"denied\"", "reason=\"request_rate_exceeded\""]].concat(), 2.0);
    is(decided, &["team=\"none\"", "reason=\"unknown_team\""], 1.0);
    is("tollgate_violations_total", &[CHATBOT, "scope=\"team\"", "reason=\"request_rate_exceeded\""], 2.0);
    let shadow = "tollgate_shadow_violations_total";
    is(shadow, &[CHATBOT, "scope=\"team\"", "reason=\"token_rate_exceeded\""], 3.0);
    is("tollgate_decision_duration_seconds_count", &["decision=\"allowed\""], 4.0);
    is("tollgate_decision_duration_seconds_count", &["decision=\"denied\""], 3.0);
    let settled = "tollgate_settlements_total";
    is(settled, &[CHATBOT, "outcome=\"completed\"", "result=\"settled\""], 1.0);
    is(settled, &[CHATBOT, "outcome=\"completed\"", "result=\"repeated\""], 1.0);
    is(settled, &[CHATBOT, "outcome=\"rate_limited\"", "result=\"settled\""], 1.0);
    for (kind, tokens) in [("input", 600.0), ("cached_input", 400.0), ("output", 300.0)] {
        is("tollgate_tokens_total", &[CHATBOT, &model, &format!("kind=\"{kind}\"")], tokens);
    }
    is("tollgate_reasoning_tokens_total", &[CHATBOT, &model], 100.0);
    let cost = booked.cost.unwrap();
    let usd = f64::from(i32::try_from(cost.units).unwrap()) + f64::from(cost.nanos) / 1e9;
    is("tollgate_cost_usd_total", &[CHATBOT, &model, "project=\"default\""], usd);
    is("tollgate_upstream_rate_limits_total", &[&model], 1.0);
    is("tollgate_store_call_duration_seconds_count", &["operation=\"settle\"", "outcome=\"succeeded\""], 2.0);
    let method = "rpc_method=\"tollgate.v1.PolicyService/Authorize\"";
    is("rpc_server_call_duration_seconds_count", &[method, "rpc_response_status_code=\"OK\""], 7.0);
    is("tollgate_policy_teams", &[], 2.0);
    is("tollgate_connections", &["listener=\"grpc\""], 1.0);
    assert!(value(&page, "tollgate_embedded_commit_duration_seconds_count", &[]).unwrap() >= 2.0);
    // What is read from the store comes a moment later.
    eventually_is(admin, "tollgate_budget_spent_usd", &[CHATBOT, "period=\"month\""], usd).await;
    let later = super::page(admin).await;
    let is = |metric: &str, labels: &[&str], expected: f64| {
        assert_eq!(value(&later, metric, labels), Some(expected), "{metric} {labels:?}\n{later}");
    };
    is("tollgate_budget_limit_usd", &[CHATBOT, "period=\"month\"", "scope=\"team\""], 200.0);
    is("tollgate_budget_limit_usd", &["team=\"none\"", "scope=\"organization\""], 500.0);
    is("tollgate_limit_used_ratio", &[CHATBOT, "quantity=\"requests\"", "window=\"minute\""], 1.0);
    is("tollgate_requests_in_flight", &[CHATBOT], 2.0);
    is("tollgate_reservations_unsettled", &[CHATBOT], 2.0);
    is("tollgate_cooldowns", &[&model], 1.0);
    is("tollgate_store_up", &[], 1.0);
    assert_eq!(value(&later, "tollgate_budget_limit_usd", &[RESEARCH]), None, "it has none");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_that_stays_keeps_its_counts_and_one_that_leaves_has_no_rows() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, POLICY, &[]).await;
    let mut client = process.client().await;
    for team in ["chatbot", "research"] {
        client.authorize(chat(team, MODEL, 10, 10)).await.unwrap();
    }
    let decided = "tollgate_decisions_total";
    eventually_is(admin, decided, &[CHATBOT], 1.0).await;
    eventually_is(admin, decided, &[RESEARCH], 1.0).await;
    let (without, _) = POLICY.split_once("[teams.research]").unwrap();
    std::fs::write(directory.path().join("policy.toml"), without.replace("1000", "900")).unwrap();
    eventually_is(admin, "tollgate_policy_reloads_total", &["result=\"loaded\""], 1.0).await;
    eventually_is(admin, "tollgate_policy_teams", &[], 1.0).await;
    client.authorize(chat("chatbot", MODEL, 10, 10)).await.unwrap();
    eventually_is(admin, decided, &[CHATBOT], 2.0).await;
    assert!(!page(admin).await.contains(&format!("{decided}{{decision=\"allowed\",{RESEARCH}")));
    assert_eq!(value(&page(admin).await, decided, &[RESEARCH]), None);
    std::fs::write(directory.path().join("policy.toml"), "nonsense").unwrap();
    eventually_is(admin, "tollgate_policy_reloads_total", &["result=\"rejected\""], 1.0).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn teams_past_the_bound_are_counted_together() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, POLICY, &["--metrics-max-teams=1"]).await;
    let mut client = process.client().await;
    for team in ["research", "chatbot", "research"] {
        client.authorize(chat(team, MODEL, 10, 10)).await.unwrap();
    }
    let decided = "tollgate_decisions_total";
    eventually_is(admin, decided, &[RESEARCH], 2.0).await;
    let page = page(admin).await;
    assert_eq!(value(&page, decided, &["team=\"other\""]), Some(1.0), "{page}");
    assert!(!page.contains(CHATBOT), "{page}");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_of_keys_are_shown_on_request() {
    let directory = TempDir::new().unwrap();
    let key = "[teams.chatbot.keys.chatbot-web]\nsha256 = \"".to_owned()
        + &"ab".repeat(32)
        + "\"\nbudget = { monthly_usd = \"7.00\" }\n";
    let policy = POLICY.replace("[teams.research]", &format!("{key}\n[teams.research]"));
    let (process, admin) = start(&directory, &policy, &["--metrics-by-key"]).await;
    eventually_is(admin, "tollgate_budget_limit_usd", &["key=\"chatbot-web\"", CHATBOT], 7.0).await;
    let monthly = [CHATBOT, "key=\"none\"", "period=\"month\""];
    assert_eq!(value(&page(admin).await, "tollgate_budget_limit_usd", &monthly), Some(200.0));
    process.stop().await;
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy, &[]).await;
    eventually_is(admin, "tollgate_budget_limit_usd", &[CHATBOT, "period=\"month\""], 200.0).await;
    assert!(!page(admin).await.contains("chatbot-web"));
    process.stop().await;
}
