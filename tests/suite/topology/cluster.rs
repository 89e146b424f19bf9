//! A cluster: an owner that dies, one that stands still, and a slot that moves.

use std::time::Instant;

use tempfile::TempDir;

use super::{Fleet, nodes::Cluster, serve};
use crate::harness::{StoreKind, eventually, organization};

/// One cluster for all faults, as it takes seconds to set up. Each fault has a service and an organization of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_a_cluster_lose_and_double_nothing() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut cluster = Cluster::start().await;
    let directory = TempDir::new().unwrap();
    // Three organizations with owners of their own: what one fault promotes does not meet the next.
    let mut of = [None, None, None];
    while of.contains(&None) {
        let name = organization();
        let (owner, _) = cluster.owner(&name);
        of[owner].get_or_insert(name);
    }
    let of = of.map(|name| name.unwrap_or_default());
    a_slot_that_moves(&cluster, &directory, &of[0]).await;
    an_owner_that_stands_still(&cluster, &directory, &of[1]).await;
    an_owner_that_dies(&mut cluster, &directory, &of[2]).await;
}

async fn a_slot_that_moves(cluster: &Cluster, directory: &TempDir, organization: &str) {
    let (owner, slot) = cluster.owner(organization);
    let process = serve(directory, organization, &cluster.url(&[1])).await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    let (to, start) = ((owner + 1) % 3, Instant::now());
    for (from, to) in [(owner, to), (to, owner), (owner, to)] {
        let moved = cluster.reshard(slot, from, to);
        assert!(moved > 3, "{moved} keys");
        fleet.progress("calls are acknowledged by the new owner").await;
    }
    println!("moved three times in {:?}", start.elapsed());
    let ledger = fleet.stop().await;
    assert_eq!(ledger.compare(&process, None).await, 0);
    // Without a break in between: the call is sent on.
    let log = process.log();
    assert!(log.contains("redis sends calls elsewhere") && !log.contains("redis is unreachable"), "{log}");
}

async fn an_owner_that_stands_still(cluster: &Cluster, directory: &TempDir, organization: &str) {
    let (owner, _) = cluster.owner(organization);
    let process = serve(directory, organization, &cluster.url(&[(owner + 1) % 3])).await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    let frozen = Instant::now();
    cluster.nodes[owner].freeze();
    cluster.promoted(owner + 3).await;
    let promoted = frozen.elapsed();
    fleet.progress("calls are acknowledged by the new owner").await;
    println!("promoted after {promoted:?}, back after {:?}", frozen.elapsed());
    // It comes to what it was sent before, and takes nothing of it with it.
    cluster.nodes[owner].thaw();
    fleet.progress("calls are acknowledged beside the old owner").await;
    let ledger = fleet.stop().await;
    assert_eq!(ledger.compare(&process, None).await, 0);
    eventually("it is ready", async || process.is_serving().await == Some(true)).await;
}

async fn an_owner_that_dies(cluster: &mut Cluster, directory: &TempDir, organization: &str) {
    let (owner, _) = cluster.owner(organization);
    let process = serve(directory, organization, &cluster.url(&[owner, (owner + 1) % 3])).await;
    let fleet = Fleet::start(&process).await;
    fleet.progress("calls are acknowledged").await;
    let killed = Instant::now();
    cluster.nodes[owner].kill();
    cluster.promoted(owner + 3).await;
    let promoted = killed.elapsed();
    fleet.progress("calls are acknowledged by the new owner").await;
    println!("promoted after {promoted:?}, back after {:?}", killed.elapsed());
    let ledger = fleet.stop().await;
    assert_eq!(ledger.compare(&process, None).await, 0);
}
