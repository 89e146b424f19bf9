//! `tollgate replay`, of recorded logs: what another policy would have refused, and what that would have saved.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto::{AuthorizeRequest, Decision};

use crate::harness::{Process, chat, eventually, used};

const MODEL: &str = "openai/gpt-oss-20b";

fn replay(directory: &Path, policy: &str, log: &str, arguments: &[&str]) -> Output {
    fs::write(directory.join("proposed.toml"), policy).unwrap();
    fs::write(directory.join("decisions.jsonl"), log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["replay", "--policy", "proposed.toml", "--decisions", "decisions.jsonl"]);
    command.args(arguments).current_dir(directory).output().unwrap()
}

fn replayed(policy: &str, log: &str, arguments: &[&str]) -> Value {
    let directory = TempDir::new().unwrap();
    let output = replay(directory.path(), policy, log, &[&["--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a line says, and nothing that it leaves out.
fn line(event: &str, seconds: u64, team: &str, more: Value) -> String {
    let mut line = json!({
        "event": event, "v": 1, "id": format!("{seconds:028x}"), "organization": "acme", "team": team,
        "time": format!("2026-11-24T10:{:02}:{:02}Z", seconds / 60, seconds % 60),
        "model": MODEL, "operation": "chat_completion", "policy_revision": "5e9fedb300e80eb4/42",
    });
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{line}\n")
}

/// An allowed request of 1,000 input tokens and 1,000 of output: at most $0.000375.
fn allowed(seconds: u64, team: &str, id: &str) -> String {
    let request = json!({"service_tier": "on_demand", "input_tokens": 1_000, "max_output_tokens": 1_000, "user": "u-1"});
    let more = json!({
        "decision": "allowed", "reservation_id": id, "reserved_nano_usd": 375_000, "max_output_tokens": 1_000,
        "degraded": false, "request": request,
    });
    line("decision", seconds, team, more)
}

fn denied(seconds: u64, team: &str, reason: &str) -> String {
    let request = json!({"service_tier": "on_demand", "input_tokens": 1_000, "max_output_tokens": 1_000});
    let violation = json!({"reason": reason, "limit_id": "x", "retryable": true});
    let more =
        json!({"decision": "denied", "violations": [violation], "degraded": false, "request": request});
    line("decision", seconds, team, more)
}

/// 1,000 input tokens and 100 of output: $0.000105.
fn settled(seconds: u64, team: &str, id: &str, result: &str) -> String {
    let usage = json!({"input_tokens": 1_000, "output_tokens": 100});
    let more = json!({
        "reservation_id": id, "outcome": "completed", "result": result, "cost_nano_usd": 105_000, "usage": usage,
    });
    line("settlement", seconds, team, more)
}

fn policy(limits: &str) -> String {
    format!(
        "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"*\"]\n{limits}\n[teams.lab]\nmodels = [\"*\"]\n"
    )
}

/// Three requests of one team within a second, one after two minutes, and what became of them.
fn a_log() -> String {
    [
        allowed(0, "bot", "01a"),
        allowed(0, "bot", "01b"),
        allowed(1, "bot", "01c"),
        allowed(1, "lab", "01d"),
        settled(2, "bot", "01a", "settled"),
        settled(2, "bot", "01b", "settled"),
        settled(2, "bot", "01b", "repeated"),
        settled(3, "bot", "01c", "settled"),
        allowed(120, "bot", "01e"),
        denied(121, "bot", "request_rate_exceeded"),
        // What no policy decided, and what was no request of its own.
        denied(122, "bot", "paused"),
        allowed(123, "bot", "01e").replace("\"degraded\":false", "\"degraded\":false,\"repeated\":true"),
        settled(124, "bot", "01f", "settled"),
        "\n".to_owned(),
        "{\"timestamp\":\"2026-11-24T10:00:00Z\",\"level\":\"INFO\",\"target\":\"tollgate\",\"message\":\"ready\"}\n"
            .to_owned(),
    ]
    .concat()
}

#[test]
fn what_would_have_been_refused_is_counted_by_team_and_limit() {
    let result = replayed(&policy("requests_per_minute = 2"), &a_log(), &[]);
    let counts = json!({
        "source": "decisions", "decisions": 6,
        "stay_allowed_count": 4, "newly_refused_count": 1, "newly_allowed_count": 1, "stay_refused_count": 0,
        "saved_nano_usd": 105_000, "unsettled_nano_usd": 0,
        "skipped_count": 3, "unknown_key_count": 0, "unknown_keys": [], "unmatched_settlement_count": 1, "unbooked_settlement_count": 0,
        "lines": [{
            "team": "bot", "limit_id": "teams.bot.requests_per_minute",
            "refused_count": 1, "newly_refused_count": 1, "shadow_count": 0, "cost_nano_usd": 105_000,
        }],
    });
    assert_eq!(result, counts);
}

#[test]
fn time_passes_as_it_did_and_budgets_hold_what_was_settled() {
    // Two worst cases fit, and the third comes before the two are settled; the last one comes a minute later.
    let result = replayed(&policy("tokens_per_minute = 4_000"), &a_log(), &["--by", "limit"]);
    assert_eq!((&result["newly_refused_count"], &result["saved_nano_usd"]), (&json!(1), &json!(105_000)));
    // Each reserves $0.000375 and costs $0.000105.
    let daily = |usd: &str| policy(&format!("budget = {{ daily_usd = \"{usd}\" }}"));
    let result = replayed(&daily("0.001125"), &a_log(), &["--by", "limit"]);
    assert_eq!(result["newly_refused_count"], 0, "{result}");
    let result = replayed(&daily("0.000750"), &a_log(), &["--by", "limit"]);
    assert_eq!(result["newly_refused_count"], 1, "{result}");
    assert_eq!(result["saved_nano_usd"], 105_000, "{result}");
    // The first one's cost is in the books when the last one comes, which is refused; its own is not in the record.
    let result = replayed(&daily("0.000375"), &a_log(), &[]);
    assert_eq!((&result["newly_refused_count"], &result["saved_nano_usd"]), (&json!(3), &json!(210_000)));
    assert_eq!(result["unsettled_nano_usd"], 375_000);
}

#[test]
fn what_is_not_settled_in_the_record_is_told_apart() {
    let result = replayed(&policy("max_in_flight = 0"), &a_log(), &["--by", "team,reason,model"]);
    assert_eq!(result["newly_refused_count"], 4);
    assert_eq!(result["stay_refused_count"], 1);
    assert_eq!(
        (&result["saved_nano_usd"], &result["unsettled_nano_usd"]),
        (&json!(315_000), &json!(375_000))
    );
    let row = json!({
        "team": "bot", "reason": "too_many_in_flight", "model": MODEL,
        "refused_count": 5, "newly_refused_count": 4, "shadow_count": 0, "cost_nano_usd": 315_000,
    });
    assert_eq!(result["lines"], json!([row]));
}

#[test]
fn what_is_in_shadow_is_counted_and_saves_nothing() {
    let limits = "max_in_flight = 0\nrequests_per_minute = 2\nshadow = [\"max_in_flight\"]";
    let result = replayed(&policy(limits), &a_log(), &[]);
    assert_eq!((&result["newly_refused_count"], &result["saved_nano_usd"]), (&json!(1), &json!(105_000)));
    let shadow: Vec<_> = result["lines"].as_array().unwrap().iter().map(|row| &row["shadow_count"]).collect();
    assert_eq!(shadow, [0, 5]);
}

/// A reservation whose answer no caller got is released; another replica gave the answer, so that the request was sent all the same.
#[test]
fn usage_after_a_release_is_booked() {
    let released =
        settled(2, "bot", "01a", "released").replace("completed", "not_sent").replace("105000", "0");
    let log =
        [allowed(0, "bot", "01a"), released, settled(3, "bot", "01a", "settled"), allowed(60, "bot", "01b")];
    // What the first one cost leaves no room for the second.
    let daily = |usd: &str| policy(&format!("budget = {{ daily_usd = \"{usd}\" }}"));
    let result = replayed(&daily("0.000479"), &log.concat(), &[]);
    assert_eq!(result["newly_refused_count"], 1, "{result}");
    let result = replayed(&daily("0.000480"), &log.concat(), &[]);
    assert_eq!(result["newly_refused_count"], 0, "{result}");
    // It is what a refusal would have saved, once.
    let result = replayed(&policy("max_in_flight = 0"), &log.concat(), &[]);
    assert_eq!(
        (&result["saved_nano_usd"], &result["unsettled_nano_usd"]),
        (&json!(105_000), &json!(375_000)),
        "{result}"
    );
    for result in [&result, &replayed(&policy(""), &log.concat(), &[])] {
        assert_eq!(
            (&result["unmatched_settlement_count"], &result["unbooked_settlement_count"]),
            (&json!(0), &json!(0))
        );
    }
}

#[test]
fn usage_after_the_expiry_is_booked() {
    // Half an hour after a reservation of ten minutes.
    let late = settled(1_800, "bot", "01a", "late");
    let log =
        [allowed(0, "bot", "01a"), allowed(1_799, "bot", "01b"), late, allowed(1_801, "bot", "01c")].concat();
    // Its worst case is charged until then; then there is room for the two others, and for no more.
    let limits = |usd: &str| policy(&format!("budget = {{ daily_usd = \"{usd}\" }}"));
    let result = replayed(&limits("0.000855"), &log, &[]);
    assert_eq!(
        (&result["newly_refused_count"], &result["unbooked_settlement_count"]),
        (&json!(0), &json!(0)),
        "{result}"
    );
    let result = replayed(&limits("0.000854"), &log, &[]);
    assert_eq!(result["newly_refused_count"], 1, "{result}");
}

#[test]
fn what_is_reported_without_a_reservation_counts_for_its_user_tier_and_batch() {
    let reported = |more: Value| {
        let mut line: Value = serde_json::from_str(&settled(0, "bot", "01a", "unreserved")).unwrap();
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n") + &allowed(1, "bot", "01b")
    };
    let refused = |limits: &str, more: Value| {
        replayed(&policy(limits), &reported(more), &[])["newly_refused_count"].clone()
    };
    let per_user = "per_user = { requests_per_minute = 1 }";
    assert_eq!(refused(per_user, json!({"user": "u-1"})), 1);
    assert_eq!(refused(per_user, json!({"user": "u-2"})), 0);
    // Lines of earlier releases do not say.
    assert_eq!(refused(per_user, json!({})), 0);
    // A batch costs half.
    let batch = json!({"batch": {"line_operation": "chat_completion", "request_count": 1, "completion_window_seconds": 86400.0}, "operation": "batch"});
    let daily = "budget = { daily_usd = \"0.000450\" }";
    assert_eq!([refused(daily, json!({})), refused(daily, batch)], [1, 0]);
    let wrong = reported(json!({"service_tier": "spot"}));
    let directory = TempDir::new().unwrap();
    let said = replay(directory.path(), &policy(""), &wrong, &[]).stderr;
    assert!(String::from_utf8_lossy(&said).contains("line 1: `spot` is not a service tier"));
}

#[test]
fn keys_that_the_policy_does_not_declare_are_played_as_their_team() {
    let by = |line: String, key: &str| line.replace("\"team\"", &format!("\"key\":\"{key}\",\"team\""));
    let log = [
        by(allowed(0, "bot", "01a"), "bot-made"),
        by(allowed(1, "bot", "01b"), "bot-made"),
        by(allowed(2, "bot", "01c"), "bot-web"),
    ];
    let key = "[teams.bot.keys.bot-web]\nsha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\nrequests_per_minute = 0\n";
    let limits = format!("requests_per_minute = 100\n{key}");
    let result = replayed(&policy(&limits), &log.concat(), &["--by", "limit"]);
    assert_eq!(result["newly_refused_count"], 1, "{result}");
    assert_eq!(result["unknown_keys"], json!([{"key": "bot-made", "request_count": 2}]));
    let directory = TempDir::new().unwrap();
    let output = replay(directory.path(), &policy(&limits), &log.concat(), &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("2 requests by keys that the policy does not declare, such as created ones: decided as their team's 2 by bot-made"), "{said}");
}

#[test]
fn a_record_comes_by_a_pipe_as_well() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("proposed.toml"), policy("requests_per_minute = 2")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(["replay", "--policy", "proposed.toml", "--decisions", "-", "--json"])
        .current_dir(directory.path());
    let mut child =
        command.env("TMPDIR", directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(a_log().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result, replayed(&policy("requests_per_minute = 2"), &a_log(), &[]));
    // The copy of it is gone.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn lines_of_several_replicas_are_played_by_time() {
    let log: String = a_log().lines().rev().map(|line| format!("{line}\n")).collect();
    let mut result = replayed(&policy("requests_per_minute = 2"), &log, &[]);
    let mut expected = replayed(&policy("requests_per_minute = 2"), &a_log(), &[]);
    // Within a second, which of them is refused is told by their order.
    for result in [&mut result, &mut expected] {
        result["saved_nano_usd"].take();
        result["lines"].take();
    }
    assert_eq!(result, expected);
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    let directory = TempDir::new().unwrap();
    let (sound, limits) = (allowed(0, "bot", "01a"), policy(""));
    for (broken, word) in [
        ("{\"event\":\"decision\"", "EOF while parsing"),
        ("[]", "line 2: "),
        ("{}", "missing field `event`"),
        (&sound.replace("\"v\":1", "\"v\":2"), "version 2 of the decision log is later"),
        (&sound.replace("chat_completion", "chatter"), "`chatter` is not an operation"),
        (&sound.replace("on_demand", "spot"), "`spot` is not a service tier"),
        (&sound.replace("\"allowed\"", "\"maybe\""), "`maybe` is not a decision"),
        (&sound.replace("\"allowed\"", "\"denied\""), "with these violations"),
        (&sound.replace("2026-11-24T", "yesterday"), "line 2: "),
        (&settled(1, "bot", "01a", "settled").replace("completed", "done"), "`done` is not an outcome"),
    ] {
        let output = replay(directory.path(), &limits, &format!("{sound}{broken}\n"), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{broken}");
        assert!(said.contains("decisions.jsonl: line 2: ") && said.contains(word), "{said}");
    }
    let empty = replay(directory.path(), &limits, "\n", &[]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("has no decision in it"));
    let faulty = replay(directory.path(), "[organization]", &sound, &[]);
    assert!(String::from_utf8_lossy(&faulty.stderr).contains("`id` is missing"));
    let by = replay(directory.path(), &limits, &sound, &["--by", "team,colour"]);
    assert!(String::from_utf8_lossy(&by.stderr).contains("team, limit, reason, model"));
}

#[test]
fn people_read_it_as_a_table() {
    let directory = TempDir::new().unwrap();
    let output =
        replay(directory.path(), &policy("requests_per_minute = 2"), &a_log(), &["--color", "never"]);
    let said = String::from_utf8(output.stdout).unwrap();
    for words in [
        "6 requests decided again",
        "1 allowed then, refused now",
        "saved $0.000105",
        "teams.bot.requests_per_minute",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

/// A policy that is played its own record decides as it did.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_that_decided_decides_alike() {
    let limits = "requests_per_minute = 20\ntokens_per_minute = 30_000\nmax_in_flight = 4\nmax_output_tokens = 500\n\
                  budget = { daily_usd = \"0.004\", on_shortfall = \"clamp\", min_output_tokens = 50 }\n\
                  per_user = { requests_per_minute = 7 }";
    let (directory, policy) = (TempDir::new().unwrap(), policy(limits));
    let file = directory.path().join("log.jsonl");
    let path = format!("--decision-log-file={}", file.display());
    let arguments = ["--store=embedded:data", "--admin-enabled=false", "--decision-log-denials"];
    let arguments = [&arguments[..], &["--decision-log-allowed=100%", &path]].concat();
    let process = Process::start_arguments(directory.path(), &policy, &arguments).await;
    let mut client = process.client().await;
    let (mut open, mut denied): (Vec<String>, u64) = (Vec::new(), 0);
    for number in 0..60_i64 {
        let user = ["", "ada", "bob"][usize::try_from(number % 3).unwrap()].to_owned();
        let request =
            AuthorizeRequest { user, ..chat("bot", MODEL, 100 * (number % 9), 1 + 97 * (number % 6)) };
        let answer = client.authorize(request).await.unwrap().into_inner();
        denied += u64::from(answer.decision() == Decision::Denied);
        open.extend(Some(answer.reservation_id).filter(|id| !id.is_empty()));
        if number % 2 == 0 && !open.is_empty() {
            client.record_usage(used(&open.remove(0), 90, 30)).await.unwrap();
        }
    }
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    eventually("all decisions are written", async || {
        lines().lines().filter(|line| line.contains("\"decision\":")).count() == 60
    })
    .await;
    process.stop().await;
    let result = replayed(&policy, &lines(), &[]);
    assert!(denied > 5, "{denied} were denied: too few to learn from");
    assert_eq!(result["decisions"], 60, "{result}");
    assert_eq!(result["stay_refused_count"], denied, "{result}");
    assert_eq!((&result["newly_refused_count"], &result["newly_allowed_count"]), (&json!(0), &json!(0)));
}
