//! The decision log of a real server, in JSON: in a file, and in the log of the process.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::rpc::proto::{Decision, authorize_request::Caller};

use crate::{
    access::digest,
    harness::{PATIENCE, Process, chat, eventually, used},
};

const MODEL: &str = "openai/gpt-oss-20b";

fn policy() -> String {
    format!(
        "organization = {{ id = \"acme\" }}\n\
         [teams.own]\nmodels = [\"*\"]\nrequests_per_minute = 2\nmax_output_tokens = 50\n\
         [teams.own.keys.own-web]\nsha256 = \"{}\"\nlabels = {{ cost_center = \"7\" }}\nrequests_per_minute = 2\n",
        digest("tgk_of_own")
    )
}

async fn start(directory: &Path, more: &[&str]) -> Process {
    let arguments = ["--store=embedded:data", "--admin-enabled=false", "--decision-log-denials"];
    let arguments = [&arguments[..], &["--decision-log-allowed=100%"], more].concat();
    Process::start_arguments(directory, &policy(), &arguments).await
}

/// Asks three times, of which the last is denied, and reports the first. Returns the ids of the reservations.
async fn play(process: &Process) -> Vec<String> {
    let mut client = process.client().await;
    let mut ids = Vec::new();
    // The last one repeats the first.
    for tokens in [1200, 7, 8, 1200] {
        let mut request = chat("", MODEL, tokens, 40);
        request.caller = Some(Caller::ApiKey("tgk_of_own".to_owned()));
        request.user = "u-1".to_owned();
        request.request_id = format!("r-{tokens}");
        request.labels.insert("env".to_owned(), "test".to_owned());
        let answer = client.authorize(request).await.unwrap().into_inner();
        ids.push(answer.reservation_id.clone());
        assert_eq!(answer.decision() == Decision::Denied, ids.len() == 3);
    }
    assert_eq!(ids.pop().as_ref(), ids.first());
    for _ in 0..2 {
        client.record_usage(used(&ids[0], 1100, 30)).await.unwrap();
    }
    ids
}

/// The lines of the decision log among those of `text`.
fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["v"] == 1).collect()
}

/// What the six lines have to say, without what differs from run to run.
fn check(lines: &[Value], ids: &[String]) {
    let kept = |line: &Value| {
        let mut line = line.clone();
        let fields = line.as_object_mut().unwrap();
        for name in ["timestamp", "level", "target", "message"] {
            fields.remove(name);
        }
        let (id, time) = (fields.remove("id").unwrap(), fields.remove("time").unwrap());
        assert_eq!(id.as_str().unwrap().len(), 28);
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert!(fields.remove("replica").unwrap().as_str().unwrap().contains(':'));
        assert!(fields.remove("policy_revision").unwrap().as_str().unwrap().contains('/'));
        line
    };
    let ids_of_lines: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert!(ids_of_lines.is_sorted_by(|a, b| a < b), "{ids_of_lines:?}");
    let common = |event: &str, more: Value| {
        let mut line = json!({
            "event": event, "v": 1, "organization": "acme", "team": "own", "key": "own-web", "model": MODEL,
            "operation": "chat_completion",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let asked = |tokens: u64| json!({"request_id": format!("r-{tokens}"), "user": "u-1", "service_tier": "on_demand", "input_tokens": tokens, "max_output_tokens": 40});
    let labels = json!({"env": "test", "cost_center": "7"});
    let allowed = |at: usize, tokens: u64, cost: u64| {
        common(
            "decision",
            json!({
                "decision": "allowed", "reservation_id": ids[at], "reserved_nano_usd": cost, "max_output_tokens": 40,
                "degraded": false, "labels": labels, "request": asked(tokens),
            }),
        )
    };
    let refusal = |limit: &str, scope: &str| {
        json!({
            "reason": "request_rate_exceeded", "scope": scope, "limit_id": limit, "quantity": "requests",
            "limit": 2, "used": 2, "requested": 1, "retryable": true,
        })
    };
    let settled = |result: &str| {
        common(
            "settlement",
            json!({
                "reservation_id": ids[0], "outcome": "completed", "result": result, "cost_nano_usd": 91_500,
                "usage": {"input_tokens": 1100, "output_tokens": 30},
            }),
        )
    };
    let mut told: Vec<_> = lines.iter().map(kept).collect();
    for violation in told[2]["violations"].as_array_mut().unwrap() {
        let delay = violation.as_object_mut().unwrap().remove("retry_delay_seconds").unwrap();
        assert!((0.0..=65.0).contains(&delay.as_f64().unwrap()), "{delay}");
    }
    let denied = common(
        "decision",
        json!({
            "decision": "denied", "degraded": false, "labels": labels, "request": asked(8),
            "violations": [
                refusal("teams.own.requests_per_minute", "team"),
                refusal("teams.own.keys.own-web.requests_per_minute", "key"),
            ],
        }),
    );
    let first = allowed(0, 1200, 102_000);
    let mut again = first.clone();
    again["repeated"] = json!(true);
    let expected = [first, allowed(1, 7, 12_525), denied, again, settled("settled"), settled("repeated")];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_each_decision_and_settlement_in_one_line() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("decisions.jsonl");
    fs::write(&file, "{\"v\":1,\"cut sh").unwrap();
    let process =
        start(directory.path(), &["--decision-log-file=decisions.jsonl", "--log-format=text"]).await;
    let text = || fs::read_to_string(&file).unwrap();
    let ids = play(&process).await;
    eventually("all is written", async || lines(&text()).len() == 6).await;
    check(&lines(&text()), &ids);
    assert!(!process.log().contains("request denied") && !text().contains("tgk_"), "{}", process.log());
    // As `copytruncate` does.
    fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    process.client().await.record_usage(used(&ids[1], 7, 1)).await.unwrap();
    eventually("it goes on", async || text().ends_with('\n')).await;
    assert!(text().starts_with("{\"event\":\"settlement\""), "{:?}", text());
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_process_has_the_same_lines() {
    let directory = TempDir::new().unwrap();
    let process = start(directory.path(), &["--log-format=json"]).await;
    let ids = play(&process).await;
    eventually("all is written", async || lines(&process.log()).len() == 6).await;
    let lines = lines(&process.log());
    for (line, message) in lines.iter().zip(["allowed", "allowed", "denied", "allowed", "settled", "settled"])
    {
        assert_eq!(line["message"], format!("request {message}"));
        assert_eq!((&line["level"], &line["target"]), (&json!("INFO"), &json!("tollgate::decision")));
        assert_eq!(line["timestamp"], line["time"]);
    }
    check(&lines, &ids);
    process.stop().await;
}

#[test]
fn a_file_that_cannot_be_written_stops_the_start() {
    let directory = TempDir::new().unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen=127.0.0.1:0", "--admin-enabled=false", "--store=embedded:data"])
        .args(["--decision-log-denials", "--decision-log-file=absent/decisions.jsonl"])
        .env_remove("TOLLGATE_CONFIG")
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while process.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    let _ = process.kill();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in ["the decision log `absent/decisions.jsonl` cannot be opened", "--decision-log-file"] {
        assert!(said.contains(words), "{said}");
    }
}
