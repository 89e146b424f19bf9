//! What is ordered on one replica and holds on all.

mod processes;

use std::time::{Duration, Instant};

use crate::harness::eventually;

/// How long a change of the registry takes to be in force everywhere: the bound that is published.
pub(crate) const BOUND: Duration = Duration::from_secs(1);

/// How long until `holds` is true of every replica.
pub(crate) async fn until_all<T>(replicas: &mut [T], mut holds: impl AsyncFnMut(&mut T) -> bool) -> Duration {
    let started = Instant::now();
    for replica in replicas {
        eventually("it holds everywhere", async || holds(replica).await).await;
    }
    started.elapsed()
}
