//! Keys of both kinds as callers see them: with the use of each secret, and the spend of each key.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    KeyError,
    keys::{IN_USE_MS, Keys, Uses},
};
use crate::{
    domain::{
        Timestamp,
        calendar::Days,
        key::{Breach, KeyCursor, KeyState, SecretId, VirtualKey},
        rbac::TeamScope,
    },
    store::{Registry, SecretUses, Usage, UsageAmounts, UsageKey, each_line, use_slot},
};

/// Which keys to show.
#[derive(Clone, Debug, Default)]
pub struct KeyQuery {
    /// Only those of one team; empty: of all.
    pub team: String,
    /// Only those in one of these states; empty: in any.
    pub states: Vec<KeyState>,
    /// Only those with this in their names; empty: all.
    pub name_contains: String,
    /// Whether to read what each spent, which takes longer the more their teams spend.
    pub include_usage: bool,
    /// The most keys.
    pub page_size: usize,
    /// Continue after the key that stands or stood at this position; `None`: from the start.
    pub after: Option<KeyCursor>,
}

/// One page of keys.
#[derive(Clone, Debug)]
pub struct KeyPage {
    /// The keys, in the order of all keys.
    pub keys: Vec<KeyReport>,
    /// Continue after this one; `None`: the last page.
    pub next_after: Option<KeyCursor>,
}

/// A key, its use and its spend.
#[derive(Clone, Debug)]
pub struct KeyReport {
    /// The key.
    pub key: Arc<VirtualKey>,
    /// Whether it can be used.
    pub state: KeyState,
    /// The use of each secret, in their order.
    pub secrets: Vec<SecretReport>,
    /// What it spent; `None`: not read.
    pub usage: Option<KeyUsage>,
}

/// How a secret is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecretReport {
    /// Whether it is valid now, leaving its key aside.
    pub live: bool,
    /// The last time.
    pub last_used: Option<Timestamp>,
    /// Requests on the organization's current day.
    pub requests_today: u64,
    /// Requests of the last 24 hours, and of up to a quarter of an hour before.
    pub requests_last_24_hours: u64,
}

/// What was recorded for a key: by all keys of its name in its team.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage {
    /// Requests today.
    pub requests_today: u64,
    /// Tokens today.
    pub tokens_today: u64,
    /// Nano-USD today.
    pub cost_today: u64,
    /// Nano-USD this month.
    pub cost_this_month: u64,
    /// The model that cost most this month.
    pub top_model: Option<Arc<str>>,
}

impl KeyQuery {
    fn wants(&self, key: &VirtualKey, now: Timestamp) -> bool {
        (self.team.is_empty() || *key.team == *self.team)
            && key.name.contains(&self.name_contains)
            && (self.states.is_empty() || self.states.contains(&key.state(now)))
    }
}

impl<S: Registry + Usage> Keys<S> {
    /// The key of this name in `scope`: the created one, otherwise the one that a team declares. If several teams declare it,
    /// `team` selects one; otherwise `team` may be empty.
    ///
    /// # Errors
    /// If there is none, or several, or the store does not answer.
    pub async fn get_key(&self, name: &str, team: &str, scope: &TeamScope) -> Result<KeyReport, KeyError> {
        let wanted = |key: &VirtualKey| scope.holds(&key.team) && (team.is_empty() || *key.team == *team);
        let created = match self.created_key(name).await {
            Ok(key) => Some(key).filter(|key| wanted(key)),
            Err(KeyError::NotCreated(_)) => None,
            Err(error) => return Err(error),
        };
        let found = match created {
            Some(created) => vec![created],
            None => self.declared_keys(name).into_iter().filter(|key| wanted(key)).collect(),
        };
        if found.len() > 1 {
            let teams: Vec<String> = found.iter().map(|key| format!("`{}`", key.team)).collect();
            let message = format!("the teams {} each have a key of this name; name one", teams.join(", "));
            return Err(KeyError::Invalid(vec![Breach { field: "team", message }]));
        }
        self.spent(self.used(found).await?).await?.pop().ok_or_else(|| KeyError::Unknown(name.to_owned()))
    }

    /// The created key of this name, without its use.
    ///
    /// # Errors
    /// If there is none, or the store does not answer.
    pub async fn created_key(&self, name: &str) -> Result<Arc<VirtualKey>, KeyError> {
        self.follower.read().await?;
        Ok(self.stored_key(name)?.0)
    }

    /// The keys of this name that the policy document declares, by team.
    #[must_use]
    pub fn declared_keys(&self, name: &str) -> Vec<Arc<VirtualKey>> {
        self.follower.snapshot().policy.keys.named(name).to_vec()
    }

    /// A key that was just written, with the use of its secrets if that can be read, and without its spend: reading that takes
    /// longer the more a team spends, and a change waits for neither.
    pub async fn report_changed(&self, key: Arc<VirtualKey>) -> KeyReport {
        let used = self.used(vec![Arc::clone(&key)]).await.ok().and_then(|mut reports| reports.pop());
        used.unwrap_or_else(|| report(key, self.follower.store().now(), |_| SecretReport::default()))
    }

    /// The keys of both kinds, page by page. A page looks at each key once at most, however few the query wants.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn list_keys(&self, query: &KeyQuery) -> Result<KeyPage, KeyError> {
        self.follower.read().await?;
        let (snapshot, size) = (self.follower.snapshot(), query.page_size.max(1));
        let now = self.follower.store().now();
        let wanted = |key: &VirtualKey| query.wants(key, now);
        // One more than the page shows tells whether there is another page.
        let (after, count) = (query.after.as_ref(), size + 1);
        let mut keys = self.follower.live().registry.keys_after(after, count, wanted);
        let declared = snapshot.policy.keys.after(after).iter().filter(|key| wanted(key));
        keys.extend(declared.take(count).cloned());
        keys.sort_by_cached_key(|key| key.cursor());
        let more = keys.len() > size;
        keys.truncate(size);
        let next_after = keys.last().filter(|_| more).map(|key| key.cursor());
        let keys = self.used(keys).await?;
        Ok(KeyPage { keys: if query.include_usage { self.spent(keys).await? } else { keys }, next_after })
    }

    /// The use of each key's secrets.
    async fn used(&self, keys: Vec<Arc<VirtualKey>>) -> Result<Vec<KeyReport>, KeyError> {
        self.follower.live().write_uses(self.follower.store()).await;
        let now = self.follower.store().now();
        let today = self.follower.snapshot().policy.calendar.today(now);
        let ids: Vec<SecretId> = keys.iter().flat_map(|key| key.secrets()).map(|secret| secret.id).collect();
        let mut uses: Uses = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(crate::store::MAX_USES) {
            uses.extend(ids.iter().copied().zip(self.follower.store().uses(ids.to_vec()).await?));
        }
        let of_secret = |id| uses.get(&id).map(|uses| secret_report(uses, &today, now)).unwrap_or_default();
        Ok(keys.into_iter().map(|key| report(key, now, of_secret)).collect())
    }

    /// The same reports with what each key spent. One at a time on each core: that of a large team takes a while, piece by piece.
    async fn spent(&self, mut reports: Vec<KeyReport>) -> Result<Vec<KeyReport>, KeyError> {
        if reports.is_empty() {
            return Ok(reports);
        }
        let _turn = self.reporting.acquire().await.map_err(|_| KeyError::Internal)?;
        let today = self.follower.snapshot().policy.calendar.today(self.follower.store().now());
        let mut spent: Spent = HashMap::with_capacity(reports.len());
        for KeyReport { key, .. } in &reports {
            spent.entry(Arc::clone(&key.team)).or_default().entry(Arc::clone(&key.name)).or_default();
        }
        for (team, keys) in &mut spent {
            let lines = self.follower.store().spend(today.month_number(), Arc::clone(team)).await?;
            let add_line = |line: UsageKey, amounts: &UsageAmounts| {
                if let Some(of_key) = keys.get_mut(&line.key) {
                    of_key.add(line, amounts, &today);
                }
            };
            each_line(lines, add_line).await;
        }
        for KeyReport { key, usage, .. } in &mut reports {
            let of_key = spent.get(&key.team).and_then(|keys| keys.get(&key.name));
            *usage = Some(of_key.map(KeySpent::usage).unwrap_or_default());
        }
        Ok(reports)
    }
}

/// By team and key: what each key of a page spent.
type Spent = HashMap<Arc<str>, HashMap<Arc<str>, KeySpent>>;

/// What a key spent so far, by the lines that were added up.
#[derive(Default)]
struct KeySpent {
    usage: KeyUsage,
    by_model: BTreeMap<Arc<str>, u64>,
}

impl KeySpent {
    fn add(&mut self, line: UsageKey, amounts: &UsageAmounts, today: &Days) {
        let add = |sum: &mut u64, amount: u64| *sum = sum.saturating_add(amount);
        if line.day == today.day_number() {
            add(&mut self.usage.requests_today, amounts.requests);
            add(&mut self.usage.tokens_today, amounts.input_tokens);
            add(&mut self.usage.tokens_today, amounts.output_tokens);
            add(&mut self.usage.cost_today, amounts.cost_nanos);
        }
        add(&mut self.usage.cost_this_month, amounts.cost_nanos);
        add(self.by_model.entry(line.model).or_default(), amounts.cost_nanos);
    }

    fn usage(&self) -> KeyUsage {
        let top_model =
            self.by_model.iter().max_by_key(|(_, cost)| **cost).map(|(model, _)| Arc::clone(model));
        KeyUsage { top_model, ..self.usage.clone() }
    }
}

fn report(key: Arc<VirtualKey>, now: Timestamp, uses: impl Fn(SecretId) -> SecretReport) -> KeyReport {
    let secrets = key.secrets().iter();
    let secrets =
        secrets.map(|secret| SecretReport { live: secret.is_live(now), ..uses(secret.id) }).collect();
    KeyReport { state: key.state(now), secrets, usage: None, key }
}

fn secret_report(uses: &SecretUses, today: &Days, now: Timestamp) -> SecretReport {
    // Days begin with a slot: time zone offsets are multiples of a quarter of an hour.
    let (day, last_24_hours) =
        (use_slot(today.day.start), use_slot(Timestamp(now.0.saturating_sub(IN_USE_MS))));
    let since = |first: u32| {
        let counted = uses.slots.iter().filter(|(slot, _)| *slot >= first);
        counted.fold(0_u64, |sum, (_, requests)| sum.saturating_add(*requests))
    };
    SecretReport {
        live: false,
        last_used: uses.last_used,
        requests_today: since(day),
        requests_last_24_hours: since(last_24_hours),
    }
}
