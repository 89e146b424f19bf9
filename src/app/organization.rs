//! One organization of a process.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::JoinSet};
use tracing::Instrument as _;

use super::Parts;
use crate::{
    access::{Guard, SessionCounts},
    alerts::{self, Crossings, Dispatcher},
    authorizer::{Authorizer, Shared, SpoolDelivery, Timing},
    domain::{policy::Policy, tally::Tallies},
    live::Live,
    policy_file::PolicyStatus,
    reports,
    revisions::Recorder,
    rpc::{DocumentWork, StatusFacts},
    server::{
        ServiceParts,
        metrics::{Reloads, Sources},
    },
    store::{Observed, Store},
};

/// The service of one organization, and what runs beside it. Each has its own state: nothing of one waits for, or counts with, another.
#[derive(Debug)]
pub struct Organization {
    pub(super) shared: Arc<Shared>,
    pub(super) sources: Sources,
    pub(super) parts: ServiceParts,
}

impl Organization {
    /// Puts one together. Durations of decisions are recorded in `timing`, and sessions are among `sessions`.
    pub(super) fn new(parts: Parts, timing: &Timing, sessions: &Arc<SessionCounts>) -> Self {
        let Parts { policy, upstream, audit, connections, calls, decisions, is_open, runtime, .. } = parts;
        let Parts {
            policy_status, hazards, shown, tracing, receivers, unreported, spool, console, span, ..
        } = parts;
        let live = Live::counting(policy, Tallies::new(shown.max_teams)).with_span(span);
        let live = Arc::new(live.drawing_from(runtime.entropy.clone()));
        let guard = Guard::new(Arc::clone(&live), runtime.clock.clone(), is_open, audit);
        let guard = guard.with_sessions(Arc::clone(sessions));
        let shared = Shared::new(live).with_decisions(decisions).with_timing(timing.clone());
        let shared = Arc::new(shared.with_spool(spool));
        let status = StatusFacts {
            shared: Arc::clone(&shared),
            policy: policy_status,
            hazards,
            calls,
            unreported,
            clock: runtime.clock.clone(),
        };
        let sources = Sources::new(
            status.clone(),
            guard.clone(),
            Arc::clone(&upstream),
            connections,
            Arc::clone(&receivers),
            shown.by_key,
        );
        let (documents, past) = (DocumentWork::default(), sources.past.clone());
        let crossings = Crossings::default();
        let parts = ServiceParts {
            guard,
            status,
            documents,
            tracing,
            past,
            crossings,
            receivers,
            upstream,
            console,
            runtime,
        };
        Self { shared, sources, parts }
    }

    /// How changes of the policy's file went, for the metrics.
    #[must_use]
    pub fn reloads(&self) -> Arc<Reloads> {
        Arc::clone(&self.sources.reloads)
    }

    /// Reads from `store` what metrics say of budgets, limits and cooldowns, until dropped.
    pub fn follow_store<S: Store>(&self, store: S) -> impl Future<Output = ()> + Send + use<S> {
        let following = self.sources.clone().follow(Observed::new(store, &self.parts.status.calls));
        following.instrument(self.live().span().clone())
    }

    /// What is in force.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.shared.live
    }

    /// Puts `policy` in force each time that `changes` tells of another, until dropped.
    pub fn follow_policy(
        &self,
        policy: Arc<ArcSwap<Policy>>,
        mut changes: watch::Receiver<Arc<PolicyStatus>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (live, span) = (Arc::clone(self.live()), self.live().span().clone());
        let following = async move {
            while changes.changed().await.is_ok() {
                live.set_policy(policy.load_full());
            }
        };
        following.instrument(span)
    }

    /// Records `policy` in `store`, and each other one that `changes` tells of, until dropped.
    pub fn record_policies<S: Store>(
        &self,
        store: S,
        policy: Arc<ArcSwap<Policy>>,
        changes: watch::Receiver<Arc<PolicyStatus>>,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let store = Observed::new(store, &self.parts.status.calls);
        let recording = Recorder::new(store, Arc::clone(self.live())).run(policy, changes);
        recording.instrument(self.live().span().clone())
    }

    /// Raises and routes alerts, and delivers them until dropped.
    pub fn deliver_alerts<S: Store + Clone>(&self, store: S) -> impl Future<Output = ()> + Send + use<S> {
        let ServiceParts { upstream, receivers, runtime, past, status, .. } = self.parts.clone();
        let store = Observed::new(store, &status.calls);
        let (live, spool) = (Arc::clone(self.live()), self.shared.spool.clone());
        let facts = alerts::Facts { upstream, policy: status.policy, spool };
        let foreseen = reports::foresee(store.clone(), Arc::clone(&live), past);
        let dispatcher = Dispatcher::new(store, (live, facts), receivers, runtime);
        let delivering = async move {
            // Apart, so that neither ends with a fault of the other. Dropped with this.
            let mut apart = JoinSet::new();
            apart.spawn(foreseen.in_current_span());
            dispatcher.run().await;
        };
        delivering.instrument(self.live().span().clone())
    }

    /// Delivers to `store` what the spool keeps, until dropped or flushed. `None`: there is no spool.
    pub fn deliver_spooled<S: Store + Clone>(&self, store: S) -> Option<SpoolDelivery<Observed<S>>> {
        let ServiceParts { runtime, status, .. } = self.parts.clone();
        let store = Observed::new(store, &status.calls);
        SpoolDelivery::start(Authorizer::new(store, runtime, Arc::clone(&self.shared)))
    }
}
