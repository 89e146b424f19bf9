//! What is known of keys and pauses is young, or nothing is decided: on every worker of a process, and after it stood still.

use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::rpc::proto::{
    PauseRequest, PauseTarget, Reason, pause_service_client::PauseServiceClient, pause_target::Target,
    policy_service_client::PolicyServiceClient,
};
use tonic::{Code, transport::Channel};

use crate::{
    harness::{Process, StoreKind, chat, connect, eventually, organization},
    redis_server::RedisServer,
};

const MODEL: &str = "m/test";
const TEAMS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// More than the bound on how old what is known may be.
const STANDSTILL: Duration = Duration::from_millis(1_500);

fn policy() -> String {
    let mut text = format!(
        "[organization]\nid = \"{}\"\n[[prices]]\nmodel = \"{MODEL}\"\n\
         input_usd_per_million_tokens = \"0.001\"\noutput_usd_per_million_tokens = \"0.001\"\n",
        organization()
    );
    for team in TEAMS {
        text += &format!("[teams.{team}]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\n");
    }
    text
}

async fn pause(process: &Process, team: &str) {
    let mut admin = PauseServiceClient::new(connect(process.address()).await);
    let target = Some(PauseTarget { target: Some(Target::Team(team.to_owned())) });
    admin.pause(PauseRequest { target, reason: "INC-7".to_owned() }).await.unwrap();
}

/// What came of a request of `team`.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Allowed,
    Paused,
    Unavailable,
}

async fn ask(client: &mut PolicyServiceClient<Channel>, team: &str) -> Came {
    match client.authorize(chat(team, MODEL, 1, 1)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            match answer.violations.first().map(|violation| violation.reason()) {
                None => Came::Allowed,
                Some(reason) => {
                    assert_eq!(reason, Reason::Paused, "{answer:?}");
                    Came::Paused
                }
            }
        }
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            Came::Unavailable
        }
    }
}

/// Connections enough that every worker has some, when every worker serves.
async fn clients(process: &Process) -> Vec<PolicyServiceClient<Channel>> {
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = process.client().await;
        eventually("it serves", async || ask(&mut client, "d").await == Came::Allowed).await;
        clients.push(client);
    }
    clients
}

/// A process that stood still is asked, before it goes on, by one who was shut out meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_lets_nobody_pass_by_what_it_knew() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory, policy) = (RedisServer::start(), TempDir::new().unwrap(), policy());
    let stopped = Process::start(directory.path(), &policy, &redis.url()).await;
    let other = Process::start(directory.path(), &policy, &redis.url()).await;
    let clients = clients(&stopped).await;
    for team in TEAMS {
        stopped.freeze();
        pause(&other, team).await;
        let mut asked = JoinSet::new();
        for client in &clients {
            for _ in 0..4 {
                let mut client = client.clone();
                asked.spawn(async move { ask(&mut client, team).await });
            }
        }
        // The process is to find that time has passed; nothing else tells.
        tokio::time::sleep(STANDSTILL).await;
        stopped.thaw();
        let came = asked.join_all().await;
        assert!(!came.contains(&Came::Allowed), "{came:?}");
        assert!(came.contains(&Came::Paused), "{came:?}");
    }
}

/// One worker after the other loses its connection for good: those that are left know what is paused, and the others allow nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_worker_depends_on_the_connection_of_another() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (redis, directory, policy) = (RedisServer::start(), TempDir::new().unwrap(), policy());
    let cut_off = Process::start(directory.path(), &policy, &redis.url()).await;
    let mut asking = clients(&cut_off).await;
    let mut by_hand = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mine: i64 = redis::cmd("CLIENT").arg("ID").query(&mut by_hand).unwrap();
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut by_hand).unwrap();
    let id = |line: &str| line.split_once("id=")?.1.split(' ').next()?.parse::<i64>().ok();
    let ids: Vec<i64> = list.lines().filter_map(id).filter(|id| *id != mine).collect();
    let other = Process::start(directory.path(), &policy, &redis.url()).await;
    clients(&other).await;
    // As a password that was changed: connections stay, and none can be made.
    let set = redis::cmd("CONFIG").arg(&["SET", "requirepass", "another"]).query::<()>(&mut by_hand);
    set.unwrap();
    // Others are of the audit log and of the alerts, and which is which is not to be seen: all are ended, each beside a pause of its own.
    assert!(ids.len() <= TEAMS.len(), "{list}");
    for (team, id) in TEAMS.iter().zip(&ids) {
        redis::cmd("CLIENT").arg(&["KILL", "ID"]).arg(id).query::<()>(&mut by_hand).unwrap();
        pause(&other, team).await;
        for client in &mut asking {
            eventually("the pause is in force", async || ask(client, team).await != Came::Allowed).await;
        }
        for client in &mut asking {
            assert_ne!(ask(client, team).await, Came::Allowed);
        }
    }
    assert!(ids.len() >= 3, "two workers and the pages: {list}");
    eventually("it is not ready", async || cut_off.is_serving().await == Some(false)).await;
    eventually("the log says why", async || {
        let log = cut_off.log();
        log.contains("a worker cannot read the registry over its connection")
            && log.contains("the registry was not read within its bound")
    })
    .await;
}
