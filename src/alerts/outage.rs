//! The one alert that cannot go through the store: that it does not answer. It is sent from memory, and recorded once the store is back.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tracing::Instrument as _;

use super::{
    delivery::{Delivery, DeliveryState, Event},
    event_name::EventNames,
    notices, watch,
    worker::{self, jittered, pause},
};
use crate::{
    domain::{Timestamp, alert::AlertRoute, occasion::Occasion, snapshot::Snapshot},
    live::Live,
    runtime::{Runtime, replica_name},
    settings::ReceiverSettings,
    spool::Spool,
    store::{AlertId, MAX_OUTBOX_APPEND, Notice, OUTBOX_KEPT, OutboxEntry, Store, StoreError, outbox_find},
};

/// The store has not answered for so long before it is told: a restart of Redis, or a failover, is over by then.
const BOUND: Duration = Duration::from_secs(10);
/// A store that takes longer for an answer than this has not answered.
const ASK: Duration = Duration::from_secs(2);
/// Outages of one hour have numbers, by which replicas agree on their ids while they cannot ask.
const HOUR_MS: u64 = 3_600_000;
/// The most outages of one hour that are told apart.
const MAX_AN_HOUR: u32 = 64;
/// Between two looks at which number is next. Another replica may have had an outage that this one had not.
const FOLLOW: Duration = Duration::from_secs(5);
/// Undelivered, it is tried again after a second, then twice as long each time up to this.
const LONGEST_WAIT_MS: u64 = 60_000;

/// Asks the store about once a second whether it answers, and tells when it does not.
pub(super) async fn watch<S: Store>(
    store: Arc<S>,
    (live, spool): (Arc<Live>, Option<Spool>),
    (receivers, events): (Vec<ReceiverSettings>, EventNames),
    runtime: Runtime,
) {
    let mut numbers = Numbers::new(runtime.clock.now());
    let (mut silent, mut lasting): (Option<Silence>, Option<Outage>) = (None, None);
    loop {
        let asked = Silence {
            since: Instant::now(),
            start: runtime.clock.now(),
            decided: decided(&live, spool.as_ref()),
        };
        let answered = matches!(tokio::time::timeout(ASK, store.ping()).await, Ok(Ok(())));
        if answered {
            silent = None;
            if let Some(outage) = lasting.take() {
                let id = outage.id.clone();
                // If the store is gone again before it has this, the outage lasts.
                let outage = outage.having_decided(decided(&live, spool.as_ref()));
                lasting = outage.end(&*store, &live.snapshot(), runtime.clock.now()).await.err();
                if lasting.is_none() {
                    numbers.pass(&id);
                }
            }
            numbers.follow(&*store).await;
        } else {
            let silence = *silent.get_or_insert(asked);
            if lasting.is_none() && silence.since.elapsed() >= BOUND {
                let so_far = decided(&live, spool.as_ref());
                let snapshot = live.snapshot();
                let told = (&*snapshot, &*receivers, events);
                lasting = Some(Outage::begin(&numbers, (silence, so_far), told, &runtime));
            }
        }
        pause(&runtime).await;
    }
}

/// The first question in a row that the store did not answer.
#[derive(Clone, Copy)]
struct Silence {
    since: Instant,
    start: Timestamp,
    /// What this replica had done without the store until then.
    decided: Decided,
}

/// What a replica has done without the store: requests that it has decided, and reports that it has kept.
#[derive(Clone, Copy)]
struct Decided {
    degraded: u64,
    spooled: u64,
}

/// What this replica has done without the store.
fn decided(live: &Live, spool: Option<&Spool>) -> Decided {
    let degraded = live.tallies.teams().iter().map(|team| team.degraded()).sum();
    Decided { degraded, spooled: spool.map_or(0, Spool::kept) }
}

impl Decided {
    const fn since(self, before: Self) -> Self {
        let degraded = self.degraded.saturating_sub(before.degraded);
        Self { degraded, spooled: self.spooled.saturating_sub(before.spooled) }
    }
}

/// Which outage the next one is: the hour in which the store last answered, by its clock, and a number in it.
struct Numbers {
    hour: u64,
    number: u32,
    looked: Option<Instant>,
}

impl Numbers {
    const fn new(now: Timestamp) -> Self {
        Self { hour: now.0 / HOUR_MS, number: 0, looked: None }
    }

    fn next(&self, occasion: &Occasion) -> AlertId {
        AlertId::numbered(occasion, Timestamp(self.hour * HOUR_MS), self.number)
    }

    /// The outage with this id is recorded: the next one is another, also if the store is gone before it can be asked.
    fn pass(&mut self, id: &AlertId) {
        if self.next(&any()) == *id {
            self.number += 1;
        }
    }

    /// Follows the store, which answers: past the outages of this hour that replicas have recorded there.
    async fn follow<S: Store>(&mut self, store: &S) {
        let hour = store.now().0 / HOUR_MS;
        if hour == self.hour && self.looked.is_some_and(|looked| looked.elapsed() < FOLLOW) {
            return;
        }
        self.number = if hour == self.hour { self.number } else { 0 };
        (self.hour, self.looked) = (hour, Some(Instant::now()));
        let any = any();
        while self.number < MAX_AN_HOUR
            && let Some(open) = self.next(&any).open()
            // What is not known now is looked at again.
            && matches!(outbox_find(store, &open).await, Ok(Some(_)))
        {
            self.number += 1;
        }
    }
}

/// Ids of outages depend neither on when they began for a replica, nor on which replica it is.
fn any() -> Occasion {
    Occasion::StoreOutage { start: Timestamp(0), replica: "".into(), degraded: 0, spooled: 0 }
}

/// An outage that is told, until it is recorded that it is over.
struct Outage {
    id: AlertId,
    notice: Notice,
    /// What this replica had done without the store before.
    before: Decided,
    /// The receivers that have it. Each task adds its own once.
    delivered: Arc<Mutex<HashSet<String>>>,
    /// One for each receiver; ended when this is dropped.
    _telling: JoinSet<()>,
}

impl Outage {
    fn begin(
        numbers: &Numbers,
        (silence, by_now): (Silence, Decided),
        (snapshot, receivers, events): (&Snapshot, &[ReceiverSettings], EventNames),
        runtime: &Runtime,
    ) -> Self {
        let Silence { start, decided: before, .. } = silence;
        let Decided { degraded, spooled } = by_now.since(before);
        let occasion = Occasion::StoreOutage { start, replica: replica_name().into(), degraded, spooled };
        let (id, notice) = (numbers.next(&occasion), Notice::new(start, occasion));
        watch::log(&id, &notice);
        let (mut telling, delivered) = (JoinSet::new(), Arc::<Mutex<HashSet<String>>>::default());
        let composed = notices::of_notice(snapshot, &id, &notice);
        if let (Some(composed), Some(open)) = (composed, id.open()) {
            let alert = composed.alert;
            let takes = |route: &AlertRoute| route.takes(alert.kind, alert.severity, &alert.team);
            let takes = |receiver: &ReceiverSettings| {
                let mut own = snapshot.policy.alerts.iter().filter(|route| *route.receiver == *receiver.name);
                own.any(takes)
            };
            for receiver in receivers.iter().filter(|receiver| takes(receiver)) {
                let event = Event { alert: alert.clone(), end: None, watched: Some(notice.clone()) };
                let telling_one = tell(
                    receiver.clone(),
                    event,
                    events.name(&open.to_string(), &alert.organization),
                    (Arc::clone(&delivered), runtime.clone()),
                );
                telling.spawn(telling_one.in_current_span());
            }
        }
        Self { id, notice, before, delivered, _telling: telling }
    }

    /// The same, where this replica has done so much without the store by now.
    fn having_decided(mut self, by_now: Decided) -> Self {
        if let Occasion::StoreOutage { degraded, spooled, .. } = &mut self.notice.occasion {
            let by_now = by_now.since(self.before);
            (*degraded, *spooled) = (by_now.degraded, by_now.spooled);
        }
        self
    }

    /// Records it as over: what has arrived is not sent again. Gives itself back if that fails.
    async fn end<S: Store>(self, store: &S, snapshot: &Snapshot, now: Timestamp) -> Result<(), Self> {
        let over = self.notice.clone().over(now.max(self.notice.at));
        match self.record(store, snapshot, &over).await {
            Ok(()) => {
                watch::log(&self.id, &over);
                Ok(())
            }
            Err(_) => Err(self),
        }
    }

    async fn record<S: Store>(
        &self,
        store: &S,
        snapshot: &Snapshot,
        over: &Notice,
    ) -> Result<(), StoreError> {
        let delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut entries = Vec::new();
        if let (Some(open), Some(composed)) =
            (self.id.open(), notices::of_notice(snapshot, &self.id, &self.notice))
        {
            let event = Event { alert: composed.alert, end: None, watched: None };
            let at = self.notice.at;
            let sent = Delivery { state: DeliveryState::Sent, last_attempt: at, ..Delivery::of(event, at) }
                .payload();
            for receiver in delivered {
                let id = format!("{open}/{receiver}").parse();
                entries.extend(id.map(|id| OutboxEntry { id, payload: sent.clone() }));
            }
        }
        // Last, so that what has arrived is known before the rest is queued.
        entries.extend(self.notice.entry(&self.id).into_iter().chain(over.entry(&self.id)));
        for part in entries.chunks(MAX_OUTBOX_APPEND) {
            store.outbox_append(part.to_vec(), OUTBOX_KEPT).await?;
        }
        Ok(())
    }
}

/// Sends it to one receiver until it has arrived, and to Alertmanager again for as long as it lasts.
async fn tell(
    receiver: ReceiverSettings,
    event: Event,
    id: String,
    (delivered, runtime): (Arc<Mutex<HashSet<String>>>, Runtime),
) {
    let delivery = Delivery::of(event, runtime.clock.now());
    let mut wait = worker::FIRST_WAIT_MS;
    loop {
        match worker::attempt(&receiver, &delivery, &id, runtime.clock.now()).await {
            Ok(_) => {
                delivered.lock().unwrap_or_else(PoisonError::into_inner).insert(receiver.name.clone());
                let Some(again) = worker::again(&receiver, &delivery.event, runtime.clock.now()) else {
                    return;
                };
                wait = again;
            }
            // It wants no more.
            Err(error) if error.status() == Some(worker::GONE) => return,
            Err(error) => {
                if wait == worker::FIRST_WAIT_MS {
                    let error = error.with_path();
                    tracing::warn!(
                        receiver = receiver.name,
                        alert = delivery.event.alert.id,
                        error,
                        "an alert could not be delivered; trying again"
                    );
                }
                wait = wait.saturating_mul(2).min(LONGEST_WAIT_MS);
            }
        }
        tokio::time::sleep(Duration::from_millis(jittered(wait, &runtime.entropy))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outage_after_one_that_is_recorded_is_another() {
        let mut numbers = Numbers::new(Timestamp(7 * HOUR_MS + 1));
        let first = numbers.next(&any());
        assert_eq!(numbers.next(&any()), first);
        numbers.pass(&first);
        let second = numbers.next(&any());
        assert_ne!(second, first);
        // What is of an earlier hour, or was passed already, changes nothing.
        numbers.pass(&first);
        assert_eq!(numbers.next(&any()), second);
    }
}
