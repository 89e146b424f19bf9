//! What happens beside the calls while a service runs and when it ends.

use std::time::Duration;

use tokio::sync::watch;

use super::{connections::Connections, tally};
use crate::runtime::Tasks;

/// The part of a drain that is kept for settling answers that would outlast it.
const LAST_SETTLEMENTS: Duration = Duration::from_secs(1);

/// Calls and Groq's answers that outlast the drain would be cut off with the service. Shortly before, they are ended in good order:
/// callers are told, and reservations are settled.
pub(super) async fn cut_before_the_end(tasks: Tasks, mut stop: watch::Receiver<bool>, drain: Duration) {
    // An error means that the server was dropped: there is no drain.
    if stop.wait_for(|stop| *stop).await.is_ok() {
        tokio::time::sleep(drain.saturating_sub(LAST_SETTLEMENTS.min(drain / 4))).await;
        tasks.cut();
    }
}

/// Logs which connections were closed, for all listeners.
pub(super) async fn say_closings(connections: Connections, mut stop: watch::Receiver<bool>) {
    let stopped = stop.wait_for(|stop| *stop);
    let mut stopped = std::pin::pin!(stopped);
    loop {
        tokio::select! {
            () = tokio::time::sleep(tally::EVERY) => connections.tally().say(),
            _ = &mut stopped => return connections.tally().say(),
        }
    }
}
