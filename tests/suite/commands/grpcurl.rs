//! Each call of grpcurl in the documents by the real grpcurl, as typed but for the address, against a running service; and its answer
//! beside what the page says.

use std::{path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{blocks, documents, shell};
use crate::{clients, harness::Process};

const ADDRESS: &str = "127.0.0.1:50051";
const PLACEHOLDER: &str = "PASTE IT HERE";

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_grpcurl_answers_what_the_page_says() {
    let install = || {
        clients::has_toolchain("Go (for grpcurl)", &[("go", "version")])
            .then(|| clients::build("grpcurl").unwrap_or_else(|missing| panic!("no grpcurl: {missing}")))
    };
    let Some(built) = tokio::task::spawn_blocking(install).await.unwrap() else { return };
    let (mut calls, mut compared) = (0, 0);
    for (name, text) in documents() {
        // What one section shows happens on a service of its own.
        for section in text.split("\n## ").filter(|section| section.contains("  grpcurl -plaintext ")) {
            let directory = TempDir::new().unwrap();
            let example = include_str!("../../../examples/policy.toml");
            let process = Process::start(directory.path(), example, "embedded:./data").await;
            let mut session = Session { grpcurl: built.join("grpcurl"), process, answers: Vec::new() };
            for block in blocks(&format!("\n{section}")) {
                let outcome = tokio::task::block_in_place(|| session.run(&block));
                calls += outcome.unwrap_or_else(|fault| panic!("{name}: {fault}\n{block}"));
            }
            compared += session.compare(section, &name);
            session.process.stop().await;
        }
    }
    assert!(calls >= 12 && compared >= 3, "{calls} calls, {compared} answers compared");
}

/// The calls of one section and their answers.
struct Session {
    grpcurl: PathBuf,
    process: Process,
    answers: Vec<Value>,
}

impl Session {
    /// Runs the calls of a block, and those of a loop as often as that says; how many they were.
    fn run(&mut self, block: &str) -> Result<usize, String> {
        let (mut calls, mut times) = (0, 1);
        for command in shell::commands(block) {
            match command.program() {
                "for" => times = command.words.len() - 3,
                "done" => times = 1,
                "grpcurl" => {
                    for _ in 0..times {
                        self.call(&command.words[1..])?;
                        calls += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(calls)
    }

    fn call(&mut self, words: &[String]) -> Result<(), String> {
        let address = self.process.address().to_string();
        let reserved = self.answers.iter().rev().find_map(|answer| answer["reservationId"].as_str());
        let reserved = reserved.unwrap_or_default();
        let words = words.iter().map(|word| word.replace(ADDRESS, &address).replace(PLACEHOLDER, reserved));
        let output = Command::new(&self.grpcurl).args(words).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        if text.starts_with('{') {
            self.answers.push(serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?);
        } else if !text.lines().any(|line| line == "tollgate.v1.PolicyService") {
            return Err(format!("the list lacks the service: {text}"));
        }
        Ok(())
    }

    /// Holds the amounts in the prose of `section`, and the answer in its block of JSON, against what came; how many they were.
    fn compare(&self, section: &str, name: &str) -> usize {
        let amounts = |field: &str| {
            self.answers.iter().filter_map(|answer| dollars(&answer[field])).collect::<Vec<_>>()
        };
        let known = [amounts("reservedCost"), amounts("cost")].concat();
        let prose: String = section.split("\n```").step_by(2).collect();
        let shown = prose.split("$0.").skip(1).map(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            format!("0.{}", &rest[..digits])
        });
        let mut compared = 0;
        for amount in shown {
            assert!(known.contains(&amount), "{name} says ${amount}, and these came: {known:?}");
            compared += 1;
        }
        let Some((_, block)) = section.split_once("\n```json\n") else { return compared };
        let shown: Value = serde_json::from_str(block.split("\n```").next().unwrap()).unwrap();
        let mut last = self.answers.last().expect("an answer").clone();
        // The page says what it leaves out.
        assert!(section.contains("`limits`, the state of every limit that applies, is left out here"));
        last.as_object_mut().unwrap().remove("limits").expect("limits");
        assert_eq!(normalised(&shown), normalised(&last), "{name}");
        compared + 1
    }
}

/// An amount as the pages write it, without the currency.
fn dollars(money: &Value) -> Option<String> {
    let units = money.get("currencyCode").map(|_| money["units"].as_str().unwrap_or("0"))?;
    let nanos = money["nanos"].as_u64().unwrap_or_default();
    let text = format!("{units}.{nanos:09}");
    Some(text.trim_end_matches('0').to_owned())
}

/// Without the times, which differ from run to run.
fn normalised(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let of = |(name, inner): (&String, &Value)| match name.as_str() {
                "retryDelay" => (name.clone(), rounded(inner.as_str().unwrap()).into()),
                _ => (name.clone(), normalised(inner)),
            };
            Value::Object(fields.iter().map(of).collect())
        }
        Value::Array(items) => items.iter().map(normalised).collect(),
        Value::String(text) => match text.split_once("the same request passes in ") {
            Some((before, _)) => before.into(),
            None => value.clone(),
        },
        other => other.clone(),
    }
}

/// Seconds to the nearest half minute: calls on a busy machine are apart by as much.
fn rounded(delay: &str) -> String {
    let seconds: f64 = delay.trim_end_matches('s').parse().unwrap();
    format!("about {} s", (seconds / 30.0).round() * 30.0)
}

#[test]
fn what_differs_only_in_time_is_the_same() {
    let of = |delay: &str, passes: &str| serde_json::json!({"retryDelay": delay, "message": format!("used; the same request passes in {passes}")});
    assert_eq!(normalised(&of("60.068s", "60.068s")), normalised(&of("58.2s", "58.2s")));
    assert_ne!(normalised(&of("60s", "60s")), normalised(&of("606.1s", "10m 6s")));
    let money = serde_json::json!({"currencyCode": "USD", "nanos": 182_100});
    assert_eq!(dollars(&money).as_deref(), Some("0.0001821"));
}
