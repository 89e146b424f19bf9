//! Redis under Sentinels.

use std::time::{Duration, Instant};

use super::{Fault, LAG, NOTED, REPLICAS, Replicas, fleet::Fleet, plan::Plan};
use crate::{
    harness::{StoreKind, eventually_within, organization},
    redis_server::signal,
    topology::nodes::Watched,
};

#[derive(Clone, Copy, Debug)]
enum Happens {
    ToReplica(Fault),
    Planned,
    KillPrimary,
    FreezePrimary,
    /// A server that follows the primary.
    KillFollower,
    KillSentinel,
    FreezeSentinel,
}

const ALL: [Happens; 9] = [
    Happens::Planned,
    Happens::KillPrimary,
    Happens::FreezePrimary,
    Happens::KillFollower,
    Happens::KillSentinel,
    Happens::FreezeSentinel,
    Happens::ToReplica(Fault::Kill),
    Happens::ToReplica(Fault::Freeze),
    Happens::ToReplica(Fault::Cut),
];
/// As many as a minute has room for.
const LEAST: usize = 4;
const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_under_sentinels_lose_no_more_than_their_bounds() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let mut watched = Watched::start(true).await;
    let stores = vec![watched.url(); REPLICAS];
    let mut replicas = Replicas::start(Watched::directory(), &organization(), stores).await;
    let mut fleet = Fleet::start(&replicas.addresses());
    fleet.progress("calls are acknowledged").await;
    let mut plan = Plan::new("watched", &ALL, LEAST);
    let mut at_risk = Vec::new();
    while let Some(happens) = plan.next() {
        println!("{happens:?}");
        let (index, began) = (watched.primary_index().await, Instant::now());
        match happens {
            Happens::ToReplica(fault) => replicas.suffer(fault, plan.dice(), &mut fleet).await,
            Happens::Planned => {
                let ordered = async || watched.ask_sentinel(0, &["SENTINEL", "FAILOVER", "main"]).is_ok();
                // Sentinels wait between two failovers.
                eventually_within(PATIENCE, "the order is taken", ordered).await;
                let ordered = Instant::now();
                promoted(&watched, index).await;
                at_risk.push((ordered - NOTED, Instant::now() + LAG));
            }
            Happens::KillPrimary => {
                watched.servers[index].die();
                at_risk.push((began - LAG, Instant::now() + NOTED));
                promoted(&watched, index).await;
                fleet.progress("calls are acknowledged by the new primary").await;
                watched.revive(index);
            }
            Happens::FreezePrimary => {
                watched.servers[index].freeze();
                at_risk.push((began - LAG, Instant::now() + NOTED));
                promoted(&watched, index).await;
                fleet.progress("calls are acknowledged by the new primary").await;
                watched.servers[index].thaw();
            }
            Happens::KillFollower => {
                let follower = (index + 1) % watched.servers.len();
                watched.servers[follower].die();
                fleet.progress("calls are acknowledged without it").await;
                watched.revive(follower);
            }
            Happens::KillSentinel => {
                let sentinel = plan.dice().roll(3);
                watched.signal_sentinel(sentinel, "-KILL");
                fleet.progress("calls are acknowledged without it").await;
                watched.revive_sentinel(sentinel);
            }
            Happens::FreezeSentinel => {
                let sentinel = plan.dice().roll(3);
                let pid = watched.signal_sentinel(sentinel, "-STOP");
                fleet.progress("calls are acknowledged without it").await;
                signal(&pid, "-CONT");
            }
        }
        fleet.progress("calls are acknowledged after it").await;
        watched.settled().await;
    }
    let ledger = fleet.stop().await;
    replicas.compare(&ledger, &at_risk).await;
}

async fn promoted(watched: &Watched, before: usize) {
    let port = watched.servers[before].address().port();
    let is_promoted = async || watched.named().is_some_and(|primary| primary != port);
    eventually_within(PATIENCE, "a replica is promoted", is_promoted).await;
}
