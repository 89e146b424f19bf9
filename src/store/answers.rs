//! Whether a store answers, for probes and for people.

use std::time::Duration;

use tokio::time::timeout;

use super::Store;

/// How long the answer is waited for. By then nothing can be decided by the keys and pauses that were read before, so a longer time for
/// decisions would only keep an answer of before standing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether `store` answers within a second.
pub async fn answers<S: Store>(store: &S) -> bool {
    timeout(PATIENCE, store.ping()).await.is_ok_and(|answer| answer.is_ok())
}
