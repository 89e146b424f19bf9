//! The sums of an answer.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{MAX_GROUPS, UsageError, UsageGroup, UsageQuery, period_of};
use crate::store::{OTHER_VALUE, UsageAmounts, UsageKey};

/// The values of a set that an answer shows: `max_values` of them, the most expensive.
pub(super) fn shown(rows: &[(UsageKey, UsageAmounts)], max_values: usize) -> HashSet<Arc<str>> {
    let mut costs = HashMap::<&Arc<str>, u64>::new();
    for (row, amounts) in rows.iter().filter(|(row, _)| *row.value != *OTHER_VALUE) {
        let cost = costs.entry(&row.value).or_default();
        *cost = cost.saturating_add(amounts.cost_nanos);
    }
    let mut costs: Vec<_> = costs.into_iter().collect();
    // Those that cost the same are shown by name, so that each answer shows the same ones.
    costs.sort_unstable_by(|(one, cost), (other, more)| more.cmp(cost).then_with(|| one.cmp(other)));
    costs.into_iter().take(max_values).map(|(value, _)| Arc::clone(value)).collect()
}

/// The sums of an answer under construction.
pub(super) struct Groups {
    query: Arc<UsageQuery>,
    sums: HashMap<UsageGroup, UsageAmounts>,
    /// What rows with a value have of the sums of those without.
    valued: HashMap<UsageGroup, UsageAmounts>,
    none: Arc<str>,
    other: Arc<str>,
    /// The last day that was looked at, and its period: rows come day by day.
    period: (u32, u32),
}

impl Groups {
    pub(super) fn new(query: &Arc<UsageQuery>) -> Self {
        let (sums, valued) = (HashMap::new(), HashMap::new());
        let query = Arc::clone(query);
        Self { query, sums, valued, none: Arc::default(), other: OTHER_VALUE.into(), period: (0, 0) }
    }

    /// What is asked for.
    pub(super) const fn query(&self) -> &Arc<UsageQuery> {
        &self.query
    }

    fn group(&mut self, row: &UsageKey, value: &Arc<str>) -> UsageGroup {
        if self.period.0 != row.day {
            self.period = (row.day, period_of(&self.query, row.day));
        }
        let values = self.query.group_by.iter().map(|dimension| dimension.of(row, value)).collect();
        UsageGroup { day: self.period.1, hour: self.query.hour_of(row), values }
    }

    /// Adds a row of a series that has no values, as one without a value.
    pub(super) fn add(&mut self, row: &UsageKey, amounts: &UsageAmounts) {
        if self.query.filter.has(row) && self.query.filter.has_value(&self.none) {
            let none = Arc::clone(&self.none);
            let group = self.group(row, &none);
            self.sums.entry(group).or_default().add(amounts);
        }
    }

    /// Adds a row with a value, which is one of those `shown` or another. A row without one has these amounts as well.
    pub(super) fn add_valued(&mut self, row: &UsageKey, shown: &HashSet<Arc<str>>, amounts: &UsageAmounts) {
        let (query, none) = (Arc::clone(&self.query), Arc::clone(&self.none));
        let filter = &query.filter;
        if !filter.has(row) {
            return;
        }
        let value = if shown.contains(&row.value) { Arc::clone(&row.value) } else { Arc::clone(&self.other) };
        if filter.has_value(&value) {
            let group = self.group(row, &value);
            self.sums.entry(group).or_default().add(amounts);
        }
        if filter.has_value(&none) {
            let group = self.group(row, &none);
            self.valued.entry(group).or_default().add(amounts);
        }
    }

    /// Refuses an answer that became too large.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let is_too_large = self.sums.len().max(self.valued.len()) > MAX_GROUPS;
        if is_too_large { Err(UsageError::TooManyGroups) } else { Ok(()) }
    }

    /// The sums, each once, without empty ones.
    pub(super) fn finish(mut self) -> HashMap<UsageGroup, UsageAmounts> {
        for (group, valued) in self.valued {
            if let Some(sum) = self.sums.get_mut(&group) {
                // Rows with values were read first, so those without one have at least as much.
                let rest = sum.combined(&valued, |sum, valued| Some(sum.saturating_sub(valued)));
                *sum = rest.unwrap_or_default();
            }
        }
        self.sums.retain(|_, amounts| *amounts != UsageAmounts::default());
        self.sums
    }
}
