//! Alerts that arrive: what the outbox holds is made into alerts, routed as the policy says, and delivered.
//!
//! Every replica runs the same workers, and the outbox gives each entry to one of them for a while. So an alert is delivered at least once,
//! whichever replica dies: its id tells repeats. Each receiver has a queue and a worker of its own, so none delays another.

mod alert;
mod body;
mod compose;
mod conditions;
mod crossings;
mod delivery;
mod detail;
mod drift;
mod event_name;
mod files;
mod list;
mod notices;
mod outage;
mod receivers;
mod router;
mod send;
mod signature;
#[cfg(test)]
pub(crate) mod sink;
mod target;
mod trial;
mod watch;
mod worker;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch::Receiver, task::JoinSet};
use tracing::{Instrument as _, error};

use self::event_name::EventNames;

pub use alert::{Alert, AlertState, BudgetCrossing, Money};
pub use crossings::{BudgetThreshold, Crossings};
pub use delivery::DeliveryState;
pub use detail::{
    Cooldown, Forecast, Pause, PauseActor, PauseTarget, StoreOutage, UpstreamKey, UsageDrift,
    WholeOrganization,
};
pub use drift::{DriftOutcome, report_drift};
pub use list::{AlertPage, AlertQuery, ListedAlert, ListedDelivery, counts, page};
pub use receivers::{ReceiverReport, Receivers};
pub use trial::{MAX_TRIALS, Trial, TrialError, TrialReport};

pub use crate::settings::ReceiverKind;
use crate::{
    live::Live, policy_file::PolicyStatus, runtime::Runtime, spool::Spool, store::Store,
    upstream::UpstreamKeys,
};

/// Undelivered alerts that one receiver may have; past that further ones are not queued for it.
const MAX_PENDING: u64 = 10_000;
/// Between two looks at a queue that had nothing due, in milliseconds.
const PAUSE_MS: u64 = 1_000;

/// Before a worker that panicked is started again. What it had claimed is due again after its lease.
const RESTART: Duration = Duration::from_secs(1);

/// What a process knows by itself, and alerts are raised of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Which keys Groq refuses to it.
    pub upstream: Arc<UpstreamKeys>,
    /// Which changed policy did not load.
    pub policy: Receiver<Arc<PolicyStatus>>,
    /// What it keeps of reports that the store has not taken; `None`: nothing.
    pub spool: Option<Spool>,
}

/// What raises alerts and delivers them.
#[derive(Debug)]
pub struct Dispatcher<S> {
    store: Arc<S>,
    live: Arc<Live>,
    facts: Facts,
    receivers: Arc<Receivers>,
    runtime: Runtime,
}

impl<S: Store> Dispatcher<S> {
    /// Delivers to `receivers` what `store` has, and what `facts` give rise to.
    #[must_use]
    pub fn new(
        store: S,
        (live, facts): (Arc<Live>, Facts),
        receivers: Arc<Receivers>,
        runtime: Runtime,
    ) -> Self {
        Self { store: Arc::new(store), live, facts, receivers, runtime }
    }

    /// Works until it is dropped.
    pub async fn run(self) {
        let Self { store, live, facts, receivers, runtime } = self;
        let is_one_of_several = facts.policy.borrow().neighbours.is_some();
        let events = if is_one_of_several { EventNames::OfSeveral } else { EventNames::OfOne };
        let mut workers = JoinSet::new();
        for receiver in receivers.all() {
            let (store, receiver, runtime) = (Arc::clone(&store), Arc::clone(receiver), runtime.clone());
            workers.spawn(restarted(RESTART, move || {
                worker::deliver(Arc::clone(&store), Arc::clone(&receiver), events, runtime.clone())
            }));
        }
        let settings: Vec<_> = receivers.all().map(|receiver| receiver.settings.clone()).collect();
        let names: Vec<_> = settings.iter().map(|receiver| receiver.name.clone()).collect();
        let own = (Arc::clone(&store), Arc::clone(&live), facts.clone(), runtime.clone());
        workers.spawn(restarted(RESTART, move || {
            let (store, live, facts, runtime) = own.clone();
            router::route(store, (live, facts), names.clone(), runtime)
        }));
        let spool = facts.spool.clone();
        let own = (Arc::clone(&store), Arc::clone(&live), facts, runtime.clone());
        workers.spawn(restarted(RESTART, move || {
            let (store, live, facts, runtime) = own.clone();
            watch::watch(store, live, facts, runtime)
        }));
        workers.spawn(restarted(RESTART, move || {
            let known = (Arc::clone(&live), spool.clone());
            outage::watch(Arc::clone(&store), known, (settings.clone(), events), runtime.clone())
        }));
        while workers.join_next().await.is_some() {}
    }
}

/// Runs a worker until it ends, and starts it again where it panicked: one fault must not silence a receiver until the process is
/// restarted.
fn restarted<F: Future<Output = ()> + Send + 'static>(
    after: Duration,
    worker: impl Fn() -> F,
) -> impl Future<Output = ()> {
    let running = async move {
        loop {
            // Ends the worker when this is dropped.
            let mut running = JoinSet::new();
            running.spawn(worker().in_current_span());
            match running.join_next().await {
                Some(Err(error)) if error.is_panic() => {
                    error!(%error, "a worker that delivers alerts panicked; it is started again");
                }
                _ => return,
            }
            tokio::time::sleep(after).await;
        }
    };
    running.in_current_span()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_started_again() {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let worker = move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move { assert!(start >= 2, "start {start} panics") }
        };
        restarted(Duration::ZERO, worker).await;
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_worker_ends_with_what_runs_it() {
        let held = Arc::new(());
        let own = Arc::clone(&held);
        let worker = move || {
            let own = Arc::clone(&own);
            async move {
                std::future::pending::<()>().await;
                drop(own);
            }
        };
        let mut workers = JoinSet::new();
        workers.spawn(restarted(Duration::ZERO, worker));
        tokio::task::yield_now().await;
        workers.shutdown().await;
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
