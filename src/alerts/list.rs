//! What the outbox keeps of alerts, read from its newest entry: pages of alerts with their deliveries, and what they say together.
//!
//! The entries of an alert stand together in the order of ids: `ID_open`, `ID_open/RECEIVER` for each delivery of it, and, once it has
//! ended, `ID_resolved` and its deliveries. Alerts are handed on as the JSON that is kept, so what a later release adds is not lost.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use serde_json::Value;

use super::{
    delivery::{DELIVERY, DeliveryState, EVENT},
    receivers::States,
};
use crate::{
    domain::Timestamp,
    store::{MAX_OUTBOX_PAGE, Outbox, OutboxEntry, OutboxId, StoreError},
};

/// The most entries read at once, and about the most bytes: a filter that matches little gets pages with few alerts, not a slow answer.
const MAX_READ: usize = 4_096;
const MAX_READ_BYTES: usize = 16 << 20;
/// About the most bytes of alerts on one page.
const MAX_ANSWER: usize = 1 << 20;

/// The id of what all replicas are to call by one name begins with the start of the day, or of the hour, and not with the time of its
/// alert: so far behind a time alerts of it may stand.
const MAX_BEHIND_MS: u64 = 86_400_000;

/// Which alerts to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertQuery {
    /// The most alerts of a page.
    pub page_size: usize,
    /// [`AlertPage::next`] of the previous page; `None`: the newest.
    pub before: Option<OutboxId>,
    /// Only alerts that were created at this time or later.
    pub since: Option<Timestamp>,
}

/// A page of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertPage<T> {
    /// The newest first, each with its place.
    pub alerts: Vec<(OutboxId, T)>,
    /// Before which place the next page begins; `None`: this was the last page.
    pub next: Option<OutboxId>,
}

/// An alert as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedAlert {
    /// Its id.
    pub id: Arc<str>,
    /// The contract's message in protobuf's JSON, as the release that made it wrote it. Without deliveries.
    pub json: Value,
    /// Its deliveries by receiver: of what says that it has ended, for receivers that get that.
    pub deliveries: BTreeMap<String, ListedDelivery>,
}

/// A delivery as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedDelivery {
    /// How far it is; `None`: in a state of a later release.
    pub state: Option<DeliveryState>,
    /// Attempts at all.
    pub attempts: u32,
    /// When it was last tried or given up.
    pub last_attempt: Option<Timestamp>,
    /// When it is due again.
    pub next_attempt: Option<Timestamp>,
    /// Why the last attempt failed; empty: it did not.
    pub error: String,
}

impl ListedAlert {
    /// Whether it was created at `since` or later. One that does not say when is of the time in its id.
    fn is_since(&self, since: Timestamp) -> bool {
        let text = self.json.get("createTime").and_then(Value::as_str);
        let created = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let created = created.and_then(|at| u64::try_from(at.as_millisecond()).ok()).map(Timestamp);
        let digits = || self.id.parse::<OutboxId>().map(|id| id.time()).unwrap_or_default();
        created.unwrap_or_else(digits) >= since
    }
}

/// The page that `query` asks for, of those alerts that `show` shows.
///
/// # Errors
/// The store cannot be read.
pub async fn page<S: Outbox, T: Send>(
    store: &S,
    query: &AlertQuery,
    mut show: impl FnMut(ListedAlert) -> Option<T> + Send,
) -> Result<AlertPage<T>, StoreError> {
    let mut show = |listed: ListedAlert| {
        if query.since.is_none_or(|since| listed.is_since(since)) { show(listed) } else { None }
    };
    let (mut alerts, mut answered, mut before) = (Vec::new(), 0, query.before.clone());
    let (mut read, mut read_bytes) = (0, 0);
    let mut group: Option<Group> = None;
    loop {
        let entries = store.outbox_page(before.clone(), MAX_OUTBOX_PAGE).await?;
        let (is_end, mut is_past) = (entries.is_empty(), false);
        for entry in entries {
            before = Some(entry.id.clone());
            is_past = query.since.is_some_and(|since| entry.id.time().plus(MAX_BEHIND_MS) < since);
            if is_past {
                break;
            }
            (read, read_bytes) = (read + 1, read_bytes + entry.payload.len());
            let Some((alert, _)) = entry.id.event().rsplit_once('_') else { continue };
            if group.as_ref().is_some_and(|group| *group.id != *alert)
                && let Some(Group { place, bytes, alert, .. }) = group.take()
            {
                let shown = alert.and_then(&mut show);
                answered += if shown.is_some() { bytes } else { 0 };
                alerts.extend(shown.map(|shown| (place.clone(), shown)));
                // Only between two alerts, so that none is cut.
                let is_full = alerts.len() >= query.page_size.max(1) || answered >= MAX_ANSWER;
                if is_full || read >= MAX_READ || read_bytes >= MAX_READ_BYTES {
                    return Ok(AlertPage { alerts, next: Some(place) });
                }
            }
            if group.is_none() {
                group = Group::of(alert);
            }
            if let Some(group) = &mut group {
                group.add(&entry);
            }
        }
        if is_end || is_past {
            let last = group.and_then(|group| Some((group.place, group.alert.and_then(&mut show)?)));
            alerts.extend(last);
            return Ok(AlertPage { alerts, next: None });
        }
    }
}

/// The entries of one alert.
struct Group {
    id: Arc<str>,
    /// Comes before its entries, and behind those of all earlier alerts.
    place: OutboxId,
    bytes: usize,
    /// What was found of it so far.
    alert: Option<ListedAlert>,
    deliveries: BTreeMap<String, ListedDelivery>,
}

impl Group {
    fn of(id: &str) -> Option<Self> {
        let place = id.parse().ok()?;
        Some(Self { id: id.into(), place, bytes: 0, alert: None, deliveries: BTreeMap::new() })
    }

    /// Takes an entry. They come last one first, so what says that it has ended comes before what says that it began. An entry in which
    /// this release finds no alert is not routed yet, or of a later one.
    fn add(&mut self, OutboxEntry { id, payload }: &OutboxEntry) {
        match id.queue() {
            "" => {
                if self.alert.is_none()
                    && let Some(json) = json_of(payload)
                {
                    self.bytes += payload.len();
                    let deliveries = std::mem::take(&mut self.deliveries);
                    self.alert = Some(ListedAlert { id: Arc::clone(&self.id), json, deliveries });
                }
            }
            receiver => {
                let deliveries =
                    self.alert.as_mut().map_or(&mut self.deliveries, |alert| &mut alert.deliveries);
                deliveries.entry(receiver.to_owned()).or_insert_with(|| ListedDelivery::read(payload));
            }
        }
    }
}

/// The alert that an entry keeps.
fn json_of(payload: &[u8]) -> Option<Value> {
    let (_, json) = payload.split_first().filter(|(version, _)| **version == EVENT)?;
    let mut event: Value = serde_json::from_slice(json).ok()?;
    event.get_mut("alert").map(Value::take).filter(Value::is_object)
}

/// What an entry says of a delivery beside its alert.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Progress {
    state: Value,
    sends: u32,
    last_attempt: Timestamp,
    next_attempt: Option<Timestamp>,
    error: String,
}

impl ListedDelivery {
    /// One that cannot be read is there all the same.
    fn read(payload: &[u8]) -> Self {
        let json = payload.split_first().filter(|(version, _)| **version == DELIVERY).map(|(_, json)| json);
        let read: Option<Progress> = json.and_then(|json| serde_json::from_slice(json).ok());
        let Some(Progress { state, sends, last_attempt, next_attempt, error }) = read else {
            return Self::default();
        };
        Self {
            state: serde_json::from_value(state).ok(),
            attempts: sends,
            last_attempt: Some(last_attempt).filter(|at| *at > Timestamp(0)),
            next_attempt,
            error,
        }
    }
}

/// How the deliveries to each receiver go that are among the newest entries.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn states<S: Outbox>(store: &S) -> Result<States, StoreError> {
    let mut latest = BTreeMap::<String, (Timestamp, DeliveryState)>::new();
    newest(store, |OutboxEntry { id, payload }| {
        let delivery =
            if id.queue().is_empty() { ListedDelivery::default() } else { ListedDelivery::read(payload) };
        let Some(state) = delivery.state else { return };
        let at = match state {
            // Before all that were tried, and behind all that fail.
            DeliveryState::Pending => Timestamp(0),
            DeliveryState::Failing => Timestamp(u64::MAX),
            DeliveryState::Sent | DeliveryState::Expired => delivery.last_attempt.unwrap_or_default(),
        };
        let known = latest.entry(id.queue().to_owned()).or_insert((at, state));
        if at > known.0 {
            *known = (at, state);
        }
    })
    .await?;
    Ok(latest.into_iter().map(|(name, (_, state))| (name, state)).collect())
}

/// How many alerts there are among the newest entries, by the short forms of their kinds and states.
///
/// # Errors
/// The store cannot be read.
pub async fn counts<S: Outbox>(store: &S) -> Result<BTreeMap<(String, String), u64>, StoreError> {
    let (mut counts, mut last) = (BTreeMap::new(), String::new());
    newest(store, |OutboxEntry { id, payload }| {
        let Some((alert, _)) = id.event().rsplit_once('_').filter(|(alert, _)| *alert != last) else {
            return;
        };
        let Some(json) = id.queue().is_empty().then(|| json_of(payload)).flatten() else { return };
        alert.clone_into(&mut last);
        let short = |field: &str, prefix: &str| {
            let name = json.get(field).and_then(Value::as_str).and_then(|name| name.strip_prefix(prefix));
            name.unwrap_or("unspecified").to_ascii_lowercase()
        };
        *counts.entry((short("kind", "ALERT_KIND_"), short("state", "ALERT_STATE_"))).or_default() += 1;
    })
    .await?;
    Ok(counts)
}

/// Gives the newest entries to `look`, the last one first.
async fn newest<S: Outbox>(store: &S, mut look: impl FnMut(&OutboxEntry) + Send) -> Result<(), StoreError> {
    let (mut before, mut read) = (None, 0);
    loop {
        let entries = store.outbox_page(before, MAX_OUTBOX_PAGE).await?;
        entries.iter().for_each(&mut look);
        read += entries.len();
        before = entries.last().map(|entry| entry.id.clone());
        if before.is_none() || read >= MAX_READ {
            return Ok(());
        }
    }
}
