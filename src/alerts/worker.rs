//! The workers that deliver: each receiver has one.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tracing::{Instrument as _, info, warn};

use super::{
    PAUSE_MS,
    alert::AlertState,
    body,
    delivery::{Delivery, DeliveryState, Event},
    event_name::EventNames,
    files,
    receivers::Receiver,
    send::{Message, SendError, Way, send},
};
use crate::{
    domain::Timestamp,
    runtime::{Entropy, Runtime},
    settings::{ReceiverKind, ReceiverSettings},
    store::{AlertId, ClaimedEntry, Outbox, OutboxEntry, OutboxId, StoreError, outbox_find},
};

/// What is claimed at once. A receiver gets so many requests at the same time at most, from each replica.
const AT_ONCE: usize = 8;
/// How much longer than its attempt a delivery stays claimed.
const MARGIN: Duration = Duration::from_secs(30);
/// The first wait between two attempts, which doubles, and the longest.
pub(super) const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 300_000;
/// Alertmanager forgets what it knew when it is restarted without its data, so what lasts is sent again.
const AGAIN_MS: u64 = 3_600_000;
/// The same of what has no end yet. It ends there by itself after three times as long, so it does not stay if none can say that it is over.
const AGAIN_OPEN_MS: u64 = 300_000;
/// The most entries of which it is said that they cannot be read.
const MAX_SAID: usize = 1_000;
/// A receiver that answers this wants no more.
pub(super) const GONE: u16 = 410;

/// A pause of random length, so that replicas do not all ask at once.
pub(super) async fn pause(runtime: &Runtime) {
    tokio::time::sleep(Duration::from_millis(jittered(PAUSE_MS, &runtime.entropy))).await;
}

/// Three quarters to five quarters of `ms`.
pub(super) fn jittered(ms: u64, entropy: &Entropy) -> u64 {
    let [random] = entropy.bytes().unwrap_or([128]);
    ms - ms / 4 + ms * u64::from(random) / 510
}

/// Delivers what is queued for one receiver.
pub(super) async fn deliver<S: Outbox>(
    store: Arc<S>,
    to: Arc<Receiver>,
    events: EventNames,
    runtime: Runtime,
) {
    let receiver = &to.settings;
    if let Err(error) = files::read(receiver).await {
        let error = error.with_path();
        warn!(receiver = receiver.name, error, "alerts could not be delivered now");
    }
    let queue: Arc<str> = receiver.name.as_str().into();
    let lease = lease_ms(receiver);
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
            let how = (is_gone, events);
            let attempt = async move { one(&*store, &to, (claimed, delivery), how, &runtime).await };
            attempts.spawn(attempt.in_current_span());
        }
        while let Some(attempt) = attempts.join_next().await {
            is_gone |= matches!(attempt, Ok(Some(GONE)));
        }
    }
}

/// For how long a delivery is claimed: its files and its answer are waited for in turn, for `timeout` each. If another process claimed it
/// before that is over, neither could write what became of it, and it would be sent for good.
fn lease_ms(receiver: &ReceiverSettings) -> u64 {
    u64::try_from((2 * receiver.timeout + MARGIN).as_millis()).unwrap_or(u64::MAX)
}

/// One attempt at one delivery, and what is kept of it. Returns the status of the answer, if there was one.
async fn one<S: Outbox>(
    store: &S,
    to: &Receiver,
    (claimed, mut delivery): (ClaimedEntry, Delivery),
    (is_gone, events): (bool, EventNames),
    runtime: &Runtime,
) -> Option<u16> {
    let (receiver, id) = (&to.settings, claimed.entry.id.clone());
    let now = runtime.clock.now();
    let retry_for = u64::try_from(receiver.retry_for.as_millis()).unwrap_or(u64::MAX);
    let waited = now.since(delivery.since);
    let is_late = waited >= retry_for;
    // Those before it may each take an attempt, and clocks differ.
    let grace = u64::try_from((receiver.timeout + MARGIN).as_millis()).unwrap_or(u64::MAX);
    if delivery.state == DeliveryState::Sent && again(receiver, &delivery.event, now).is_none() {
        // It has arrived, without the store.
        done(store, receiver, claimed, None).await;
        return None;
    }
    let has_ended = match has_ended(store, receiver, (&id, &delivery.event), now).await {
        Ok(has_ended) => has_ended,
        // The lease ends, and it is looked at once more.
        Err(_) => return None,
    };
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
        let name = events.name(id.event(), &delivery.event.alert.organization);
        attempt(receiver, &delivery, &name, now).await
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
    done(store, receiver, ClaimedEntry { entry, claim: claimed.claim }, next).await;
    status
}

/// Writes what became of a delivery.
async fn done<S: Outbox>(store: &S, receiver: &ReceiverSettings, claimed: ClaimedEntry, next: Option<u64>) {
    if let Err(error) = store.outbox_update(claimed, next).await {
        // The lease ends, and it is sent once more.
        warn!(receiver = receiver.name, %error, "what became of an alert cannot be written");
    }
}

/// Whether Alertmanager need not be told any more that it lasts: it may have been told that it does not, and would show it again.
async fn has_ended<S: Outbox>(
    store: &S,
    receiver: &ReceiverSettings,
    (id, event): (&OutboxId, &Event),
    now: Timestamp,
) -> Result<bool, StoreError> {
    if receiver.kind != ReceiverKind::Alertmanager || event.alert.state == AlertState::Resolved {
        return Ok(false);
    }
    let resolved = event.watched.as_ref().and_then(|_| AlertId::of_entry(id)?.resolved());
    Ok(match resolved {
        Some(resolved) => outbox_find(store, &resolved).await?.is_some(),
        None => event.end.is_some_and(|end| end <= now),
    })
}

/// After how many milliseconds what has arrived is sent again; `None`: it is not.
pub(super) fn again(receiver: &ReceiverSettings, event: &Event, now: Timestamp) -> Option<u64> {
    let lasts = event.end.is_some_and(|end| now.plus(AGAIN_MS) < end);
    match (receiver.kind, event.alert.state) {
        (ReceiverKind::Alertmanager, AlertState::Open) if event.watched.is_some() => Some(AGAIN_OPEN_MS),
        (ReceiverKind::Alertmanager, AlertState::Open) if lasts => Some(AGAIN_MS),
        _ => None,
    }
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
            let again = again(receiver, &delivery.event, now);
            delivery.since = now.plus(again.unwrap_or_default());
            again
        }
        // It was there, and has ended.
        Err(SendError::Ended) if delivery.state == DeliveryState::Sent => None,
        Err(error) if is_over => {
            delivery.state = DeliveryState::Expired;
            delivery.error = error.to_string();
            let error = error.with_path();
            warn!(receiver = name, alert, error, attempts = delivery.attempts + 1, "an alert was given up");
            None
        }
        Err(error) => {
            if delivery.attempts == 0 {
                let error = error.with_path();
                warn!(receiver = name, alert, error, "an alert could not be delivered; trying again");
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
    let Event { alert, end, watched } = &delivery.event;
    let end = end.or_else(|| watched.as_ref().map(|_| now.plus(3 * AGAIN_OPEN_MS)));
    let message: Message = match receiver.kind {
        ReceiverKind::Webhook => body::webhook(alert, event, now, &secrets),
        ReceiverKind::Slack => body::slack(alert),
        ReceiverKind::Alertmanager => body::alertmanager(alert, end),
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
    use crate::{
        alerts::{alert::Alert, body::tests::alert},
        domain::{actor::Actor, occasion::Occasion},
        settings::ReceiverUrl,
        store::Notice,
    };

    const HOUR_MS: u64 = 3_600_000;
    const NOW: Timestamp = Timestamp(1_795_514_400_000);

    fn delivery(end: Option<Timestamp>, state: DeliveryState) -> Delivery {
        let event = Event { alert: alert(), end, watched: None };
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

    /// The error is shown to everyone who sees the alert, also to those who may see one team only.
    #[tokio::test]
    async fn an_error_does_not_name_a_file_of_the_settings() {
        let url = ReceiverUrl::File("/none/of-the-operators".into());
        let receiver = ReceiverSettings { url, ..receiver(ReceiverKind::Slack) };
        let mut delivery = delivery(None, DeliveryState::Pending);
        let error = attempt(&receiver, &delivery, "0197_open", NOW).await.unwrap_err();
        assert!(error.with_path().contains("/none/of-the-operators"), "{}", error.with_path());
        for (is_over, state) in [(false, DeliveryState::Failing), (true, DeliveryState::Expired)] {
            outcome(&mut delivery, &receiver, Err(error.clone()), (is_over, NOW));
            assert_eq!(delivery.state, state);
            assert!(delivery.error.starts_with("a file of its settings cannot be read: No such file"));
            assert!(!delivery.error.contains("/none"), "{}", delivery.error);
        }
    }

    #[test]
    fn a_delivery_stays_claimed_for_longer_than_its_attempt_can_take() {
        let receiver = ReceiverSettings { timeout: Duration::from_secs(60), ..receiver(ReceiverKind::Slack) };
        assert_eq!(lease_ms(&receiver), 150_000, "for its files, for the answer, and for the store");
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
        // What has no end yet, until it is over.
        let by = Actor::system("test");
        let pause = Occasion::Pause { target: "organization".into(), reason: "".into(), by, since: NOW };
        let lasting = Event { watched: Some(Notice::new(NOW, pause)), alert: alert(), end: None };
        let over = Alert { state: AlertState::Resolved, ..alert() };
        let over = Event { alert: over, end: Some(NOW), watched: None };
        let again = |kind, event| again(&receiver(kind), event, NOW);
        assert_eq!(again(ReceiverKind::Alertmanager, &lasting), Some(AGAIN_OPEN_MS));
        assert_eq!(again(ReceiverKind::Alertmanager, &over), None);
        assert_eq!(again(ReceiverKind::Slack, &lasting), None);
    }
}
