//! What one organization is on one core.

use std::sync::Arc;

use tokio::sync::watch;
use tonic_health::server::HealthReporter;
use tower::Layer as _;
use tracing::Instrument as _;

use super::{
    Member,
    by_organization::Guarded,
    services::{Core, ServiceParts, services},
};
use crate::{
    authorizer::{Authorizer, Shared},
    replicas::Announcer,
    rpc::{AccessLayer, Recorder},
    store::Store,
};

/// One organization on one core.
pub(super) struct OnCore<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) parts: ServiceParts,
    pub(super) store: S,
    pub(super) authorizer: Authorizer<S>,
}

impl<S: Store + Clone> OnCore<S> {
    pub(super) fn new(member: Member, store: S) -> Self {
        let Member { shared, parts } = member;
        let authorizer = Authorizer::new(store.clone(), parts.runtime.clone(), Arc::clone(&shared));
        Self { shared, parts, store, authorizer }
    }

    /// Its services, behind its guard.
    pub(super) fn guarded(&self, health: &HealthReporter) -> Guarded<S> {
        let Self { shared, parts, authorizer, .. } = self;
        let recorder = Recorder::new(parts.guard.audit().clone(), authorizer.settler().tasks().clone());
        let health = health.clone();
        let services = services(Core { authorizer, shared, recorder: &recorder, parts, health });
        // Around all services, so no service added later can bypass it.
        AccessLayer::new(parts.guard.clone()).layer(services)
    }

    /// Begins what one worker does for the organization: it tells of the replica, records denials, and shows decisions to those who watch.
    pub(super) fn beside(&self, stop: &watch::Receiver<bool>) {
        let Self { shared, parts, store, .. } = self;
        let ServiceParts { upstream, runtime, .. } = parts;
        let live = Arc::clone(&shared.live);
        let announcer = Announcer::new(store.clone(), live, Arc::clone(upstream), runtime.clock.clone());
        let announcer = announcer.with_spool(shared.spool.clone());
        let denials = Arc::clone(&shared.live).record_denials(store.clone(), stop.clone());
        let relay = Arc::clone(&shared.feed).relay(store.clone(), stop.clone());
        let span = || shared.live.span().clone();
        // Not awaited at the end: it delays no stop.
        tokio::spawn(announcer.run(stop.clone()).instrument(span()));
        tokio::spawn(denials.instrument(span()));
        tokio::spawn(relay.instrument(span()));
    }

    /// Ends once what it has begun is settled.
    pub(super) async fn end(self) {
        let live = Arc::clone(&self.shared.live);
        let ending = async {
            self.authorizer.settler().end().await;
            // For the calls on all workers so far; the last worker to end writes the rest.
            live.write_uses(&self.store).await;
            live.write_denials(&self.store).await;
        };
        ending.instrument(live.span().clone()).await;
    }
}
