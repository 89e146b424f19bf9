//! What is ordered on one replica and holds on all.

use std::time::{Duration, Instant};

use crate::harness::PATIENCE;

/// How long a change of the registry takes to be in force everywhere: the bound that is published.
pub(crate) const BOUND: Duration = Duration::from_secs(1);

/// How long until `holds` is true of every replica.
pub(crate) async fn until_all<T>(replicas: &mut [T], mut holds: impl AsyncFnMut(&mut T) -> bool) -> Duration {
    let started = Instant::now();
    for replica in replicas {
        while !holds(replica).await {
            assert!(started.elapsed() < PATIENCE, "never");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    started.elapsed()
}
