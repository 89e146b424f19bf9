//! The workers: one makes alerts of what is new and queues them for receivers, and each receiver has one that delivers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{
    MAX_PENDING, PAUSE_MS, body, compose,
    delivery::{Delivery, DeliveryState, Event},
    files,
    receivers::Receiver,
    send::{Message, SendError, Way, send},
};
use crate::{
    domain::{Timestamp, snapshot::Snapshot},
    live::Live,
    runtime::{Entropy, Runtime},
    settings::{ReceiverKind, ReceiverSettings},
    store::{ClaimedEntry, Crossing, Exhaustion, OUTBOX_KEPT, Outbox, OutboxEntry, OutboxId, StoreError},
};

/// How long what is new may take to be queued; then another replica does it.
const ROUTING_LEASE_MS: u64 = 60_000;
/// What is claimed at once. A receiver gets so many requests at the same time at most, from each replica.
const AT_ONCE: usize = 8;
/// How much longer than its attempt a delivery stays claimed.
const MARGIN: Duration = Duration::from_secs(30);
/// The first wait between two attempts, which doubles, and the longest.
const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 300_000;
/// Alertmanager forgets what it knew when it is restarted without its data, so what goes on is sent again.
const AGAIN_MS: u64 = 3_600_000;
/// A receiver that answers this wants no more.
const GONE: u16 = 410;
/// The most entries of which it is said that they cannot be read.
const MAX_SAID: usize = 1_000;

/// Between two looks for what is to be forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Makes alerts of what settlements added, and queues them for the receivers that the policy names.
pub(super) async fn route<S: Outbox>(store: Arc<S>, live: Arc<Live>, known: Vec<String>, runtime: Runtime) {
    let (mut missing, mut failing) = (HashSet::new(), false);
    let mut forgotten = tokio::time::Instant::now();
    loop {
        let snapshot = live.snapshot();
        // Until the registry was read, the limits of created keys are not known.
        let routed = if snapshot.is_pending {
            Ok(false)
        } else {
            route_some(&*store, &snapshot, runtime.clock.now()).await
        };
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

/// A pause of random length, so that replicas do not all ask at once.
async fn pause(runtime: &Runtime) {
    tokio::time::sleep(Duration::from_millis(jittered(PAUSE_MS, &runtime.entropy))).await;
}

/// Three quarters to five quarters of `ms`.
fn jittered(ms: u64, entropy: &Entropy) -> u64 {
    let [random] = entropy.bytes().unwrap_or([128]);
    ms - ms / 4 + ms * u64::from(random) / 510
}

/// Whether there was anything.
async fn route_some<S: Outbox>(store: &S, snapshot: &Snapshot, now: Timestamp) -> Result<bool, StoreError> {
    let claim = store.outbox_claim("".into(), AT_ONCE, ROUTING_LEASE_MS).await?;
    for claimed in &claim.entries {
        let Some(event) = event_of(snapshot, &claimed.entry) else { continue };
        let payload = match apart(&claimed.entry, &event) {
            Some(entry) => {
                store.outbox_append(vec![entry], OUTBOX_KEPT).await?;
                claimed.entry.payload.clone()
            }
            None => {
                queue(store, snapshot, (&claimed.entry.id, now), &event).await?;
                event.payload()
            }
        };
        let entry = OutboxEntry { payload, ..claimed.entry.clone() };
        store.outbox_update(ClaimedEntry { entry, claim: claimed.claim }, None).await?;
    }
    Ok(!claim.entries.is_empty())
}

/// What an entry says; `None`: it is of a later release, which will claim it.
fn event_of(snapshot: &Snapshot, OutboxEntry { id, payload }: &OutboxEntry) -> Option<Event> {
    if let Some(crossing) = Crossing::read(payload) {
        let (alert, _) = id.event().rsplit_once('_')?;
        let composed = compose::of_crossing(snapshot, alert, id.time(), &crossing)?;
        return Some(Event { alert: composed.alert, end: composed.end });
    }
    if let Some(exhaustion) = Exhaustion::read(payload) {
        let composed = compose::of_exhaustion(snapshot, &exhaustion.alert_id(id)?, &exhaustion)?;
        return Some(Event { alert: composed.alert, end: composed.end });
    }
    Event::read(payload)
}

/// The entry of an alert that is not kept in the one that it comes from, which is of the start of a period: at its own time, where
/// lists have it. It is routed next.
fn apart(entry: &OutboxEntry, event: &Event) -> Option<OutboxEntry> {
    Exhaustion::read(&entry.payload)?;
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

/// Delivers what is queued for one receiver.
pub(super) async fn deliver<S: Outbox>(store: Arc<S>, to: Arc<Receiver>, runtime: Runtime) {
    let receiver = &to.settings;
    if let Err(error) = files::read(receiver).await {
        warn!(receiver = receiver.name, %error, "alerts could not be delivered now");
    }
    let queue: Arc<str> = receiver.name.as_str().into();
    let lease = u64::try_from((receiver.timeout + MARGIN).as_millis()).unwrap_or(u64::MAX);
    let (mut failing, mut is_gone, mut unreadable) = (false, false, HashSet::new());
    loop {
        let claim = store.outbox_claim(Arc::clone(&queue), AT_ONCE, lease).await;
        if let Err(error) = &claim
            && !failing
        {
            warn!(receiver = receiver.name, %error, "alerts cannot be delivered: the store does not answer");
        }
        failing = claim.is_err();
        let entries = claim.map(|claim| claim.entries).unwrap_or_default();
        if entries.is_empty() {
            pause(&runtime).await;
            continue;
        }
        let mut attempts = JoinSet::new();
        for claimed in entries {
            let Some(delivery) = Delivery::read(&claimed.entry.payload) else {
                // It is claimed again when the lease ends: by then perhaps by the release that wrote it.
                let id = claimed.entry.id;
                if unreadable.len() < MAX_SAID && unreadable.insert(id.clone()) {
                    let (receiver, alert) = (&receiver.name, id.event());
                    warn!(receiver, alert, "what is queued cannot be read by this release");
                }
                continue;
            };
            let (store, to, runtime) = (Arc::clone(&store), Arc::clone(&to), runtime.clone());
            attempts.spawn(async move { one(&*store, &to, (claimed, delivery), (is_gone, &runtime)).await });
        }
        while let Some(attempt) = attempts.join_next().await {
            is_gone |= matches!(attempt, Ok(Some(GONE)));
        }
    }
}

/// One attempt at one delivery, and what is kept of it. Returns the status of the answer, if there was one.
async fn one<S: Outbox>(
    store: &S,
    to: &Receiver,
    (claimed, mut delivery): (ClaimedEntry, Delivery),
    (is_gone, runtime): (bool, &Runtime),
) -> Option<u16> {
    let (receiver, id) = (&to.settings, claimed.entry.id.clone());
    let now = runtime.clock.now();
    let retry_for = u64::try_from(receiver.retry_for.as_millis()).unwrap_or(u64::MAX);
    let waited = now.since(delivery.since);
    let is_late = waited >= retry_for;
    // Those before it may each take an attempt, and clocks differ.
    let grace = u64::try_from((receiver.timeout + MARGIN).as_millis()).unwrap_or(u64::MAX);
    let has_ended =
        receiver.kind == ReceiverKind::Alertmanager && delivery.event.end.is_some_and(|end| end <= now);
    let sent = if is_gone {
        Err(SendError::Status(GONE))
    } else if has_ended {
        // Alertmanager has resolved it by its end, and may have one of the next period by now.
        Err(SendError::Ended)
    } else if delivery.attempts == 0 && waited >= retry_for.saturating_add(grace) {
        // There was no process that knew the receiver.
        Err(SendError::Late)
    } else {
        delivery.sends = delivery.sends.saturating_add(1);
        attempt(receiver, &delivery, id.event(), now).await
    };
    let status = match &sent {
        Ok(status) => Some(*status),
        Err(error) => error.status(),
    };
    let is_over = is_late || has_ended || status == Some(GONE);
    delivery.last_attempt = now;
    let next = outcome(&mut delivery, receiver, sent.map(drop), (is_over, now));
    // What had arrived and has ended was not sent.
    if delivery.state != DeliveryState::Sent || !has_ended {
        to.count(delivery.state);
    }
    let next = next.map(|wait| jittered(wait, &runtime.entropy));
    delivery.next_attempt = next.map(|wait| runtime.clock.now().plus(wait));
    let entry = OutboxEntry { payload: delivery.payload(), id };
    if let Err(error) = store.outbox_update(ClaimedEntry { entry, claim: claimed.claim }, next).await {
        // The lease ends, and it is sent once more.
        warn!(receiver = receiver.name, %error, "what became of an alert cannot be written");
    }
    status
}

/// What an attempt makes of a delivery, and in how many milliseconds the next one is; `None`: there is none.
fn outcome(
    delivery: &mut Delivery,
    receiver: &ReceiverSettings,
    sent: Result<(), SendError>,
    (is_over, now): (bool, Timestamp),
) -> Option<u64> {
    let (name, alert) = (&receiver.name, delivery.event.alert.id.clone());
    match sent {
        Ok(()) => {
            if delivery.state == DeliveryState::Failing {
                info!(
                    receiver = name,
                    alert,
                    attempts = delivery.attempts + 1,
                    "an alert was delivered after all"
                );
            }
            (delivery.state, delivery.attempts) = (DeliveryState::Sent, 0);
            delivery.error.clear();
            let goes_on = delivery.event.end.is_some_and(|end| now.plus(AGAIN_MS) < end);
            delivery.since = now.plus(AGAIN_MS);
            (receiver.kind == ReceiverKind::Alertmanager && goes_on).then_some(AGAIN_MS)
        }
        // It was there, and has ended.
        Err(SendError::Ended) if delivery.state == DeliveryState::Sent => None,
        Err(error) if is_over => {
            warn!(receiver = name, alert, %error, attempts = delivery.attempts + 1, "an alert was given up");
            delivery.state = DeliveryState::Expired;
            delivery.error = error.to_string();
            None
        }
        Err(error) => {
            if delivery.attempts == 0 {
                warn!(receiver = name, alert, %error, "an alert could not be delivered; trying again");
            }
            let wait = FIRST_WAIT_MS.saturating_mul(1 << delivery.attempts.min(16)).min(LONGEST_WAIT_MS);
            (delivery.state, delivery.attempts) =
                (DeliveryState::Failing, delivery.attempts.saturating_add(1));
            delivery.error = error.to_string();
            Some(wait)
        }
    }
}

/// Sends an alert once. Files are read each time, so a secret that is rotated needs no restart.
pub(super) async fn attempt(
    receiver: &ReceiverSettings,
    delivery: &Delivery,
    event: &str,
    now: Timestamp,
) -> Result<u16, SendError> {
    let (url, secrets) = files::read(receiver).await?;
    let Event { alert, end } = &delivery.event;
    let message: Message = match receiver.kind {
        ReceiverKind::Webhook => body::webhook(alert, event, now, &secrets),
        ReceiverKind::Slack => body::slack(alert),
        ReceiverKind::Alertmanager => body::alertmanager(alert, *end),
    };
    let way = Way {
        url: &url,
        ca_file: receiver.tls_ca_file.as_deref(),
        allow_private: receiver.allow_private,
        timeout: receiver.timeout,
    };
    send(&way, message).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{alerts::body::tests::alert, settings::ReceiverUrl};

    const HOUR_MS: u64 = 3_600_000;
    const NOW: Timestamp = Timestamp(1_795_514_400_000);

    fn delivery(end: Option<Timestamp>, state: DeliveryState) -> Delivery {
        let event = Event { alert: alert(), end };
        Delivery { state, ..Delivery::of(event, NOW) }
    }

    fn receiver(kind: ReceiverKind) -> ReceiverSettings {
        ReceiverSettings {
            name: "ops".to_owned(),
            kind,
            url: ReceiverUrl::Here("http://127.0.0.1:9/".to_owned()),
            secret_files: Vec::new(),
            tls_ca_file: None,
            timeout: Duration::from_secs(1),
            retry_for: Duration::from_secs(3_600),
            allow_private: true,
        }
    }

    #[test]
    fn alertmanager_is_told_again_only_of_what_goes_on_then() {
        let next = |kind, end| {
            let mut delivery = delivery(Some(end), DeliveryState::Pending);
            outcome(&mut delivery, &receiver(kind), Ok(()), (false, NOW))
        };
        assert_eq!(next(ReceiverKind::Alertmanager, NOW.plus(HOUR_MS + 1)), Some(AGAIN_MS));
        assert_eq!(next(ReceiverKind::Alertmanager, NOW.plus(HOUR_MS)), None, "it has ended by then");
        assert_eq!(next(ReceiverKind::Webhook, NOW.plus(9 * HOUR_MS)), None);
    }
}
