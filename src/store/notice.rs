//! What the outbox has of an [`Occasion`]: that it began, and that it is over, under one id.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Cooldown, MAX_OUTBOX_PAGE, Outbox, OutboxEntry, OutboxId, StoreError,
    outbox::{TIME_DIGITS, first_of_period},
};
use crate::domain::{Timestamp, cooldown::CooldownKey, counter::CounterKey, occasion::Occasion};

/// What ends the id of the entry that says that something began, or has happened.
const OPEN: &str = "_open";
/// What ends the id of the entry that says that it is over.
const RESOLVED: &str = "_resolved";
/// A day of UTC.
const DAY_MS: u64 = 86_400_000;
/// How many days back one that still lasts may have begun, to be the same.
const LOOK_BACK_DAYS: u64 = 30;
/// How often what has no beginning that all replicas know may begin in a day. Past that it is part of the last.
pub const MAX_A_DAY: u32 = 64;

/// The id of an alert: 12 digits of a time and 16 of a hash of what it is of. Whichever process makes it makes the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlertId(String);

impl AlertId {
    /// Of what began `at`, and of nothing else of this kind and subject.
    #[must_use]
    pub fn of(occasion: &Occasion, at: Timestamp) -> Self {
        Self::numbered(occasion, at, 0)
    }

    /// The one with this `number` among those of this kind and subject that have the time `at`.
    #[must_use]
    pub fn numbered(occasion: &Occasion, at: Timestamp, number: u32) -> Self {
        let name = format!("{}|{}|{}|{number}", occasion.kind().name(), occasion.subject(), at.0);
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(name.as_bytes()).as_bytes();
        let hash = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Self(format!("{:0TIME_DIGITS$x}{hash:016x}", at.0))
    }

    /// The same with another time in front: of an entry that stands elsewhere than its alert.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Self {
        Self(format!("{:0TIME_DIGITS$x}{}", at.0, self.0.get(TIME_DIGITS..).unwrap_or_default()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The alert of an entry without a queue.
    #[must_use]
    pub fn of_entry(id: &OutboxId) -> Option<Self> {
        let event = id.event();
        let id = event.strip_suffix(OPEN).or_else(|| event.strip_suffix(RESOLVED));
        id.map(|id| Self(id.to_owned()))
    }

    /// The entry that says that it began. Every id is one of an entry.
    #[must_use]
    pub fn open(&self) -> Option<OutboxId> {
        format!("{}{OPEN}", self.0).parse().ok()
    }

    /// The entry that says that it is over.
    #[must_use]
    pub fn resolved(&self) -> Option<OutboxId> {
        format!("{}{RESOLVED}", self.0).parse().ok()
    }
}

/// An occasion as the outbox has it before an alert is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When it began, or happened.
    pub at: Timestamp,
    /// When it was over, in the entry that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
    /// What.
    pub occasion: Occasion,
}

impl Notice {
    /// The first byte of its payload, which JSON follows.
    const VERSION: u8 = 5;

    /// What began or happened `at`.
    #[must_use]
    pub const fn new(at: Timestamp, occasion: Occasion) -> Self {
        Self { at, resolved: None, occasion }
    }

    /// The same, over since `resolved`.
    #[must_use]
    pub fn over(self, resolved: Timestamp) -> Self {
        Self { resolved: Some(resolved), ..self }
    }

    /// Its entry for the alert `id`.
    #[must_use]
    pub fn entry(&self, id: &AlertId) -> Option<OutboxEntry> {
        let id = if self.resolved.is_some() { id.resolved() } else { id.open() };
        let mut payload = vec![Self::VERSION];
        serde_json::to_writer(&mut payload, self).ok()?;
        Some(OutboxEntry { id: id?, payload: Bytes::from(payload) })
    }

    /// Reads a payload; `None`: it is of something else.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (_, json) = payload.split_first().filter(|(version, _)| **version == Self::VERSION)?;
        serde_json::from_slice(json).ok()
    }
}

/// What the alert of a closed gate is made of, with its id, which is the same for as long as the gate is closed without a gap; `None`: it is
/// the gate of no cooldown.
#[must_use]
pub fn cooldown_notice(gate: &CounterKey, cooldown: &Cooldown) -> Option<(AlertId, Notice)> {
    let CooldownKey { project, model, service_tier } = CooldownKey::of_gate(gate)?;
    let occasion = Occasion::UpstreamCooldown {
        project,
        model,
        service_tier: service_tier.name().into(),
        begun: cooldown.begun,
        start: cooldown.start,
        end: cooldown.end,
        requested_ms: cooldown.requested_ms,
        reporter: Arc::clone(&cooldown.reporter),
    };
    Some((AlertId::of(&occasion, cooldown.begun), Notice::new(cooldown.start, occasion)))
}

/// The entry that says that the budget with this counter will be used up at `exhaust`, as is known `at`; `None`: the counter has no
/// period. There is one for a budget and a period: adding it again adds nothing.
#[must_use]
pub fn budget_forecast(counter: &CounterKey, at: Timestamp, exhaust: Timestamp) -> Option<OutboxEntry> {
    let occasion = Occasion::BudgetForecast { counter: counter.to_string().into(), exhaust };
    let id = AlertId::of(&occasion, first_of_period(counter)?);
    Notice::new(at, occasion).entry(&id)
}

/// The entry `id` of the outbox of `store`.
///
/// # Errors
/// The store does not answer.
pub async fn outbox_find<S: Outbox>(store: &S, id: &OutboxId) -> Result<Option<OutboxEntry>, StoreError> {
    // No letter of an id comes before `-`, so the last entry before this is `id` itself, if it is there.
    let Ok(after) = format!("{id}-").parse() else { return Ok(None) };
    let last = store.outbox_page(Some(after), 1).await?;
    Ok(last.into_iter().find(|entry| entry.id == *id))
}

/// Gives the entries whose ids have exactly the time `at` to `look`, the last one first, and returns the time of the last entry before
/// them; `None`: there is none.
///
/// # Errors
/// The store does not answer.
pub async fn outbox_at<S: Outbox>(
    store: &S,
    at: Timestamp,
    mut look: impl FnMut(&OutboxEntry) + Send,
) -> Result<Option<Timestamp>, StoreError> {
    let mut before: Option<OutboxId> = format!("{:0TIME_DIGITS$x}", at.plus(1).0).parse().ok();
    // Seldom is there more than one that is of another time.
    let mut count = 1;
    while before.is_some() {
        let entries = store.outbox_page(before.take(), count).await?;
        for entry in &entries {
            if entry.id.time() != at {
                return Ok(Some(entry.id.time()));
            }
            look(entry);
        }
        (before, count) = (entries.last().map(|entry| entry.id.clone()), MAX_OUTBOX_PAGE);
    }
    Ok(None)
}

/// The id for what a replica sees at `now`, and of which replicas do not know the same beginning: that of the one that still lasts, or
/// one that begins now. So replicas that see it within a while have one.
///
/// # Errors
/// The store does not answer.
pub async fn current_alert<S: Outbox>(
    store: &S,
    occasion: &Occasion,
    now: Timestamp,
) -> Result<AlertId, StoreError> {
    let today = now.0 / DAY_MS;
    for back in (0..=LOOK_BACK_DAYS.min(today)).rev() {
        let day = Timestamp((today - back) * DAY_MS);
        for number in 0..MAX_A_DAY {
            let id = AlertId::numbered(occasion, day, number);
            let (Some(open), Some(resolved)) = (id.open(), id.resolved()) else { return Ok(id) };
            if outbox_find(store, &open).await?.is_none() {
                if back == 0 {
                    return Ok(id);
                }
                break;
            }
            if number + 1 == MAX_A_DAY && back == 0 || outbox_find(store, &resolved).await?.is_none() {
                return Ok(id);
            }
        }
    }
    Ok(AlertId::numbered(occasion, Timestamp(today * DAY_MS), 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        actor::Actor,
        drift::{Days, Drift},
    };

    const AT: Timestamp = Timestamp(1_795_428_000_000);

    fn pause(target: &str, reason: &str) -> Occasion {
        let by = Actor::system("test");
        Occasion::Pause { target: target.into(), reason: reason.into(), by, since: AT }
    }

    #[test]
    fn an_id_depends_on_what_it_is_of_and_when_it_began() {
        let id = AlertId::of(&pause("team/a", "x"), AT);
        assert_eq!(id, AlertId::of(&pause("team/a", "y"), AT));
        for other in [
            AlertId::of(&pause("team/b", "x"), AT),
            AlertId::of(&pause("team/a", "x"), AT.plus(1)),
            AlertId::numbered(&pause("team/a", "x"), AT, 1),
            AlertId::of(
                &Occasion::UnreservedRefused { team: "team/a".into(), message: "".into(), end: AT },
                AT,
            ),
        ] {
            assert_ne!(other, id);
        }
        let (open, resolved) = (id.open().unwrap(), id.resolved().unwrap());
        assert_eq!((open.time(), open.queue()), (AT, ""));
        assert_eq!([&open, &resolved].map(AlertId::of_entry), [Some(id.clone()), Some(id)]);
    }

    /// The bytes of version 5, which later releases read.
    #[test]
    fn each_occasion_is_as_it_was_recorded() {
        let text = |text: &str| -> Arc<str> { text.into() };
        let recorded = [
            (
                Occasion::UpstreamCooldown {
                    project: text("main"),
                    model: text("m/a"),
                    service_tier: text("flex"),
                    begun: Timestamp(3),
                    start: Timestamp(4),
                    end: Timestamp(5),
                    requested_ms: 6,
                    reporter: text("chatbot"),
                },
                r#"{"kind":"upstream_cooldown","project":"main","model":"m/a","service_tier":"flex","begun":3,"start":4,"end":5,"requested_ms":6,"reporter":"chatbot"}"#,
            ),
            (
                Occasion::UpstreamKeyRefused {
                    key: text("main/1f2e3d4c"),
                    project: text("main"),
                    place: text("/run/key"),
                    since: Timestamp(1),
                    is_last: true,
                },
                r#"{"kind":"upstream_key_refused","key":"main/1f2e3d4c","project":"main","place":"/run/key","since":1,"is_last":true}"#,
            ),
            (
                pause("team/a", "why"),
                r#"{"kind":"pause","target":"team/a","reason":"why","by":{"kind":"system","name":"test"},"since":1795428000000}"#,
            ),
            (
                Occasion::PolicyRejected { file: text("p.toml"), finding: text("x"), revision: text("5e9f") },
                r#"{"kind":"policy_rejected","file":"p.toml","finding":"x","revision":"5e9f"}"#,
            ),
            (
                Occasion::StoreOutage {
                    start: Timestamp(7),
                    replica: text("gate-1:1"),
                    degraded: 0,
                    spooled: 0,
                },
                r#"{"kind":"store_outage","start":7,"replica":"gate-1:1"}"#,
            ),
            (
                Occasion::StoreOutage {
                    start: Timestamp(7),
                    replica: text("gate-1:1"),
                    degraded: 9,
                    spooled: 0,
                },
                r#"{"kind":"store_outage","start":7,"replica":"gate-1:1","degraded":9}"#,
            ),
            (
                Occasion::SpoolBacklog {
                    spool: text("1f2e3d4c"),
                    replica: text("gate-1:1"),
                    records: 3,
                    oldest: Timestamp(7),
                    refused: 1,
                    lost: text(""),
                    fault: text(""),
                },
                r#"{"kind":"spool_backlog","spool":"1f2e3d4c","replica":"gate-1:1","records":3,"oldest":7,"refused":1,"lost":""}"#,
            ),
            (
                Occasion::SpoolBacklog {
                    spool: text("1f2e3d4c"),
                    replica: text("gate-1:1"),
                    records: 0,
                    oldest: Timestamp(0),
                    refused: 0,
                    lost: text(""),
                    fault: text("f"),
                },
                r#"{"kind":"spool_backlog","spool":"1f2e3d4c","replica":"gate-1:1","records":0,"oldest":0,"refused":0,"lost":"","fault":"f"}"#,
            ),
            (
                Occasion::UnsettledHigh { team: text("a"), expired: 12, total: 40 },
                r#"{"kind":"unsettled_high","team":"a","expired":12,"total":40}"#,
            ),
            (
                Occasion::UnreservedRefused { team: text("a"), message: text("m"), end: Timestamp(9) },
                r#"{"kind":"unreserved_refused","team":"a","message":"m","end":9}"#,
            ),
            (
                Occasion::BudgetForecast {
                    counter: text("team/a|usd|month@20261101"),
                    exhaust: Timestamp(9),
                },
                r#"{"kind":"budget_forecast","counter":"team/a|usd|month@20261101","exhaust":9}"#,
            ),
            (
                Occasion::LayoutMismatch { layout: 9, lowest: 8, replica: text("gate-1:1"), count: 2 },
                r#"{"kind":"layout_mismatch","layout":9,"lowest":8,"replica":"gate-1:1","count":2}"#,
            ),
            (
                Occasion::UsageDrift {
                    report: Days { start: 20_261_101, end: 20_261_201 },
                    drift: Drift {
                        days: Days { start: 20_261_123, end: 20_261_124 },
                        project: text("main"),
                        model: text("m/a"),
                        booked: 7,
                        billed: 9,
                        cause: text("why"),
                    },
                },
                r#"{"kind":"usage_drift","report":{"start":20261101,"end":20261201},"drift":{"start":20261123,"end":20261124,"project":"main","model":"m/a","booked":7,"billed":9,"cause":"why"}}"#,
            ),
        ];
        for (occasion, json) in recorded {
            let id = AlertId::of(&occasion, AT);
            let open = Notice::new(AT, occasion);
            let over = open.clone().over(AT.plus(1));
            let at = "\"at\":1795428000000";
            for (notice, bytes) in [
                (open, format!("\u{5}{{{at},\"occasion\":{json}}}")),
                (over, format!("\u{5}{{{at},\"resolved\":1795428000001,\"occasion\":{json}}}")),
            ] {
                let entry = notice.entry(&id).unwrap();
                assert_eq!(str::from_utf8(&entry.payload).unwrap(), bytes);
                assert_eq!(Notice::read(&entry.payload), Some(notice));
            }
        }
        assert_eq!((Notice::read(b""), Notice::read(b"\x05{}"), Notice::read(b"\x02{}")), (None, None, None));
    }
}
