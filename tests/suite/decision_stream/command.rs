//! `tollgate decisions tail`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tempfile::TempDir;
use tollgate::rpc::proto::{self, policy_service_client::PolicyServiceClient};

use super::{
    CALLERS, MODEL, Seen, all, decide, policy,
    processes::{ends_by_outage, start},
};
use crate::{
    access::by,
    harness::{Process, StoreKind, chat, connect, eventually, organization},
    redis_server::{RedisServer, free_port},
};

/// `tollgate decisions tail`. Killed when dropped.
struct Tail(Child, Arc<Mutex<Vec<String>>>);

impl Tail {
    fn start(process: &Process, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["decisions", "tail", "--address", &process.address().to_string()]).args(arguments);
        command.env("TOLLGATE_TOKEN", "tgs_all").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (lines, out) = (Arc::<Mutex<Vec<String>>>::default(), child.stdout.take().unwrap());
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self(child, lines)
    }

    fn lines(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }

    /// Ctrl-C, and the exit code.
    async fn interrupt(mut self) -> Option<i32> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut code = None;
        eventually("it ends", async || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_prints_what_comes_until_it_is_stopped() {
    let (directory, text) = (TempDir::new().unwrap(), policy("acme", &CALLERS));
    let admin = format!("--admin={}", free_port());
    let process = Process::start_arguments(directory.path(), &text, &[&admin]).await;
    let channel = connect(process.address()).await;
    let lines = Tail::start(&process, &[]);
    let json = Tail::start(&process, &["--json", "--decision", "denied", "--team", "lab,bot"]);
    eventually("both have printed", async || {
        decide(&channel, "lab", MODEL, "user").await;
        lines.lines().len() > 2 && !json.lines().is_empty()
    })
    .await;
    let printed = lines.lines();
    assert!(printed[0].starts_with("TIME") && printed[0].ends_with("WHY"), "{printed:?}");
    assert!(
        printed[1..].iter().any(|line| line.contains("denied") && line.contains("requests")),
        "{printed:?}"
    );
    let event: Value = serde_json::from_str(&json.lines()[0]).unwrap();
    assert_eq!((&event["decision"], &event["team"]), (&"DECISION_DENIED".into(), &"lab".into()));
    assert_eq!(event["violations"][0]["reason"], "REASON_REQUEST_RATE_EXCEEDED");
    assert_eq!(lines.interrupt().await, Some(0));

    assert_eq!(json.interrupt().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_asks_again_and_continues() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory) = (RedisServer::start(), TempDir::new().unwrap());
    let process =
        start(&directory, &policy(&organization(), &CALLERS), &redis, "--store-timeout=250ms").await;
    let channel = connect(process.address()).await;
    let tail = Tail::start(&process, &["--json"]);
    let seen = Seen::open(&channel, "tgs_all", all()).await;
    let mut client = PolicyServiceClient::new(channel.clone());
    let mut until_printed = async |user: &'static str| {
        eventually("it is printed", async || {
            let request = proto::AuthorizeRequest { user: user.to_owned(), ..chat("bot", MODEL, 1, 1) };
            let _ = client.authorize(by("tgs_all", request)).await;
            tail.lines().iter().any(|line| line.contains(user))
        })
        .await;
    };
    until_printed("before").await;
    redis.freeze();
    ends_by_outage(&seen).await;
    redis.thaw();
    until_printed("after").await;
    let ids =
        tail.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap()["id"].to_string());
    assert!(ids.is_sorted_by(|one, next| one < next), "none is printed twice");
    assert_eq!(tail.interrupt().await, Some(0));
}
