//! `grpc.health.v1`.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

use crate::{
    authorizer::Shared,
    rpc::policy_service_server::SERVICE_NAME,
    store::{Store, answers},
};

/// How often the store is checked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Reports whether anything is served.
pub(super) async fn tell(health: &mut HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE_NAME] {
        health.set_service_status(service, status).await;
    }
}

/// Whether the store of one of them answers, and what is known is fresh.
async fn is_one_serving<S: Store + Clone>(watched: &[(S, Arc<Shared>)]) -> bool {
    let mut asked = JoinSet::new();
    for (store, _) in watched.iter().filter(|(_, shared)| shared.live.freshness().is_fresh()) {
        let store = store.clone();
        asked.spawn(async move { answers(&store).await });
    }
    while let Some(answer) = asked.join_next().await {
        if answer.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// Keeps `grpc.health.v1` in step with the store, and with whether the known keys and pauses are fresh enough to decide by, as
/// `/readyz` and the decisions do.
///
/// With several organizations, it serves as long as one of them can be decided for: the others are answered `UNAVAILABLE` by every replica.
pub(super) async fn watch<S: Store + Clone>(
    watched: Vec<(S, Arc<Shared>)>,
    mut health: HealthReporter,
    mut stop: watch::Receiver<bool>,
) {
    for (_, shared) in &watched {
        shared.live.registry_asked().await;
    }
    let mut serving = None;
    loop {
        let now = is_one_serving(&watched).await;
        if serving != Some(now) {
            tell(&mut health, if now { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            match now {
                true => info!("the store answers; serving"),
                false => warn!(
                    "the store does not answer, or its registry is not read in time; not serving until it is"
                ),
            }
            serving = Some(now);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    tell(&mut health, ServingStatus::NotServing).await;
    for service in ["", SERVICE_NAME] {
        // Ends the watching clients' streams after this last message.
        health.clear_service_status(service).await;
    }
}
