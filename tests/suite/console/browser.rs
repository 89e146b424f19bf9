//! Each page in real Chromium, driven by Playwright: narrow and wide, light and dark, with axe, by keyboard and without script.
//!
//! The scripts are in `tests/clients/console`. Without Chromium or Node the tests say so and pass; with `CI=true` they fail.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{fill, policy, secret, start};
use crate::clients::{Missing, install_modules, skip};

/// Pages of the organization `acme`, below its root.
const PAGES: [&str; 2] = ["/", "/?month=2026-10"];

/// Debian's names of it, and others'.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_at_every_width_in_both_schemes() {
    let directory = TempDir::new().unwrap();
    let (process, admin) = start(&directory, &policy()).await;
    fill(&process).await;
    let paths = PAGES.map(|path| format!("/console/acme{path}"));
    let asked = json!({ "token": secret("admin"), "paths": paths });
    if let Some(faults) = play("look.mjs", admin, asked).await {
        assert_eq!(faults, json!([]), "{faults:#}");
    }
    process.stop().await;
}

/// What `script` answers when it is given `asked` and the address of the pages; `None` where it cannot be run.
async fn play(script: &'static str, admin: SocketAddr, mut asked: Value) -> Option<Value> {
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
    let run = move || {
        let mut command = Command::new("node");
        command.arg(modules.join(script)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(asked.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} ended with {}:\n{said}", output.status);
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
    Ok((install_modules("console", &["browser.mjs", "look.mjs"])?, path))
}
