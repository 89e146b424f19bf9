//! What the outbox keeps of an alert, and of its way to one receiver.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::alert::Alert;
use crate::{domain::Timestamp, store::Notice};

/// The first byte of an alert's payload, and of a delivery's. Versions of one format each: JSON, to which fields are added.
pub(super) const EVENT: u8 = 2;
pub(super) const DELIVERY: u8 = 3;

/// An alert that has been routed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) alert: Alert,
    /// When what it is of ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<Timestamp>,
    /// What is looked after until it is over. Only an entry that has been routed has it, and deliveries of its opening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) watched: Option<Notice>,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not tried yet.
    #[default]
    Pending,
    /// It has arrived.
    Sent,
    /// It did not arrive, and is tried again.
    Failing,
    /// It was given up.
    Expired,
}

impl DeliveryState {
    /// The short form of the contract's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Failing => "failing",
            Self::Expired => "expired",
        }
    }
}

/// An alert on its way to one receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Delivery {
    #[serde(flatten)]
    pub(super) event: Event,
    pub(super) state: DeliveryState,
    /// Since when it is tried: since it was recorded, or since it was last due to be sent again.
    pub(super) since: Timestamp,
    /// Attempts since then.
    pub(super) attempts: u32,
    #[serde(default)]
    pub(super) last_attempt: Timestamp,
    /// When the next attempt is due, as far as this is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next_attempt: Option<Timestamp>,
    /// Attempts at all.
    #[serde(default)]
    pub(super) sends: u32,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
}

impl Event {
    pub(super) fn payload(&self) -> Bytes {
        payload(EVENT, self)
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        read(EVENT, payload)
    }
}

impl Delivery {
    /// Of an alert that was not tried yet.
    pub(super) fn of(event: Event, since: Timestamp) -> Self {
        let (state, last_attempt) = (DeliveryState::Pending, Timestamp(0));
        Self {
            event,
            state,
            since,
            attempts: 0,
            last_attempt,
            next_attempt: None,
            sends: 0,
            error: String::new(),
        }
    }

    pub(super) fn payload(&self) -> Bytes {
        payload(DELIVERY, self)
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        read(DELIVERY, payload)
    }
}

/// What an entry is of that says that something which lasts began, routed or not; `None`: it is over, or of something else.
pub(super) fn notice_of(payload: &[u8]) -> Option<Notice> {
    Notice::read(payload).or_else(|| Event::read(payload)?.watched)
}

fn payload(version: u8, value: &impl Serialize) -> Bytes {
    let mut bytes = vec![version];
    // Texts and numbers, which JSON has.
    bytes.extend(serde_json::to_vec(value).unwrap_or_default());
    bytes.into()
}

fn read<T: DeserializeOwned>(version: u8, payload: &[u8]) -> Option<T> {
    let (found, json) = payload.split_first()?;
    (*found == version).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that later releases read.
    const RECORDED: &str = r#"{"alert":{"id":"0197","kind":"ALERT_KIND_BUDGET_THRESHOLD","severity":"SEVERITY_CRITICAL","state":"ALERT_STATE_OPEN","team":"a","createTime":"2026-11-24T10:00:00Z","summary":"s","organization":"acme"},"end":7,"state":"failing","since":2,"attempts":3,"last_attempt":5,"next_attempt":9,"sends":3,"error":"answered 500"}"#;

    #[test]
    fn a_delivery_is_as_it_was_recorded() {
        let recorded = [&[DELIVERY], RECORDED.as_bytes()].concat();
        let delivery = Delivery::read(&recorded).unwrap();
        assert_eq!(
            (delivery.state, delivery.attempts, delivery.last_attempt),
            (DeliveryState::Failing, 3, Timestamp(5))
        );
        // Those of the first release that had deliveries have neither.
        let first = RECORDED.replace(r#""next_attempt":9,"sends":3,"#, "");
        let first = Delivery::read(&[&[DELIVERY], first.as_bytes()].concat()).unwrap();
        assert_eq!((first.next_attempt, first.sends, first.attempts), (None, 0, 3));
        assert_eq!((&*delivery.event.alert.team, delivery.event.end), ("a", Some(Timestamp(7))));
        assert_eq!(delivery.payload(), recorded);
        let event = delivery.event;
        assert_eq!(Event::read(&event.payload()).as_ref(), Some(&event));
        assert_eq!(
            (Event::read(&recorded), Delivery::read(&event.payload()), Delivery::read(b"")),
            (None, None, None)
        );
    }
}
