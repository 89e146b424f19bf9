//! Each page in real Chromium, driven by Playwright: narrow and wide, light and dark, enlarged and on paper, with axe, by keyboard and
//! without script; people who sign in through a real OpenID provider; thousands of keys; a store that stops and a policy that changes.
//!
//! The scripts are in `tests/clients/console`. Without Chromium or Node the tests say so and pass; with `CI=true` they fail.

mod look;
mod many;
mod outage;
mod sign_in;
mod visit;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::clients::{Missing, install_modules, skip};

/// A text that others wrote, as it comes in reasons, users, labels and names of models.
const HOSTILE: &str = "\"><img src=x onerror=alert(1)> =1+1";

/// Debian's names of it, and others'.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What the scripts are, and what they share.
const SCRIPTS: [&str; 7] =
    ["browser.mjs", "change.mjs", "look.mjs", "many.mjs", "outage.mjs", "sign-in.mjs", "visit.mjs"];

/// Begins a line by which a script asks for something to be made true.
const WISH: &str = "wish ";

/// What `script` finds when it is given `asked` and the address of the pages, which has to be nothing. Each wish of its is granted.
/// Where it cannot be run, that is said.
async fn play(script: &'static str, base: &str, mut asked: Value, grant: impl AsyncFn(&str)) {
    let (modules, browser) = match tokio::task::spawn_blocking(install).await.unwrap() {
        Ok(prepared) => prepared,
        Err(missing) => return skip("console's browser", &missing),
    };
    asked["base"] = base.into();
    asked["browser"] = browser.into();
    let (said, mut lines) = mpsc::unbounded_channel();
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
    while let Some(line) = lines.recv().await {
        match line.strip_prefix(WISH) {
            Some(wish) => grant(wish).await,
            // Node says in several lines why it failed.
            None => failed = failed + &line + "\n",
        }
    }
    let output = running.await.unwrap();
    assert!(output.status.success(), "{script} ended with {}:\n{failed}", output.status);
    let faults: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(faults, Value::Array(Vec::new()), "{script}: {faults:#}");
}

/// For scripts that wish for nothing.
async fn no_wish(wish: &str) {
    panic!("it wishes for {wish}")
}

/// The scripts beside their packages, and the browser.
fn install() -> Result<(PathBuf, String), Missing> {
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
    Ok((install_modules("console", &SCRIPTS)?, path))
}
