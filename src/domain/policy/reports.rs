//! What usage is reported by.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::domain::caller::ResolvedCaller;

/// How many rows there may be for each value that a report has room for, as a value may be used with several keys and models, and as
/// which values cost most shows only in the end.
const ROWS_PER_VALUE: u64 = 4;

/// The policy's `reports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRules {
    /// The labels that are dimensions of usage, at most 8.
    pub labels: Vec<Arc<str>>,
    /// How many values of users, and of each label, a report has of a team's day: those that cost most.
    pub max_values: u64,
}

impl Default for ReportRules {
    fn default() -> Self {
        Self { labels: Vec::new(), max_values: 200 }
    }
}

impl ReportRules {
    /// How many rows the store keeps of a team's day and its users, or one label.
    #[must_use]
    pub const fn max_rows(&self) -> u64 {
        self.max_values.saturating_mul(ROWS_PER_VALUE)
    }

    /// Whether this label is a dimension of usage.
    #[must_use]
    pub fn has(&self, label: &str) -> bool {
        self.labels.iter().any(|known| **known == *label)
    }

    /// The labels of a request that are dimensions of usage: its own, else its key's, else its team's. Those without a value are left
    /// out.
    #[must_use]
    pub fn of_request<'a>(
        &'a self,
        caller: &ResolvedCaller<'a>,
        own: &'a HashMap<String, String>,
    ) -> Vec<(&'a str, &'a str)> {
        let find = |labels: &'a BTreeMap<String, String>, name: &str| labels.get(name).map(String::as_str);
        let value = |name: &'a Arc<str>| {
            let of_key = || caller.key.and_then(|key| find(&key.labels, name));
            let own = own.get(&**name).map(String::as_str);
            let value = own.or_else(of_key).or_else(|| find(&caller.team.labels, name))?;
            (!value.is_empty()).then_some((&**name, value))
        };
        self.labels.iter().filter_map(value).collect()
    }
}
