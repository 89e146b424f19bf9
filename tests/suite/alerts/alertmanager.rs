//! The real Alertmanager, where it is installed.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    lasting::{self, lift, limited},
    policy,
    receiver::{Answer, Receiver},
    route, setting, spend, start,
};
use crate::{
    harness::{eventually, is_installed},
    redis_server::free_port,
};

struct Alertmanager(Child);

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn alertmanager_shows_an_alert_until_its_period_ends() {
    if !is_installed("prometheus-alertmanager") || !is_installed("amtool") {
        return;
    }
    let (directory, address) = (TempDir::new().unwrap(), free_port());
    let config = "route:\n  receiver: none\nreceivers:\n  - name: none\n";
    fs::write(directory.path().join("alertmanager.yml"), config).unwrap();
    let started = Command::new("prometheus-alertmanager")
        .args(["--config.file=alertmanager.yml", "--storage.path=am", "--cluster.listen-address="])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _alertmanager = Alertmanager(started.unwrap());
    let settings = setting("am", "alertmanager", &format!("http://{address}/"), "");
    let server = start(directory.path(), &policy("acme", &route("am")), &settings, "embedded:data").await;
    spend(&server, 900).await;
    let shown = || {
        let url = format!("--alertmanager.url=http://{address}");
        let output = Command::new("amtool").args(["alert", "query", &*url, "-o", "json"]).output().unwrap();
        serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap_or_default()
    };
    eventually("both are shown", async || shown().len() == 2).await;
    for alert in shown() {
        let labels = &alert["labels"];
        assert_eq!(
            (&labels["alertname"], &labels["team"]),
            (&"TollgateBudgetThreshold".into(), &"team".into())
        );
        assert!(["50%", "80%"].contains(&labels["threshold"].as_str().unwrap()));
        assert_eq!(alert["status"]["state"], "active");
        assert!(alert["endsAt"].as_str().unwrap().contains("-01T00:00:00"), "{alert}");
    }
}

/// Alertmanager gets the end of what had none, and labels that tell cooldowns apart.
#[tokio::test]
async fn alertmanager_is_told_when_a_cooldown_ends() {
    let (directory, receiver) = (TempDir::new().unwrap(), Receiver::start(Answer::Status(200)).await);
    let settings = setting("ops", "alertmanager", &format!("http://{}", receiver.address), "");
    let policy = lasting::policy("acme", "upstream_cooldown");
    fs::write(directory.path().join("groq-key"), "gsk_first").unwrap();
    let server = start(directory.path(), &policy, &settings, "embedded:data").await;
    limited(&server, Duration::from_secs(120)).await;
    // Alertmanager is not told that it began once it is over.
    eventually("it opens", async || receiver.requests().len() == 1).await;
    lift(&server).await;
    eventually("both have arrived", async || receiver.requests().len() == 2).await;
    let [opened, resolved] = [0, 1].map(|number| receiver.requests()[number].json()[0].clone());
    assert_eq!(opened["labels"], resolved["labels"]);
    let labels = ["alertname", "project", "model", "service_tier"];
    let labels = labels.map(|label| opened["labels"][label].as_str().unwrap());
    assert_eq!(labels, ["TollgateUpstreamCooldown", "main", "m/text", "on_demand"]);
    let end = |alert: &Value| alert["endsAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let start = opened["startsAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(end(&opened) > start + jiff::SignedDuration::from_mins(10), "{opened}");
    assert!(end(&resolved) < start + jiff::SignedDuration::from_mins(2), "{resolved}");
}
