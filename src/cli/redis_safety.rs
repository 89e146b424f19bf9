//! Checks whether Redis keeps what it is given: when the service starts, and from then on.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::time::{Instant, interval, sleep};
use tracing::{info, warn};

use crate::store::redis::{Hazard, Hazards, RedisStore};

/// How often Redis is checked again: its settings can be changed while it runs.
const EVERY: Duration = Duration::from_secs(60);
/// How long a start waits for Redis to show whether it is safe, if it has to be.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Redis is not what `require_safe_redis` asks for.
#[derive(Debug, Error)]
pub(super) enum UnsafeRedis {
    #[error("refused to start, as `require_safe_redis` is set: {0}")]
    Hazard(Hazard),
    #[error("refused to start: `require_safe_redis` is set, and redis did not say whether it is safe")]
    Silent,
}

/// Checks Redis from now on. If it `must_be_safe`, returns only once it is known to be.
///
/// # Errors
/// It must be safe, and is not or does not say.
pub(super) async fn watch(store: RedisStore, must_be_safe: bool) -> Result<Hazards, UnsafeRedis> {
    let hazards = Hazards::default();
    if must_be_safe {
        let found = first_look(&store).await?;
        if let Some(hazard) = found.iter().find(|hazard| hazard.is_reason_to_refuse()) {
            return Err(UnsafeRedis::Hazard(hazard.clone()));
        }
        if found.is_empty() {
            info!("redis is safe: it evicts nothing and keeps what it is given");
        }
    }
    tokio::spawn(keep_looking(store, Arc::clone(&hazards)));
    Ok(hazards)
}

async fn first_look(store: &RedisStore) -> Result<Vec<Hazard>, UnsafeRedis> {
    let until = Instant::now() + PATIENCE;
    loop {
        match store.hazards().await {
            Ok(found) => return Ok(found),
            Err(_) if Instant::now() < until => sleep(RETRY_AFTER).await,
            Err(_) => return Err(UnsafeRedis::Silent),
        }
    }
}

/// Logs each hazard when it is first found. While Redis does not answer, the last findings stay.
async fn keep_looking(store: RedisStore, hazards: Hazards) {
    let mut ticks = interval(EVERY);
    loop {
        ticks.tick().await;
        let Ok(found) = first_look(&store).await else { continue };
        let known = hazards.load_full();
        for hazard in found.iter().filter(|hazard| !known.contains(hazard)) {
            warn!(%hazard, "redis is not safe for budgets");
        }
        hazards.store(Arc::new(found));
    }
}
