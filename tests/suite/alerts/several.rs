//! Alerts of several organizations in one process, which have one receiver.

use std::{collections::BTreeSet, fs};

use tempfile::TempDir;

use super::{
    policy,
    receiver::{Answer, Receiver, Request},
    route, webhook,
};
use crate::harness::{Process, eventually};

/// A receiver drops what it takes for a repeat.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_alike_in_two_organizations_is_no_repeat() {
    let (directory, receiver) = (TempDir::new().unwrap(), Receiver::start(Answer::Status(200)).await);
    fs::write(directory.path().join("settings.toml"), webhook("ops", &receiver)).unwrap();
    let [acme, globex] = ["acme", "globex"].map(|one| policy(one, &route("ops")));
    let policies = [("acme", acme.as_str()), ("globex", globex.as_str())];
    let settings = ["--config=settings.toml", "--admin-enabled=false"];
    let process = Process::start_several(directory.path(), &policies, &settings).await;
    for (organization, text) in policies {
        let path = directory.path().join(format!("policies/{organization}.toml"));
        fs::write(path, format!("{text}\n[teams.team.oops]\nx = 1\n")).unwrap();
    }
    eventually("both are told", async || receiver.requests().len() == 2).await;
    let requests = receiver.requests();
    let of = |said: fn(&Request) -> String| requests.iter().map(said).collect::<BTreeSet<_>>();
    let organizations = of(|request| request.json()["data"]["organization"].as_str().unwrap().to_owned());
    assert_eq!(organizations, ["acme", "globex"].map(str::to_owned).into());
    assert_eq!(of(|request| request.json()["data"]["kind"].to_string()).len(), 1);
    let names = of(|request| request.header("webhook-id").to_owned());
    assert_eq!(names.len(), 2, "{names:?}");
    for request in &requests {
        let (name, id) = (request.header("webhook-id"), request.json()["data"]["id"].clone());
        assert!(name.starts_with(id.as_str().unwrap()) && name.ends_with("_open"), "{name}");
    }
    process.stop().await;
}
