//! Announces this process to those that share its store.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{Announcement, SpoolReport};
use crate::{
    domain::Timestamp,
    live::Live,
    runtime::{
        clock::{Clock, Monotonic},
        replica_name,
    },
    spool::Spool,
    store::{Replicas, StoreError},
    upstream::UpstreamKeys,
};

/// How often a replica announces itself: soon enough to follow a rollout by the list, at a cost to the store that is small beside that of
/// reading the registry, which happens twenty times as often.
pub const EVERY: Duration = Duration::from_secs(5);

/// Announces one process.
#[derive(Debug)]
pub struct Announcer<S> {
    store: S,
    live: Arc<Live>,
    upstream: Arc<UpstreamKeys>,
    spool: Option<Spool>,
    name: Arc<str>,
    clock: Clock,
    begun: Monotonic,
    /// When it started by the store's clock; `None`: the store has not answered yet.
    start: Option<Timestamp>,
    is_failing: bool,
    /// Groq keys that had no room in the last announcement.
    omitted: usize,
}

impl<S: Replicas> Announcer<S> {
    /// Announces the process that starts now, with `live` in force and `upstream` as its Groq keys.
    #[must_use]
    pub fn new(store: S, live: Arc<Live>, upstream: Arc<UpstreamKeys>, clock: Clock) -> Self {
        let (name, begun) = (replica_name().into(), clock.monotonic());
        let (spool, start) = (None, None);
        Self { store, live, upstream, spool, name, clock, begun, start, is_failing: false, omitted: 0 }
    }

    /// The same of a process that keeps reports in `spool`.
    #[must_use]
    pub fn with_spool(self, spool: Option<Spool>) -> Self {
        Self { spool, ..self }
    }

    /// Announces it again and again until dropped, or until the sender of `stop` is. Once told to stop, it is announced as not ready; its
    /// entry stays, and says when it was last seen.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.live.registry_asked().await;
        let mut is_stopping = false;
        loop {
            let announced = self.announce(!is_stopping).await;
            self.log(announced);
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                told = stop.wait_for(|stop| *stop), if !is_stopping => match told {
                    Ok(_) => is_stopping = true,
                    Err(_) => return,
                },
            }
        }
    }

    async fn announce(&mut self, may_be_ready: bool) -> Result<(), StoreError> {
        let start = match self.start {
            Some(start) => start,
            None => {
                let now = self.store.read_clock().await?;
                let passed = self.clock.monotonic().since(self.begun).as_millis();
                let start = Timestamp(now.0.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX)));
                *self.start.insert(start)
            }
        };
        // The store answers where this is heard, so what is left is what decisions look at.
        let ready = may_be_ready && self.live.freshness().is_fresh();
        let revision = Arc::clone(&self.live.peek().revision);
        let spool = self.spool.as_ref().map(|spool| SpoolReport::new(spool, self.clock.now()));
        let said = Announcement::new(&revision, start, ready, &self.upstream).with_spool(spool);
        let (bytes, count) = said.to_bytes().map_err(|reason| {
            debug!(%reason, "what this replica says of itself cannot be written");
            StoreError::Corrupt
        })?;
        self.log_omitted(count, said.upstream_keys.len());
        self.store.announce_replica(Arc::clone(&self.name), bytes).await
    }

    /// Warns where `announced` is less than `all` upstream keys, and not again until the difference changes.
    fn log_omitted(&mut self, announced: usize, all: usize) {
        let omitted = all.saturating_sub(announced);
        if std::mem::replace(&mut self.omitted, omitted) != omitted && omitted > 0 {
            warn!(left_out = omitted, "too many upstream keys to announce all of them to the other replicas");
        }
    }

    fn log(&mut self, announced: Result<(), StoreError>) {
        let was_failing = std::mem::replace(&mut self.is_failing, announced.is_err());
        match announced {
            Err(error) if !was_failing => {
                warn!(%error, "this replica cannot announce itself to the others; trying again");
            }
            Ok(()) if was_failing => info!("this replica announces itself to the others again"),
            _ => {}
        }
    }
}
