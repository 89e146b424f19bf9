//! Makes alerts of what is new, queues them for receivers, and looks after those that last until they are over.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tracing::warn;

use super::{
    Facts, MAX_PENDING,
    alert::{Alert, AlertState, instant},
    compose::{self, Composed},
    conditions,
    delivery::{Delivery, Event},
    notices,
    worker::pause,
};
use crate::{
    domain::{Timestamp, alert::AlertKind, snapshot::Snapshot},
    live::Live,
    runtime::Runtime,
    store::{
        AlertId, ClaimedEntry, Crossing, Exhaustion, Notice, OUTBOX_KEPT, Outbox, OutboxEntry, OutboxId,
        Store, StoreError, outbox_find,
    },
};

/// How long what is new may take to be queued; then another replica does it.
const ROUTING_LEASE_MS: u64 = 60_000;
/// What is claimed at once.
const AT_ONCE: usize = 8;
/// Between two looks for what is to be forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// The shortest and the longest time between two looks at an alert that lasts. Its replicas tell when it is over, so the look is for
/// when they are gone; the longer it has lasted, the later.
const LOOK_MS: (u64, u64) = (2_000, 30_000);
/// The longest for what only a report ends, which says so itself: this is for its first entry, of which there may be many for weeks.
const LOOK_REPORTED_MS: u64 = 300_000;

/// Makes alerts of what the outbox has, and queues them for the receivers that the policy names.
pub(super) async fn route<S: Store>(
    store: Arc<S>,
    (live, facts): (Arc<Live>, Facts),
    known: Vec<String>,
    runtime: Runtime,
) {
    let (mut missing, mut failing) = (HashSet::new(), false);
    let mut forgotten = tokio::time::Instant::now();
    loop {
        let snapshot = live.snapshot();
        let router = Router { store: &*store, live: &live, snapshot: &snapshot, facts: &facts };
        // Until the registry was read, the limits of created keys are not known.
        let routed =
            if snapshot.is_pending { Ok(false) } else { router.route_some(runtime.clock.now()).await };
        for route in &snapshot.policy.alerts {
            if !known.iter().any(|name| **name == *route.receiver)
                && missing.insert(Arc::clone(&route.receiver))
            {
                let receiver = &*route.receiver;
                warn!(
                    receiver,
                    "the policy sends alerts to a receiver that the settings do not have; they wait for it"
                );
            }
        }
        if let Err(error) = &routed
            && !failing
        {
            warn!(%error, "alerts cannot be routed: the store does not answer");
        }
        failing = routed.is_err();
        if forgotten.elapsed() >= FORGET {
            forgotten = tokio::time::Instant::now();
            // It is tried again in a minute.
            let _ = store.outbox_append(Vec::new(), OUTBOX_KEPT).await;
        }
        if !matches!(routed, Ok(true)) {
            pause(&runtime).await;
        }
    }
}

/// What a look at the outbox needs.
struct Router<'r, S> {
    store: &'r S,
    live: &'r Live,
    snapshot: &'r Snapshot,
    facts: &'r Facts,
}

impl<S: Store> Router<'_, S> {
    /// Whether there was anything.
    async fn route_some(&self, now: Timestamp) -> Result<bool, StoreError> {
        let claim = self.store.outbox_claim("".into(), AT_ONCE, ROUTING_LEASE_MS).await?;
        for claimed in &claim.entries {
            match self.route_one(claimed, now).await {
                // It is the fault of this one, and those behind it are not to wait for the end of their lease.
                Err(error @ (StoreError::Overflow | StoreError::Corrupt)) => {
                    warn!(alert = claimed.entry.id.event(), %error, "an alert cannot be routed");
                }
                routed => routed?,
            }
        }
        Ok(!claim.entries.is_empty())
    }

    async fn route_one(&self, claimed: &ClaimedEntry, now: Timestamp) -> Result<(), StoreError> {
        let OutboxEntry { id, payload } = &claimed.entry;
        if let Some(event) = Event::read(payload)
            && let Some(notice) = event.watched.clone()
        {
            return self.look(claimed, event, &notice, now).await;
        }
        let Some(mut event) = self.event_of(&claimed.entry) else { return Ok(()) };
        if let Some(entry) = apart(&claimed.entry, &event) {
            self.store.outbox_append(vec![entry], OUTBOX_KEPT).await?;
            return self.store.outbox_update(claimed.clone(), None).await.map(drop);
        }
        if event.alert.state == AlertState::Resolved {
            self.keep_owner(id, &mut event.alert).await?;
        }
        queue(self.store, self.snapshot, (id, now), &event).await?;
        let next = event.watched.is_some().then_some(LOOK_MS.0);
        self.update(claimed, &event, next).await
    }

    /// Gives what is over the team and the key that it began with, so that those are told who were told before: its key may have been
    /// removed since, or another of its name created.
    async fn keep_owner(&self, id: &OutboxId, alert: &mut Alert) -> Result<(), StoreError> {
        let Some(open) = AlertId::of_entry(id).and_then(|id| id.open()) else { return Ok(()) };
        let opened = outbox_find(self.store, &open).await?;
        if let Some(opened) = opened.and_then(|entry| Event::read(&entry.payload)) {
            (alert.team, alert.key) = (opened.alert.team, opened.alert.key);
        }
        Ok(())
    }

    async fn update(
        &self,
        claimed: &ClaimedEntry,
        event: &Event,
        next_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        let entry = OutboxEntry { payload: event.payload(), ..claimed.entry.clone() };
        self.store.outbox_update(ClaimedEntry { entry, claim: claimed.claim }, next_ms).await.map(drop)
    }

    /// Whether an alert that lasts is over: then it is told, unless it was, and its first entry says so as well.
    async fn look(
        &self,
        claimed: &ClaimedEntry,
        mut event: Event,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(id) = AlertId::of_entry(&claimed.entry.id) else { return Ok(()) };
        let Some(resolved) = id.resolved() else { return Ok(()) };
        let over = match outbox_find(self.store, &resolved).await? {
            Some(entry) => Some(resolved_at(&entry.payload).unwrap_or(now)),
            None => {
                let over = conditions::is_over(self.store, (self.live, self.facts), notice, now).await?;
                let at = over.then(|| now.max(notice.at));
                let entry = at.and_then(|at| notice.clone().over(at).entry(&id));
                if let Some(entry) = entry {
                    self.store.outbox_append(vec![entry], OUTBOX_KEPT).await?;
                }
                at
            }
        };
        let Some(at) = over else {
            let is_reported = notice.occasion.kind() == AlertKind::UsageDrift;
            let longest = if is_reported { LOOK_REPORTED_MS } else { LOOK_MS.1 };
            let next = (now.since(notice.at) / 20).clamp(LOOK_MS.0, longest);
            return self.update(claimed, &event, Some(next)).await;
        };
        (event.alert.state, event.alert.resolve_time) = (AlertState::Resolved, instant(at));
        (event.end, event.watched) = (Some(at), None);
        self.update(claimed, &event, None).await
    }

    /// What an entry says; `None`: it is of a later release, which will claim it.
    fn event_of(&self, OutboxEntry { id, payload }: &OutboxEntry) -> Option<Event> {
        let event = |Composed { alert, end }| Event { alert, end, watched: None };
        if let Some(notice) = Notice::read(payload) {
            let own = AlertId::of_entry(id)?;
            let own = if is_of_period(&notice) { own.at(notice.at) } else { own };
            let composed = notices::of_notice(self.snapshot, &own, &notice)?;
            let lasts = notice.resolved.is_none() && notice.occasion.kind().has_duration();
            return Some(Event { watched: lasts.then_some(notice), ..event(composed) });
        }
        if let Some(crossing) = Crossing::read(payload) {
            let (alert, _) = id.event().rsplit_once('_')?;
            return compose::of_crossing(self.snapshot, alert, id.time(), &crossing).map(event);
        }
        if let Some(exhaustion) = Exhaustion::read(payload) {
            return compose::of_exhaustion(self.snapshot, &exhaustion.alert_id(id)?, &exhaustion).map(event);
        }
        Event::read(payload)
    }
}

/// When an alert was over, by the entry that says so.
fn resolved_at(payload: &[u8]) -> Option<Timestamp> {
    let notice = Notice::read(payload).and_then(|notice| notice.resolved);
    notice.or_else(|| Event::read(payload).and_then(|event| event.end))
}

/// Whether the entry of a notice is of the start of a budget's period.
fn is_of_period(notice: &Notice) -> bool {
    notice.occasion.kind() == AlertKind::BudgetForecast
}

/// The entry of an alert that is not kept in the one that it comes from, which is of the start of a period: at its own time, where
/// lists have it. It is routed next.
fn apart(entry: &OutboxEntry, event: &Event) -> Option<OutboxEntry> {
    let notice = || Notice::read(&entry.payload).filter(is_of_period);
    Exhaustion::read(&entry.payload).map(drop).or_else(|| notice().map(drop))?;
    let id: OutboxId = format!("{}_open", event.alert.id).parse().ok()?;
    (id != entry.id).then(|| OutboxEntry { id, payload: event.payload() })
}

/// Queues an alert for each receiver that a route names, once.
async fn queue<S: Outbox>(
    store: &S,
    snapshot: &Snapshot,
    (id, since): (&OutboxId, Timestamp),
    event: &Event,
) -> Result<(), StoreError> {
    let alert = &event.alert;
    let routes =
        snapshot.policy.alerts.iter().filter(|route| route.takes(alert.kind, alert.severity, &alert.team));
    let receivers: HashSet<_> = routes.map(|route| &route.receiver).collect();
    for receiver in receivers {
        let pending = store.outbox_claim(Arc::clone(receiver), 0, 0).await?.pending;
        if pending >= MAX_PENDING {
            warn!(%receiver, pending, alert = alert.id, "an alert is not sent: the receiver's queue is full");
            continue;
        }
        let Ok(id) = format!("{}/{receiver}", id.event()).parse() else { continue };
        let payload = Delivery::of(event.clone(), since).payload();
        store.outbox_append(vec![OutboxEntry { id, payload }], OUTBOX_KEPT).await?;
    }
    Ok(())
}
