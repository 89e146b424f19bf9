//! A cluster.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Fault, LAG, NOTED, REPLICAS, Replicas, fleet::Fleet, plan::Plan};
use crate::{
    harness::{StoreKind, eventually_within, organization},
    topology::nodes::Cluster,
};

#[derive(Clone, Copy, Debug)]
enum Happens {
    ToReplica(Fault),
    Reshard,
    FreezeOwner,
    KillOwner,
    KillFollower,
}

const ALL: [Happens; 6] = [
    Happens::Reshard,
    Happens::FreezeOwner,
    Happens::KillOwner,
    Happens::KillFollower,
    Happens::ToReplica(Fault::Kill),
    Happens::ToReplica(Fault::Freeze),
];
/// As many as a minute has room for.
const LEAST: usize = 4;
const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_of_a_cluster_lose_no_more_than_their_bounds() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let (mut cluster, name) = (Cluster::start().await, organization());
    let (_, slot) = cluster.owner(&name);
    let stores = vec![cluster.url(&[0, 1, 2, 3, 4, 5]); REPLICAS];
    let mut replicas = Replicas::start(TempDir::new().unwrap(), &name, stores).await;
    let mut fleet = Fleet::start(&replicas.addresses());
    fleet.progress("calls are acknowledged").await;
    let mut plan = Plan::new("cluster", &ALL, LEAST);
    let mut at_risk = Vec::new();
    while let Some(happens) = plan.next() {
        println!("{happens:?}");
        let owner = cluster.owner_now(slot).await;
        let follower = Cluster::partner(owner);
        match happens {
            Happens::ToReplica(fault) => replicas.suffer(fault, plan.dice(), &mut fleet).await,
            Happens::Reshard => {
                let others = cluster.owners();
                let others: Vec<_> = others.into_iter().filter(|other| *other != owner).collect();
                let to = others[plan.dice().roll(others.len())];
                println!("{} keys moved", cluster.reshard(slot, owner, to));
            }
            Happens::FreezeOwner | Happens::KillOwner => {
                let is_killed = matches!(happens, Happens::KillOwner);
                let began = Instant::now();
                if is_killed {
                    cluster.nodes[owner].die()
                } else {
                    cluster.nodes[owner].freeze()
                }
                at_risk.push((began - LAG, Instant::now() + NOTED));
                let is_promoted = async || cluster.is_owner(follower);
                eventually_within(PATIENCE, "its follower is promoted", is_promoted).await;
                fleet.progress("calls are acknowledged by the new owner").await;
                if is_killed {
                    assert!(cluster.nodes[owner].restart());
                } else {
                    cluster.nodes[owner].thaw();
                }
            }
            Happens::KillFollower => {
                // Its owner would take no writes without it.
                let other = cluster.owners().into_iter().find(|other| *other != owner).unwrap();
                let other = Cluster::partner(other);
                cluster.nodes[other].die();
                fleet.progress("calls are acknowledged without it").await;
                assert!(cluster.nodes[other].restart());
            }
        }
        fleet.progress("calls are acknowledged after it").await;
        cluster.settled().await;
    }
    let ledger = fleet.stop().await;
    replicas.compare(&ledger, &at_risk).await;
}
