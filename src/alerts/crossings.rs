//! When thresholds of budgets were crossed, as the outbox has it.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Mutex;

use super::{compose, delivery::Event};
use crate::{
    domain::{Timestamp, alert::AlertKind, snapshot::Snapshot},
    store::{Crossing, MAX_OUTBOX_PAGE, Outbox, OutboxEntry, OutboxId, StoreError},
};

/// The longest period of a budget, and a day: what was crossed longer ago was of an earlier one.
const LONGEST_PERIOD_MS: u64 = 32 * 86_400_000;
/// What is recorded may come to the list a while after later entries have: Redis moves what settlements recorded some at a time.
const LATE_MS: u64 = 600_000;

/// A threshold of a budget in one of its periods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BudgetThreshold {
    /// The limit's place in the policy, or its id.
    pub limit_id: String,
    /// Empty: the organization.
    pub team: String,
    /// Empty: of no key.
    pub key: String,
    /// Empty: of no user.
    pub user: String,
    /// In nano-dollars.
    pub amount: u64,
    /// The end of the period.
    pub end: Timestamp,
}

/// When the thresholds of the present periods were crossed. The atomic steps that crossed them have recorded it in the outbox, which keeps
/// 90 days, and of many alerts the last: what it keeps no more is not known.
///
/// The outbox has no index by budget, so what is found is kept: the first question reads the entries of a month, which takes some
/// milliseconds for a thousand, and later ones read what came since. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Crossings {
    // One question reads at a time, and the others wait for what it finds.
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    crossed: HashMap<BudgetThreshold, Timestamp>,
    /// The time of the last entry that was read; `None`: nothing was read yet.
    last: Option<Timestamp>,
}

impl Crossings {
    /// When those of `thresholds` were crossed that were, as far as that is kept. `store` and `snapshot` are always those of one
    /// organization.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn times<S: Outbox>(
        &self,
        store: &S,
        snapshot: &Snapshot,
        thresholds: Vec<BudgetThreshold>,
    ) -> Result<HashMap<BudgetThreshold, Timestamp>, StoreError> {
        if thresholds.is_empty() {
            return Ok(HashMap::new());
        }
        let mut known = self.known.lock().await;
        let now = store.now();
        known.follow(store, snapshot, now).await?;
        known.crossed.retain(|threshold, _| threshold.end > now);
        let time = |threshold: BudgetThreshold| {
            let at = *known.crossed.get(&threshold)?;
            Some((threshold, at))
        };
        Ok(thresholds.into_iter().filter_map(time).collect())
    }
}

impl Known {
    /// Reads the entries that came since the last time.
    async fn follow<S: Outbox>(
        &mut self,
        store: &S,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let since = match self.last {
            Some(last) => last.0.saturating_sub(LATE_MS),
            None => now.0.saturating_sub(LONGEST_PERIOD_MS),
        };
        let (mut before, mut newest): (Option<OutboxId>, _) = (None, self.last);
        loop {
            let entries = store.outbox_page(before.take(), MAX_OUTBOX_PAGE).await?;
            for entry in &entries {
                newest = newest.max(Some(entry.id.time()));
                if let Some((threshold, at)) = crossed(snapshot, entry) {
                    let known = self.crossed.entry(threshold).or_insert(at);
                    *known = at.min(*known);
                }
            }
            before = entries.last().map(|entry| entry.id.clone());
            if before.as_ref().is_none_or(|last| last.time().0 < since) {
                // Only now, so that what a failure kept from being read is read the next time.
                self.last = Some(newest.unwrap_or(now).min(now));
                return Ok(());
            }
        }
    }
}

/// Which threshold the entry says was crossed, and when: as the settlement has recorded it, or as it was routed.
fn crossed(
    snapshot: &Snapshot,
    OutboxEntry { id, payload }: &OutboxEntry,
) -> Option<(BudgetThreshold, Timestamp)> {
    if !id.queue().is_empty() {
        return None;
    }
    let at = id.time();
    let (alert, end) = match Crossing::read(payload) {
        Some(crossing) => {
            let composed = compose::of_crossing(snapshot, id.event(), at, &crossing)?;
            (composed.alert, composed.end)
        }
        None => Event::read(payload).map(|event| (event.alert, event.end))?,
    };
    let amount = alert.budget.filter(|_| alert.kind == AlertKind::BudgetThreshold)?.amount.nano_usd()?;
    let (limit_id, team, key, user) = (alert.limit_id, alert.team, alert.key, alert.user);
    Some((BudgetThreshold { limit_id, team, key, user, amount, end: end? }, at))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        policy_file::parse_policy,
        runtime::clock::{Clock, ManualClock},
        store::{OUTBOX_KEPT, embedded::EmbeddedStore},
    };

    const CROSSED: Timestamp = Timestamp(1_795_514_400_123);

    fn snapshot(daily_usd: &str) -> Snapshot {
        let text = format!(
            "[organization]\nid = \"acme\"\n[teams.bot]\nmodels = [\"*\"]\nmax_output_tokens = 9\n\
             budget = {{ daily_usd = \"{daily_usd}\", alerts = [\"50%\"] }}\n"
        );
        let report = parse_policy(&text, "policy.toml");
        Snapshot::pending(Arc::new(report.policy.expect("a sound policy")))
    }

    fn entry(id: &str, payload: impl Into<Bytes>) -> OutboxEntry {
        OutboxEntry { id: id.parse().unwrap(), payload: payload.into() }
    }

    /// As `settle.lua` writes it: $5 of `team/bot|usd|day` in the period of `day`.
    fn recorded(day: u32) -> Vec<u8> {
        let mut payload = vec![Crossing::VERSION];
        for amount in [5_000_000_000_u64, 6_000_000_000] {
            payload.extend_from_slice(&amount.to_le_bytes()[..7]);
        }
        payload.extend_from_slice(format!("team/bot|usd|day@{day}").as_bytes());
        payload
    }

    #[test]
    fn a_crossing_is_known_before_and_after_it_was_routed() {
        let snapshot = snapshot("10");
        let id = format!("{:012x}0b0c0d0e0f100000_open", CROSSED.0);
        let raw = entry(&id, recorded(20_261_124));
        let (threshold, at) = crossed(&snapshot, &raw).unwrap();
        assert_eq!(
            (&*threshold.limit_id, threshold.amount, at),
            ("teams.bot.budget.daily_usd", 5_000_000_000, CROSSED)
        );
        assert!(threshold.end > CROSSED && threshold.end.since(CROSSED) <= 86_400_000);
        let crossing = Crossing::read(&raw.payload).unwrap();
        let composed = compose::of_crossing(&snapshot, "x", CROSSED, &crossing).unwrap();
        let routed = Event { alert: composed.alert, end: composed.end, watched: None }.payload();
        assert_eq!(crossed(&snapshot, &entry(&id, routed.clone())), Some((threshold, at)));
        // What is on its way to a receiver, of a period that was over by then, of a limit that the policy has no more, or something else.
        assert_eq!(crossed(&snapshot, &entry(&format!("{id}/ops"), routed)), None);
        assert_eq!(crossed(&snapshot, &entry(&id, recorded(20_261_123))), None);
        assert_eq!(crossed(&snapshot, &entry(&id, vec![9])), None);
    }

    #[tokio::test]
    async fn what_was_crossed_is_read_once_and_followed() {
        let directory = TempDir::new().unwrap();
        let clock = ManualClock::new(CROSSED.plus(1_000));
        let store = EmbeddedStore::open_scratch(directory.path(), Clock::Manual(clock)).unwrap();
        let snapshot = snapshot("10");
        let crossings = Crossings::default();
        let raw = |ms: u64| {
            entry(&format!("{:012x}0b0c0d0e0f10{ms:04x}_open", CROSSED.0 + ms), recorded(20_261_124))
        };
        let (threshold, _) = crossed(&snapshot, &raw(0)).unwrap();
        let ask = async || crossings.times(&store, &snapshot, vec![threshold.clone()]).await.unwrap();
        assert_eq!(ask().await, HashMap::new());
        // More than one page has, and one that comes later than later ones.
        for chunk in (100..300).map(raw).collect::<Vec<_>>().chunks(50) {
            store.outbox_append(chunk.to_vec(), OUTBOX_KEPT).await.unwrap();
        }
        assert_eq!(ask().await, HashMap::from([(threshold.clone(), CROSSED.plus(100))]));
        store.outbox_append(vec![raw(3)], OUTBOX_KEPT).await.unwrap();
        assert_eq!(ask().await, HashMap::from([(threshold.clone(), CROSSED.plus(3))]));
    }
}
