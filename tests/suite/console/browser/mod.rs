//! Each page in real Chromium, driven by Playwright: narrow and wide, light and dark, with axe, by keyboard and without script.
//!
//! The scripts are in `tests/clients/console`. Without Chromium or Node the tests say so and pass; with `CI=true` they fail.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use tollgate::rpc::proto::{
    PauseRequest, PauseTarget, key_service_client::KeyServiceClient,
    pause_service_client::PauseServiceClient, pause_target::Target,
};

use super::{fill, policy, secret, start};
use crate::{
    access::{by, digest},
    clients::{Missing, install_modules, skip},
    harness::{Process, chat, connect, new_key, used},
};

/// A text that others wrote, as it comes in reasons, users and labels.
const HOSTILE: &str = "\"><img src=x onerror=alert(1)> =1+1";

/// Pages of the organization `acme`, below its root.
const PAGES: [&str; 18] = [
    "/",
    "/?month=2026-10",
    "/decisions",
    "/decisions?result=denied&team=support",
    "/teams",
    "/teams/support",
    "/teams/support?by=labels.environment",
    "/teams/research",
    "/keys",
    "/keys/support-prod-web?team=support",
    "/keys?state=revoked",
    "/pauses",
    "/policy",
    "/policy/proposal",
    "/reports",
    "/reports?by=team,model",
    "/alerts",
    "/audit",
];

/// Debian's names of it, and others'.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_at_every_width_in_both_schemes() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    fill(&process).await;
    furnish(&process).await;
    let paths = PAGES.map(|path| format!("/console/acme{path}"));
    let asked = json!({ "token": secret("admin"), "paths": paths });
    if let Some(faults) = play("look.mjs", admin, asked).await {
        assert_eq!(faults, json!([]), "{faults:#}");
    }
    process.stop().await;
}

/// A created key, a pause, and usage of hostile names.
async fn furnish(process: &Process) {
    let channel = connect(process.address()).await;
    let mut keys = KeyServiceClient::new(channel.clone());
    keys.create_key(by(&secret("admin"), new_key("support-prod-web", "support"))).await.unwrap();
    let request = PauseRequest {
        target: Some(PauseTarget { target: Some(Target::Team("spare".to_owned())) }),
        reason: HOSTILE.to_owned(),
    };
    PauseServiceClient::new(channel).pause(by(&secret("admin"), request)).await.unwrap();
    let mut client = process.client().await;
    let mut request = chat("support", "openai/gpt-oss-20b", 1_000, 500);
    request.user = HOSTILE.to_owned();
    request.labels = [("environment".to_owned(), HOSTILE.to_owned())].into();
    let answer = client.authorize(by(&secret("gateway"), request)).await.unwrap().into_inner();
    client.record_usage(by(&secret("gateway"), used(&answer.reservation_id, 1_000, 400))).await.unwrap();
}

/// A person signs in by the form, sees what changes while they look, makes a key whose secret is shown once, pauses a team, loses
/// their role while they look, and signs out.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_visits_the_console() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    let asked = json!({ "secret": secret("admin"), "other": secret("auditor") });
    let file = directory.path().join("policy.toml");
    let faults = play_with("visit.mjs", admin, asked, async |wish| match wish {
        "spend" => fill(&process).await,
        "withdraw" => {
            let without = policy().replace("[access.tokens.admin]", "[access.tokens.former]");
            std::fs::write(&file, without.replace(&digest(&secret("admin")), &digest("tgs_of_another")))
                .unwrap();
        }
        said => panic!("{said}"),
    });
    if let Some(faults) = faults.await {
        assert_eq!(faults, json!([]), "{faults:#}");
    }
    process.stop().await;
}

/// What `script` answers when it is given `asked` and the address of the pages; `None` where it cannot be run.
async fn play(script: &str, admin: SocketAddr, asked: Value) -> Option<Value> {
    play_with(script, admin, asked, async |said| panic!("{said}")).await
}

/// The same, with each line that the script says on its standard error made true.
async fn play_with(
    script: &str,
    admin: SocketAddr,
    mut asked: Value,
    grant: impl AsyncFn(&str),
) -> Option<Value> {
    let prepared = tokio::task::spawn_blocking(install).await.unwrap();
    let (modules, browser) = match prepared {
        Ok(prepared) => prepared,
        Err(missing) => {
            skip("console's browser", &missing);
            return None;
        }
    };
    asked["base"] = format!("http://{admin}").into();
    asked["browser"] = browser.into();
    let (said, mut wishes) = mpsc::unbounded_channel();
    let program = modules.join(script);
    let running = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("node");
        command.arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            said.send(line.unwrap()).unwrap();
        }
        child.wait_with_output().unwrap()
    });
    let mut failed = String::new();
    while let Some(line) = wishes.recv().await {
        match line.as_str() {
            wish @ ("spend" | "withdraw") => grant(wish).await,
            // Node says in several lines why it failed.
            said => failed = failed + said + "\n",
        }
    }
    let output = running.await.unwrap();
    assert!(output.status.success(), "{script} ended with {}:\n{failed}", output.status);
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn install() -> Result<(std::path::PathBuf, String), Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let runs = |name: &&&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let browser = BROWSERS.iter().find(runs).ok_or("there is no Chromium")?;
    let path = Command::new("sh")
        .args(["-c", &format!("command -v {browser}")])
        .output()
        .map_err(|e| e.to_string())?;
    let path = String::from_utf8_lossy(&path.stdout).trim().to_owned();
    Ok((install_modules("console", &["browser.mjs", "look.mjs", "visit.mjs"])?, path))
}
