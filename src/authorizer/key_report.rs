//! Keys as they are looked at: with how often each secret was used, and what each key spent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Authorizer, KeyError, Versioned,
    keys::{IN_USE_MS, Uses},
};
use crate::{
    domain::{
        Timestamp,
        calendar::Days,
        keys::{KeyRecord, KeyState, SecretId},
    },
    store::{SecretUses, SpendAmounts, SpendKey, Store, use_slot},
};

/// Which keys to show.
#[derive(Clone, Debug, Default)]
pub struct KeyQuery {
    /// Of one team; empty: of all.
    pub team: String,
    /// The most keys.
    pub page_size: usize,
    /// Continue after this name; empty: from the start.
    pub after: String,
}

/// One page of keys.
#[derive(Clone, Debug)]
pub struct KeyPage {
    /// The keys, by name.
    pub keys: Vec<KeyReport>,
    /// Continue after this name; `None`: the last page.
    pub next_after: Option<Arc<str>>,
}

/// A key, its use and its spend.
#[derive(Clone, Debug)]
pub struct KeyReport {
    /// The version of its record.
    pub version: u64,
    /// The key.
    pub record: Arc<KeyRecord>,
    /// Whether it can be used.
    pub state: KeyState,
    /// The use of each secret, in their order.
    pub secrets: Vec<SecretReport>,
    /// What it spent.
    pub usage: KeyUsage,
}

/// How a secret is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecretReport {
    /// Whether it is good now, its key aside.
    pub live: bool,
    /// The last time.
    pub last_used: Option<Timestamp>,
    /// Requests of the present day of the organization.
    pub requests_today: u64,
    /// Requests of the last 24 hours, and of up to a quarter of an hour before.
    pub requests_last_24_hours: u64,
}

/// What a key used, as recorded.
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

impl<S: Store + Clone> Authorizer<S> {
    /// The key of this name.
    ///
    /// # Errors
    /// Where there is none, or the store does not answer.
    pub async fn get_key(&self, name: &str) -> Result<KeyReport, KeyError> {
        self.shared.read_registry(&self.store).await?;
        let key = self.key(name)?;
        self.report_key(key).await
    }

    /// A key that was just written, with its use.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn report_key(&self, key: Versioned) -> Result<KeyReport, KeyError> {
        self.reports(vec![key]).await?.pop().ok_or(KeyError::Internal)
    }

    /// A key without its use, where that cannot be read.
    #[must_use]
    pub fn bare_report(&self, Versioned { version, record, .. }: Versioned) -> KeyReport {
        let now = self.store.now();
        let secrets = record
            .secrets
            .iter()
            .map(|secret| SecretReport { live: secret.is_live(now), ..SecretReport::default() })
            .collect();
        KeyReport { version, state: record.state(now), secrets, usage: KeyUsage::default(), record }
    }

    /// The keys by name, page by page.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub async fn list_keys(&self, query: &KeyQuery) -> Result<KeyPage, KeyError> {
        self.shared.read_registry(&self.store).await?;
        let records = self.shared.registry.keys().into_iter();
        let wanted = |record: &KeyRecord| {
            *record.name > *query.after && (query.team.is_empty() || *record.team == *query.team)
        };
        let mut rest = records.filter(|(_, record)| wanted(record)).peekable();
        let page: Vec<Versioned> = rest
            .by_ref()
            .take(query.page_size.max(1))
            .map(|(version, record)| Versioned { version, record, before: None })
            .collect();
        let last = page.last().map(|key| Arc::clone(&key.record.name));
        let next_after = last.filter(|_| rest.peek().is_some());
        Ok(KeyPage { keys: self.reports(page).await?, next_after })
    }

    async fn reports(&self, keys: Vec<Versioned>) -> Result<Vec<KeyReport>, KeyError> {
        self.shared.write_uses(&self.store).await;
        let now = self.store.now();
        let today = self.policy().calendar.today(now);
        let ids: Vec<SecretId> =
            keys.iter().flat_map(|key| &key.record.secrets).map(|secret| secret.id).collect();
        let mut uses: Uses = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(crate::store::MAX_USES) {
            uses.extend(ids.iter().copied().zip(self.store.uses(ids.to_vec()).await?));
        }
        let mut lines: HashMap<Arc<str>, Vec<(SpendKey, SpendAmounts)>> = HashMap::new();
        for key in &keys {
            let team = &key.record.team;
            if !lines.contains_key(team) {
                lines.insert(
                    Arc::clone(team),
                    self.store.spend(today.month_number(), Arc::clone(team)).await?,
                );
            }
        }
        let mut usage = usage_by_key(lines.into_values().flatten(), &today);
        let report = |Versioned { version, record, .. }: Versioned| KeyReport {
            version,
            state: record.state(now),
            secrets: record
                .secrets
                .iter()
                .map(|secret| SecretReport {
                    live: secret.is_live(now),
                    ..uses.get(&secret.id).map(|uses| secret_report(uses, &today, now)).unwrap_or_default()
                })
                .collect(),
            usage: usage.remove(&(Arc::clone(&record.team), Arc::clone(&record.name))).unwrap_or_default(),
            record,
        };
        Ok(keys.into_iter().map(report).collect())
    }
}

fn secret_report(uses: &SecretUses, today: &Days, now: Timestamp) -> SecretReport {
    // Days begin with a slot: no time zone is off by less than a quarter of an hour.
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

/// By team and key.
fn usage_by_key(
    lines: impl Iterator<Item = (SpendKey, SpendAmounts)>,
    today: &Days,
) -> HashMap<(Arc<str>, Arc<str>), KeyUsage> {
    let mut usage: HashMap<_, (KeyUsage, BTreeMap<Arc<str>, u64>)> = HashMap::new();
    for (line, amounts) in lines.filter(|(line, _)| !line.key.is_empty()) {
        let (usage, models) = usage.entry((line.team, line.key)).or_default();
        let add = |sum: &mut u64, amount: u64| *sum = sum.saturating_add(amount);
        if line.day == today.day_number() {
            add(&mut usage.requests_today, amounts.requests);
            add(&mut usage.tokens_today, amounts.input_tokens);
            add(&mut usage.tokens_today, amounts.output_tokens);
            add(&mut usage.cost_today, amounts.cost_nanos);
        }
        add(&mut usage.cost_this_month, amounts.cost_nanos);
        add(models.entry(line.model).or_default(), amounts.cost_nanos);
    }
    let with_top = |(key, (usage, models)): (_, (KeyUsage, BTreeMap<Arc<str>, u64>))| {
        let top_model = models.into_iter().max_by_key(|(_, cost)| *cost).map(|(model, _)| model);
        (key, KeyUsage { top_model, ..usage })
    };
    usage.into_iter().map(with_top).collect()
}
