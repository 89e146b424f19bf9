//! Tells of what lasts when it begins and when it is over, as this replica sees it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    Facts,
    conditions::{self, Condition},
    delivery::notice_of,
    notices,
    worker::pause,
};
use crate::{
    domain::{
        Timestamp,
        alert::{AlertKind, Severity},
        occasion::Occasion,
    },
    live::Live,
    replicas,
    runtime::Runtime,
    store::{AlertId, Notice, OUTBOX_KEPT, Store, StoreError, current_alert, outbox_find},
};

/// What a replica tells of at the same time; past that it does not.
const MAX_KNOWN: usize = 5_000;
/// What of one kind it tells at one look: each may take some dozens of reads, and the other kinds wait for it.
const MAX_OPENED: usize = 64;

/// Looks at what lasts about once a second, and adds what began and what is over to the outbox.
pub(super) async fn watch<S: Store>(store: Arc<S>, live: Arc<Live>, facts: Facts, runtime: Runtime) {
    let mut watch = Watch { store: &*store, known: HashMap::new(), failing: HashSet::new() };
    // Replicas announce themselves more seldom than this looks.
    let mut looked = None;
    loop {
        let (snapshot, now) = (live.snapshot(), runtime.clock.now());
        let is_known = !snapshot.is_pending && live.freshness().is_fresh();
        let paused = is_known.then(|| conditions::paused(&snapshot));
        watch.see(AlertKind::Pause, paused, now).await;
        let closed = conditions::closed(&*store).await.ok();
        watch.see(AlertKind::UpstreamCooldown, closed, now).await;
        watch.see(AlertKind::UpstreamKeyRefused, Some(conditions::refused(&facts)), now).await;
        watch.see(AlertKind::PolicyRejected, Some(conditions::rejected(&facts)), now).await;
        watch.see(AlertKind::SpoolBacklog, Some(conditions::backlog(&facts, now)), now).await;
        let unsettled = conditions::unsettled(&*store, &live.tallies.samples, now).await;
        watch.see(AlertKind::UnsettledHigh, Some(unsettled), now).await;
        if looked.is_none_or(|looked: Instant| looked.elapsed() >= replicas::EVERY) {
            looked = Some(Instant::now());
            let mismatched = conditions::mismatched(&*store, now).await.ok();
            watch.see(AlertKind::LayoutMismatch, mismatched, now).await;
        }
        pause(&runtime).await;
    }
}

/// What tells one thing that lasts from another: its kind, what it is of, and where all replicas know when it began, that.
type Identity = (AlertKind, String, Option<AlertId>);

struct Watch<'w, S> {
    store: &'w S,
    /// What this replica has told that it began.
    known: HashMap<Identity, (AlertId, Notice)>,
    /// The kinds of which this cannot be recorded.
    failing: HashSet<AlertKind>,
}

impl<S: Store> Watch<'_, S> {
    /// Takes what lasts of one kind; `None`: it is not known now. What cannot be told now is tried again at the next look.
    async fn see(&mut self, kind: AlertKind, lasting: Option<Vec<Condition>>, now: Timestamp) {
        let Some(lasting) = lasting else { return };
        let (mut seen, mut failed, mut opened) = (HashSet::new(), None, 0);
        let free = MAX_KNOWN.saturating_sub(self.known.len());
        for Condition { notice, id } in lasting {
            let identity = (kind, notice.occasion.subject(), id);
            seen.insert(identity.clone());
            match self.known.get_mut(&identity) {
                // A cooldown may have been made longer. When it began stays.
                Some((_, known)) => known.occasion = notice.occasion,
                // Its entry would be forgotten soon, or has been already.
                None if now.since(notice.at) > OUTBOX_KEPT.ms / 2 => {}
                None if opened >= free.min(MAX_OPENED) => {}
                None => match self.open(identity.2.clone(), &notice, now).await {
                    Ok(id) => {
                        opened += 1;
                        self.known.insert(identity, (id, notice));
                    }
                    Err(error) => {
                        // Each of the others would wait for the store as well.
                        opened = if error == StoreError::Overflow { opened } else { MAX_OPENED };
                        failed = Some(error);
                    }
                },
            }
        }
        let is_over = |identity: &Identity| identity.0 == kind && !seen.contains(identity);
        let over: Vec<_> = self.known.keys().filter(|identity| is_over(identity)).cloned().collect();
        for identity in over {
            let Some((id, notice)) = self.known.get(&identity) else { continue };
            match self.resolve(id, notice, now).await {
                Ok(()) => drop(self.known.remove(&identity)),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => drop(self.failing.remove(&kind)),
            Some(error) => {
                if self.failing.insert(kind) {
                    warn!(%error, "what alerts are of cannot be recorded now; trying again");
                }
            }
        }
    }

    async fn open(
        &self,
        id: Option<AlertId>,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<AlertId, StoreError> {
        let id = match id {
            Some(id) => id,
            None => current_alert(self.store, &notice.occasion, now).await?,
        };
        self.store.outbox_append(notice.entry(&id).into_iter().collect(), OUTBOX_KEPT).await?;
        log(&id, notice);
        Ok(id)
    }

    async fn resolve(&self, id: &AlertId, notice: &Notice, now: Timestamp) -> Result<(), StoreError> {
        let at = match &notice.occasion {
            Occasion::UpstreamCooldown { end, .. } => now.min(*end),
            _ => now,
        };
        // Another replica may have told of it before.
        let began = match id.open() {
            Some(open) => outbox_find(self.store, &open).await?.and_then(|entry| notice_of(&entry.payload)),
            None => None,
        };
        let notice = Notice { at: began.map_or(notice.at, |began| began.at), ..notice.clone() };
        let at = at.max(notice.at);
        let over = notice.over(at);
        self.store.outbox_append(over.entry(id).into_iter().collect(), OUTBOX_KEPT).await?;
        log(id, &over);
        Ok(())
    }
}

/// Tells the log what receivers are told.
pub(super) fn log(id: &AlertId, notice: &Notice) {
    let (alert, summary) = (id.as_str(), notices::summary(&notice.occasion, notice.resolved));
    match (notice.resolved, notice.occasion.kind().severity()) {
        (Some(_), _) => info!(alert, summary, "an alert is resolved"),
        (None, Severity::Info) => info!(alert, summary, "an alert opens"),
        (None, Severity::Warning) => warn!(alert, summary, "an alert opens"),
        (None, Severity::Critical) => error!(alert, summary, "an alert opens"),
    }
}
