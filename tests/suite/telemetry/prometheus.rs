//! The rules and the dashboard that are shipped, through real Prometheus, promtool and amtool.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use tollgate::{
    rpc::proto,
    telemetry::{Kind, METRICS},
};

use super::{MODEL, POLICY, start};
use crate::{
    envoy::http::Request,
    guard::Guarded,
    harness::{chat, eventually, is_installed, used},
    redis_server::free_port,
};

/// How often requests are played and the queries asked again.
const ROUNDS: usize = 40;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn succeeds(output: &Output) {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat();
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_rules_are_sound_and_do_what_their_tests_say() {
    if !is_installed("promtool") {
        return;
    }
    let promtool = |arguments: &[&str]| succeeds(&Command::new("promtool").args(arguments).output().unwrap());
    promtool(&["check", "rules", deploy("prometheus/rules.yml").to_str().unwrap()]);
    promtool(&["check", "config", deploy("prometheus/prometheus.yml").to_str().unwrap()]);
    promtool(&["test", "rules", deploy("prometheus/rules-test.yml").to_str().unwrap()]);
}

#[test]
fn the_routes_are_sound() {
    if is_installed("amtool") {
        let path = deploy("alertmanager/alertmanager.yml");
        succeeds(&Command::new("amtool").arg("check-config").arg(path).output().unwrap());
    }
}

#[test]
fn the_dashboard_is_what_its_script_makes() {
    let made = Command::new("python3").arg("-B").arg(deploy("grafana/dashboard.py")).output().unwrap();
    succeeds(&made);
    let kept = fs::read_to_string(deploy("grafana/tollgate.json")).unwrap();
    assert!(String::from_utf8_lossy(&made.stdout) == kept, "deploy/grafana/tollgate.json is not current");
    let board: Value = serde_json::from_str(&kept).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    for panel in panels {
        let place = &panel["gridPos"];
        assert!(place["x"].as_i64().unwrap() + place["w"].as_i64().unwrap() <= 24, "{panel}");
    }
}

/// Every query of the dashboard, with its variables put in.
fn queries_of_dashboard() -> Vec<String> {
    let board: Value =
        serde_json::from_str(&fs::read_to_string(deploy("grafana/tollgate.json")).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let put_in = |target: &Value| {
        let text = target["expr"].as_str().unwrap();
        text.replace("$__rate_interval", "1m").replace("$organization", ".*").replace("$team", ".*")
    };
    targets.map(put_in).collect()
}

/// The names of rules that record, and every expression of the rules.
fn rules() -> (Vec<String>, Vec<String>) {
    let text = fs::read_to_string(deploy("prometheus/rules.yml")).unwrap();
    let records = text.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).map(str::to_owned);
    let mut expressions = Vec::<String>::new();
    let mut is_open = false;
    for line in text.lines() {
        let line = line.trim();
        match line.strip_prefix("expr: ") {
            Some(">-") => {
                is_open = true;
                expressions.push(String::new());
            }
            Some(whole) => expressions.push(whole.to_owned()),
            None if is_open && (line.contains(": ") || line.starts_with("- ")) && !line.contains('(') => {
                is_open = false
            }
            None if is_open => {
                let last = expressions.last_mut().unwrap();
                last.push(' ');
                last.push_str(line);
            }
            None => {}
        }
    }
    (records.collect(), expressions)
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_exist() {
    let (records, expressions) = rules();
    assert!(records.len() > 3 && expressions.len() > 10, "{expressions:?}");
    let known = |name: &str| {
        records.iter().any(|record| record == name)
            || METRICS.iter().any(|spec| match spec.kind {
                Kind::Histogram => ["_bucket", "_count", "_sum"]
                    .iter()
                    .any(|part| name.strip_suffix(part) == Some(spec.prometheus)),
                _ => name == spec.prometheus,
            })
    };
    for query in expressions.into_iter().chain(queries_of_dashboard()) {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
        let names = query.split(|letter: char| !is_part(letter));
        let ours =
            |name: &&str| ["tollgate", "process_", "rpc_server"].iter().any(|start| name.starts_with(start));
        let named: Vec<_> = names.filter(ours).collect();
        assert!(!named.is_empty(), "{query}");
        for name in named {
            assert!(known(name), "{name} in {query}");
        }
    }
}

/// What Prometheus answers to `query`.
async fn query(prometheus: SocketAddr, query: &str) -> Vec<Value> {
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in query.bytes() {
        write!(path, "%{byte:02x}").unwrap();
    }
    let answer = Request::new("GET", &path).send(prometheus).await.json();
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}")).clone()
}

/// Requests of every kind that the queries look for.
async fn play(client: &mut super::Client, rounds: usize) {
    for _ in 0..rounds {
        for team in ["chatbot", "research"] {
            let answer = client.authorize(chat(team, MODEL, 1_000, 500)).await.unwrap().into_inner();
            if !answer.reservation_id.is_empty() {
                client.record_usage(used(&answer.reservation_id, 1_000, 300)).await.unwrap();
            }
        }
    }
}

/// Reservations to report Groq's 429 for: it closes the model, so they are made before.
async fn to_be_limited(client: &mut super::Client) -> Vec<String> {
    let mut reservations = Vec::new();
    for _ in 0..ROUNDS + 1 {
        let answer =
            client.authorize(chat("research", "openai/gpt-oss-120b", 10, 10)).await.unwrap().into_inner();
        reservations.push(answer.reservation_id);
    }
    reservations
}

async fn is_limited_by_groq(client: &mut super::Client, reservations: &mut Vec<String>) {
    let limited = proto::RecordUsageRequest {
        reservation_id: reservations.pop().unwrap(),
        outcome: proto::Outcome::RateLimited.into(),
        upstream_retry_delay: Some(prost_types::Duration { seconds: 120, nanos: 0 }),
        ..Default::default()
    };
    client.record_usage(limited).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_rules_and_dashboard_finds_something_after_a_few_requests() {
    if !is_installed("prometheus") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let key = directory.path().join("groq-key");
    fs::write(&key, "gsk_not_a_real_key_of_groq_1234567890\n").unwrap();
    // A budget that is used up is shown when it was.
    let used_up = "[teams.idle]\nmodels = [\"*\"]\nbudget = { monthly_usd = \"0.00\" }\n";
    let policy =
        format!("{POLICY}\n{used_up}\n[projects.default]\nkeys = [{{ file = \"{}\" }}]\n", key.display());
    let (process, admin) = start(&directory, &policy, &[]).await;
    let mut client = process.client().await;
    play(&mut client, 3).await;
    let mut reservations = to_be_limited(&mut client).await;
    is_limited_by_groq(&mut client, &mut reservations).await;
    let own = directory.path().join("prometheus");
    fs::create_dir(&own).unwrap();
    let rules_file = deploy("prometheus/rules.yml");
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n  - job_name: tollgate\n    \
         static_configs: [{{ targets: [\"{admin}\"] }}]\n",
        rules_file.display()
    );
    fs::write(own.join("prometheus.yml"), config).unwrap();
    let address = free_port();
    let arguments = [
        format!("--config.file={}", own.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", own.join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let prometheus = Guarded::start(&own, Path::new("prometheus"), &arguments);
    eventually("Prometheus listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
    eventually("Prometheus is ready", async || {
        Request::new("GET", "/-/ready").send(address).await.status == 200
    })
    .await;
    eventually("Prometheus has scraped", async || !query(address, "tollgate_build_info").await.is_empty())
        .await;
    let (records, expressions) = rules();
    let mut left: Vec<_> = records.into_iter().chain(queries_of_dashboard()).collect();
    // Rates need two scrapes that differ.
    for _ in 0..ROUNDS {
        play(&mut client, 1).await;
        is_limited_by_groq(&mut client, &mut reservations).await;
        let mut empty = Vec::new();
        for text in left {
            if query(address, &text).await.is_empty() {
                empty.push(text);
            }
        }
        left = empty;
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let page = super::page(admin).await;
    assert!(left.is_empty(), "nothing is found by {left:#?}\n{page}");
    // What alerts is usually empty, but it can be asked.
    for expression in expressions {
        query(address, &expression).await;
    }
    let check = Command::new("sh")
        .args(["-c", &format!("curl -s http://{admin}/metrics | promtool check metrics")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(!said.contains("error") && !said.contains("no help text"), "{said}");
    drop(prometheus);
    process.stop().await;
}
