//! The spools of replicas: the tables and the worker that ship, on disks that outlive the processes of a place.

use std::time::Duration;

use tokio::time::sleep;

use super::{mutant::Mutant, rng::Rng};
use crate::spool::{SimulatedDisk, SimulatedSpool};

/// Writes what one spool is asked to keep, until the process ends.
pub(super) async fn write(mut spool: SimulatedSpool, mutant: Option<Mutant>, mut rng: Rng) {
    while spool.next().await {
        if mutant == Some(Mutant::DeliversTwice) {
            spool.keep_twice();
        }
        // A disk that stalls now and then.
        let busy_ms = if rng.chance(50) { rng.between(20, 400) } else { rng.below(4) };
        sleep(Duration::from_millis(busy_ms)).await;
        let written = spool.commit();
        // It is there, and no caller knows yet.
        sleep(Duration::from_millis(rng.below(3))).await;
        written.tell();
    }
}

/// Waits until no process has the disk any more, and begins with what a crash has left on it.
pub(super) async fn left(disk: &SimulatedDisk, mutant: Option<Mutant>, is_kill: bool) {
    while disk.is_used() {
        sleep(Duration::from_millis(1)).await;
    }
    if is_kill && mutant == Some(Mutant::LosesCommit) {
        disk.lose_last_commit();
    }
}
