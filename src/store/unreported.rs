//! Reservations that ended without a report: the rows of usage that they count in.
//!
//! A reservation that is not reported expires, and can be reported for another day. What it takes from budgets needs no step of the store.
//! It is counted when it is forgotten, in the step that forgets it: then no report can come any more that would take the count back.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Series, UsageAmounts, UsageKey, UsageSet};
use crate::domain::plan::TermsNote;

/// The rows that `count` reservations on terms with this note count in: that of the team's day, and the organization's. None of an hour,
/// a user or a label: those are not told by what reservations of one kind have in common. Empty: the note is not of this release.
pub(super) fn unreported(note: &[u8], count: u64) -> Vec<(UsageKey, UsageAmounts)> {
    let Some(note) = TermsNote::from_bytes(note) else { return Vec::new() };
    let amounts = UsageAmounts { unsettled: count, ..UsageAmounts::default() };
    let empty: Arc<str> = Arc::default();
    let organization = UsageKey::of_day(
        note.month,
        Arc::clone(&empty),
        note.day,
        Arc::clone(&note.model),
        Arc::clone(&empty),
    );
    let team = UsageKey {
        set: UsageSet { series: Series::Days, period: note.month, team: note.team },
        day: note.day,
        hour: 0,
        model: note.model,
        key: note.key,
        operation: Some(note.operation),
        service_tier: Some(note.service_tier),
        project: note.project,
        value: empty,
    };
    vec![(team, amounts), (organization, amounts)]
}

/// How many reservations ended without a report, by team, as the stores of a process have counted them. Clones count together.
#[derive(Clone, Default)]
pub struct Unreported(Arc<Mutex<BTreeMap<Arc<str>, u64>>>);

impl Unreported {
    /// Counts those in `rows`, once for each team.
    pub(super) fn count(&self, rows: &[(UsageKey, UsageAmounts)]) {
        // Nothing panics while it is held.
        let mut teams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, amounts) in rows.iter().filter(|(key, _)| !key.set.team.is_empty()) {
            *teams.entry(Arc::clone(&key.set.team)).or_default() += amounts.unsettled;
        }
    }

    /// All of them since the process started.
    #[must_use]
    pub fn teams(&self) -> Vec<(Arc<str>, u64)> {
        let teams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        teams.iter().map(|(team, count)| (Arc::clone(team), *count)).collect()
    }
}

impl fmt::Debug for Unreported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unreported").field(&self.teams()).finish()
    }
}
