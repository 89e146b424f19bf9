//! Alerts that arrive: what the outbox holds is made into alerts, routed as the policy says, and delivered.
//!
//! Every replica runs the same workers, and the outbox gives each entry to one of them for a while. So an alert is delivered at least once,
//! whichever replica dies: its id tells repeats. Each receiver has a queue and a worker of its own, so none delays another.

mod alert;
mod body;
mod compose;
mod delivery;
mod send;
mod signature;
mod target;
mod worker;

use std::sync::Arc;

use tokio::task::JoinSet;

pub use alert::{Alert, AlertState, BudgetCrossing, Money};

use crate::{live::Live, runtime::Runtime, settings::ReceiverSettings, store::Outbox};

/// Undelivered alerts that one receiver may have; past that further ones are not queued for it.
const MAX_PENDING: u64 = 10_000;
/// Between two looks at a queue that had nothing due, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// What delivers alerts.
#[derive(Debug)]
pub struct Dispatcher<S> {
    store: Arc<S>,
    live: Arc<Live>,
    receivers: Vec<ReceiverSettings>,
    runtime: Runtime,
}

impl<S: Outbox> Dispatcher<S> {
    /// Delivers to `receivers` what `store` has.
    #[must_use]
    pub fn new(store: S, live: Arc<Live>, receivers: Vec<ReceiverSettings>, runtime: Runtime) -> Self {
        Self { store: Arc::new(store), live, receivers, runtime }
    }

    /// Works until it is dropped.
    pub async fn run(self) {
        let Self { store, live, receivers, runtime } = self;
        let mut workers = JoinSet::new();
        let names = receivers.iter().map(|receiver| receiver.name.clone()).collect();
        workers.spawn(worker::route(Arc::clone(&store), live, names, runtime.clone()));
        for receiver in receivers {
            workers.spawn(worker::deliver(Arc::clone(&store), receiver, runtime.clone()));
        }
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a worker that delivers alerts ended");
            }
        }
    }
}
