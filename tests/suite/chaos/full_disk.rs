//! A disk without room, which is a file system of its own: no report is acknowledged that is not on it, and all is well once there is room.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tollgate::rpc::proto;
use tonic::{Code, Status};

use crate::{
    harness::{Process, StoreKind, eventually, nanos, team_spend},
    redis_server::RedisServer,
    spool::{COST, Client, POLICY, durable, spool_of, unreserved},
};

/// A small file system in memory.
struct Disk(TempDir);

impl Disk {
    /// `None`, loudly, where this machine lets no one mount one.
    fn mount(size: &str) -> Option<Self> {
        let place = TempDir::new().unwrap();
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(place.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        let notice = "\nSKIPPED: no file system can be mounted here, so no disk is full\n";
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all room that there is.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).unwrap();
        for length in [1 << 16, 1] {
            loop {
                match file.write_all(&vec![7; length]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// What gateways reported: by the ids that were acknowledged, and the one that was not.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<String>,
    refused: Vec<String>,
    next: usize,
}

impl Ledger {
    /// Reports on a disk that is full, or nearly so: room that a file has already may be used.
    async fn report_until_refused(&mut self, client: &mut Client, disk: &Disk) -> Status {
        for _ in 0..5_000 {
            disk.fill();
            self.next += 1;
            let id = format!("r-{}", self.next);
            match client.record_usage(unreserved(&id, 1_000)).await {
                Ok(_) => self.acknowledged.push(id),
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    self.refused.push(id);
                    return status;
                }
            }
        }
        panic!("the disk is never full");
    }

    /// All but the first were acknowledged in the outage.
    fn spooled(&self) -> i64 {
        i64::try_from(self.acknowledged.len()).unwrap() - 1
    }

    /// Repeats what was refused, as a gateway does, until it is acknowledged.
    async fn repeat(&mut self, client: &mut Client) {
        for id in std::mem::take(&mut self.refused) {
            eventually("it is acknowledged with room", async || {
                client.record_usage(unreserved(&id, 1_000)).await.is_ok()
            })
            .await;
            self.acknowledged.push(id);
        }
    }

    /// What was acknowledged is in the books, once.
    async fn is_booked(&self, client: &mut Client) {
        let count = self.acknowledged.len();
        let expected = (COST * count as u64, i64::try_from(count).unwrap());
        let mut found = (0, 0);
        eventually("the books have it", async || {
            let report = team_spend(client, "t").await;
            found = (nanos(report.spend.unwrap().spent), report.requests);
            assert!(found.1 <= expected.1, "{found:?} of {expected:?}");
            found == expected
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_acknowledges_nothing_that_is_not_on_a_full_disk() {
    let Some(disk) = Disk::mount("48m") else { return };
    let directory = TempDir::new().unwrap();
    let store = format!("--store=embedded:{}", disk.path().join("data").display());
    let arguments = [&*store, "--store-timeout=5s", "--admin-enabled=false"];
    let process = Process::start_arguments(directory.path(), POLICY, &arguments).await;
    let (mut client, mut ledger) = (process.client().await, Ledger::default());
    client.record_usage(unreserved("first", 1_000)).await.unwrap();
    ledger.acknowledged.push("first".to_owned());
    ledger.report_until_refused(&mut client, &disk).await;
    // It serves again by itself.
    disk.make_room();
    ledger.repeat(&mut client).await;
    ledger.is_booked(&mut client).await;
    // And nothing that it said is lost by a kill in such a moment.
    ledger.report_until_refused(&mut client, &disk).await;
    process.kill();
    disk.make_room();
    let process = Process::start_arguments(directory.path(), POLICY, &arguments).await;
    let mut client = process.client().await;
    ledger.repeat(&mut client).await;
    ledger.is_booked(&mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spool_acknowledges_nothing_that_is_not_on_a_full_disk() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let Some(disk) = Disk::mount("8m") else { return };
    let ((mut redis, _kept), directory) = (durable(), TempDir::new().unwrap());
    let process = start(&directory, &redis, &disk).await;
    let (mut client, mut ledger) = (process.client().await, Ledger::default());
    eventually("it serves", async || client.record_usage(unreserved("first", 1_000)).await.is_ok()).await;
    ledger.acknowledged.push("first".to_owned());
    redis.kill();
    ledger.report_until_refused(&mut client, &disk).await;
    let proto::Spool { record_count, error, .. } = spool_of(&process).await;
    assert_eq!(record_count, ledger.spooled());
    assert!(error.starts_with("its disk fails: ") && error.contains("full"), "{error}");
    disk.make_room();
    eventually("it says that there is room", async || spool_of(&process).await.error.is_empty()).await;
    ledger.repeat(&mut client).await;
    // What it said is there after a kill in such a moment, and what it refused is not.
    ledger.report_until_refused(&mut client, &disk).await;
    process.kill();
    disk.make_room();
    let process = start(&directory, &redis, &disk).await;
    assert_eq!(spool_of(&process).await.record_count, ledger.spooled());
    // Once the store answers, and the disk is full again, what is delivered is removed when there is room.
    disk.fill();
    assert!(redis.restart());
    let mut client = process.client().await;
    eventually("it serves", async || team_spend_or_none(&mut client).await.is_some()).await;
    disk.make_room();
    eventually("the spool is empty", async || spool_of(&process).await.record_count == 0).await;
    ledger.repeat(&mut client).await;
    ledger.is_booked(&mut client).await;
}

async fn start(directory: &TempDir, redis: &RedisServer, disk: &Disk) -> Process {
    let store = format!("--store={}", redis.url());
    let spool = format!("--spool-directory={}", disk.path().join("spool").display());
    let arguments = [&*store, "--store-timeout=1s", &spool, "--admin-enabled=false"];
    Process::start_arguments(directory.path(), POLICY, &arguments).await
}

async fn team_spend_or_none(client: &mut Client) -> Option<proto::GetSpendResponse> {
    let request = proto::GetSpendRequest { team: "t".to_owned(), ..Default::default() };
    client.get_spend(request).await.ok().map(tonic::Response::into_inner)
}
