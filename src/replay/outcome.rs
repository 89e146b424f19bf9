//! What a replay found.

use std::{collections::HashMap, fmt, str::FromStr};

use crate::domain::decision::Violation;

/// What refusals are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The team.
    Team,
    /// The limit, list or cap that refuses.
    Limit,
    /// The reason.
    Reason,
    /// The model.
    Model,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Team, Self::Limit, Self::Reason, Self::Model];

    /// The name of its field in a row.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::Limit => "limit_id",
            Self::Reason => "reason",
            Self::Model => "model",
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "limit",
            other => other.field(),
        })
    }
}

/// Not one of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refusals are counted by team, limit, reason, model")]
pub struct NotAGrouping;

impl FromStr for By {
    type Err = NotAGrouping;

    fn from_str(text: &str) -> Result<Self, NotAGrouping> {
        Self::ALL.into_iter().find(|by| by.to_string() == text).ok_or(NotAGrouping)
    }
}

/// The most unknown keys that are told apart.
const MOST_KEYS: usize = 1_000;

/// Requests that one group refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What the group has in common, in the order of `by`.
    pub group: Vec<String>,
    /// Requests that would be refused.
    pub refused: u64,
    /// Of those, requests that were allowed.
    pub newly_refused: u64,
    /// Requests that would be refused if what refuses them was not in shadow.
    pub in_shadow: u64,
    /// What the newly refused cost, as it was booked, in nano-USD.
    pub cost_nanos: u64,
}

/// What a policy would have done with recorded requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What the rows are counted by.
    pub by: Vec<By>,
    /// Requests that were decided.
    pub decisions: u64,
    /// Of those, requests that were allowed, and that are allowed now.
    pub stay_allowed: u64,
    /// Allowed before, refused now.
    pub newly_refused: u64,
    /// Denied before, allowed now. What they would have used is not known: they are held at their worst case.
    pub newly_allowed: u64,
    /// Denied before and now.
    pub stay_refused: u64,
    /// What the newly refused cost, as it was booked, in nano-USD.
    pub saved_nanos: u64,
    /// The worst case of those newly refused that the record does not settle, in nano-USD; their cost is not known.
    pub unsettled_nanos: u64,
    /// Lines that were not played: repeats, dry runs, denials that no policy decided, other lines of the log.
    pub skipped: u64,
    /// Requests by keys that the policy does not declare, such as created ones: their own limits did not take part.
    pub unknown_keys: u64,
    /// These keys and how many requests they made, those with the most first; at most 1,000 of them are told apart.
    pub unknown_key_names: Vec<(String, u64)>,
    /// Settlements of requests whose decision is not in the record.
    pub unmatched: u64,
    /// Settlements that could not be booked by the policy's prices.
    pub unbooked: u64,
    /// By group: those that save most first, then those that refuse most.
    pub rows: Vec<Row>,
    /// The place of each group in `rows`.
    places: HashMap<Vec<String>, usize>,
    /// The requests of each unknown key.
    of_unknown_keys: HashMap<String, u64>,
}

impl Replayed {
    pub(super) fn new(by: Vec<By>, skipped: u64) -> Self {
        Self { by, skipped, ..Self::default() }
    }

    pub(super) fn allowed(&mut self, was_allowed: bool) {
        self.decisions += 1;
        *if was_allowed { &mut self.stay_allowed } else { &mut self.newly_allowed } += 1;
    }

    /// Counts a refusal; returns the rows that settle what it saves.
    pub(super) fn refused(
        &mut self,
        facts: (&str, &str),
        was_allowed: bool,
        violations: &[Violation],
        reserved_nanos: u64,
    ) -> Vec<usize> {
        self.decisions += 1;
        let groups = self.groups(facts, violations);
        for place in &groups {
            if let Some(row) = self.rows.get_mut(*place) {
                row.refused += 1;
                row.newly_refused += u64::from(was_allowed);
            }
        }
        if was_allowed {
            self.newly_refused += 1;
            self.unsettled_nanos = self.unsettled_nanos.saturating_add(reserved_nanos);
        } else {
            self.stay_refused += 1;
        }
        groups
    }

    /// Counts a request by a key that the policy does not declare.
    pub(super) fn unknown_key(&mut self, key: &str) {
        self.unknown_keys += 1;
        let is_full = self.of_unknown_keys.len() >= MOST_KEYS;
        match self.of_unknown_keys.get_mut(key) {
            Some(count) => *count += 1,
            None if is_full => {}
            None => drop(self.of_unknown_keys.insert(key.to_owned(), 1)),
        }
    }

    /// Counts what is in shadow and would refuse.
    pub(super) fn shadow(&mut self, facts: (&str, &str), violations: &[Violation]) {
        for place in self.groups(facts, violations) {
            if let Some(row) = self.rows.get_mut(place) {
                row.in_shadow += 1;
            }
        }
    }

    /// Counts what was saved by a refusal in these rows; `reserved_nanos` is no longer unknown.
    pub(super) fn settled(&mut self, rows: &[usize], cost_nanos: u64, reserved_nanos: u64) {
        self.saved_nanos = self.saved_nanos.saturating_add(cost_nanos);
        self.unsettled_nanos = self.unsettled_nanos.saturating_sub(reserved_nanos);
        for place in rows {
            if let Some(row) = self.rows.get_mut(*place) {
                row.cost_nanos = row.cost_nanos.saturating_add(cost_nanos);
            }
        }
    }

    /// The groups of these violations, each once.
    fn groups(&mut self, (team, model): (&str, &str), violations: &[Violation]) -> Vec<usize> {
        let mut places = Vec::new();
        for violation in violations {
            let part = |by: &By| match by {
                By::Team => team.to_owned(),
                By::Model => model.to_owned(),
                By::Limit => violation.limit_id.clone(),
                By::Reason => violation.reason.name().to_owned(),
            };
            let group: Vec<_> = self.by.iter().map(part).collect();
            let place = *self.places.entry(group.clone()).or_insert_with(|| {
                self.rows.push(Row { group, ..Row::default() });
                self.rows.len() - 1
            });
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// With its rows in order.
    pub(super) fn finished(mut self) -> Self {
        self.rows.sort_by(|a, b| {
            let rank = |row: &Row| (row.cost_nanos, row.newly_refused, row.refused, row.in_shadow);
            rank(b).cmp(&rank(a)).then_with(|| a.group.cmp(&b.group))
        });
        self.places = HashMap::new();
        self.unknown_key_names = std::mem::take(&mut self.of_unknown_keys).into_iter().collect();
        self.unknown_key_names
            .sort_by(|(one, few), (other, many)| many.cmp(few).then_with(|| one.cmp(other)));
        self
    }
}
