//! The lines of the spend report: those of the present and the previous month in memory, all of them in table `spend`.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use crate::domain::{MAX_AMOUNT, Timestamp};
use crate::store::{SpendAmounts, SpendKey, StoreError};

/// A line as table `spend` keeps it.
#[derive(Clone)]
pub(super) struct LineRow {
    pub(super) key: SpendKey,
    pub(super) amounts: SpendAmounts,
    /// The op that last changed it; 0: none, the line is empty.
    pub(super) lsn: u64,
}

struct Line {
    amounts: SpendAmounts,
    lsn: u64,
    /// Whether it is in `dirty`.
    dirty: bool,
}

/// The lines in memory.
#[derive(Default)]
pub(super) struct Spend {
    lines: BTreeMap<SpendKey, Line>,
    /// From this month on all lines are in memory; before it only those that a late settlement needed.
    resident_from: u32,
    /// How often lines were dropped: a line read from the table is valid only if this has not changed since.
    drops: u64,
    dirty: Vec<SpendKey>,
}

impl Spend {
    pub(super) fn new(resident_from: u32) -> Self {
        Self { resident_from, ..Self::default() }
    }

    pub(super) const fn drops(&self) -> u64 {
        self.drops
    }

    /// Whether all lines of `month` are in memory.
    pub(super) const fn is_resident(&self, month: u32) -> bool {
        month >= self.resident_from
    }

    /// Whether the line is in memory.
    pub(super) fn has(&self, key: &SpendKey) -> bool {
        self.lines.contains_key(key)
    }

    /// Calls `each` with each line in memory.
    pub(super) fn each(&self, mut each: impl FnMut(&SpendKey, &SpendAmounts)) {
        self.lines.iter().for_each(|(key, line)| each(key, &line.amounts));
    }

    /// The keys that have to be read from the table before they can be added to.
    pub(super) fn absent<'a>(&self, keys: impl Iterator<Item = &'a SpendKey>) -> Vec<SpendKey> {
        keys.filter(|key| !self.is_resident(key.month) && !self.lines.contains_key(key)).cloned().collect()
    }

    /// Puts in a line as read from the table; one in memory is newer and stays.
    pub(super) fn put(&mut self, row: LineRow) {
        let LineRow { key, amounts, lsn } = row;
        self.lines.entry(key).or_insert(Line { amounts, lsn, dirty: false });
    }

    /// Whether every line can take its addition.
    pub(super) fn can_add(&self, lines: &[(SpendKey, SpendAmounts)]) -> bool {
        lines.iter().all(|(key, added)| {
            let amounts = self.lines.get(key).map(|line| line.amounts).unwrap_or_default();
            sum(amounts, added).is_some()
        })
    }

    /// Adds to a line, unless it has already seen op `lsn`.
    pub(super) fn add(&mut self, lsn: u64, key: &SpendKey, added: &SpendAmounts) -> Result<(), StoreError> {
        if let Some(line) = self.lines.get_mut(key) {
            if line.lsn < lsn {
                line.amounts = sum(line.amounts, added).ok_or(StoreError::Corrupt)?;
                line.lsn = lsn;
                if !line.dirty {
                    line.dirty = true;
                    self.dirty.push(key.clone());
                }
            }
            return Ok(());
        }
        self.lines.insert(key.clone(), Line { amounts: *added, lsn, dirty: true });
        self.dirty.push(key.clone());
        Ok(())
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn take_dirty(&mut self) -> Vec<SpendKey> {
        std::mem::take(&mut self.dirty)
    }

    /// The line as it is now, if it changed since it was last written.
    pub(super) fn capture(&mut self, key: &SpendKey) -> Option<LineRow> {
        let line = self.lines.get_mut(key).filter(|line| line.dirty)?;
        line.dirty = false;
        Some(LineRow { key: key.clone(), amounts: line.amounts, lsn: line.lsn })
    }

    /// Drops at most `count` lines of months that are no longer kept in memory and that the tables have: those that no op after
    /// `covered` changed. Returns whether there may be more.
    pub(super) fn drop_old(&mut self, resident_from: u32, count: usize, covered: u64) -> bool {
        self.resident_from = self.resident_from.max(resident_from);
        let old = self.lines.iter().take_while(|(key, _)| key.month < self.resident_from);
        let written = old.filter(|(_, line)| !line.dirty && line.lsn <= covered);
        let old: Vec<_> = written.take(count).map(|(key, _)| key.clone()).collect();
        for key in &old {
            self.lines.remove(key);
        }
        self.drops += u64::from(!old.is_empty());
        old.len() == count
    }

    /// At most `count` lines in memory of one team in one month, in order, starting with the first after `after`.
    pub(super) fn of_team(
        &self,
        (month, team): (u32, &Arc<str>),
        after: Option<&SpendKey>,
        count: usize,
    ) -> Vec<(SpendKey, SpendAmounts)> {
        let start = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(least(month, Arc::clone(team))),
        };
        self.lines
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.month == month && key.team == *team)
            .filter(|(_, line)| line.lsn > 0)
            .take(count)
            .map(|(key, line)| (key.clone(), line.amounts))
            .collect()
    }

    /// The teams with lines in memory in one month, in order.
    pub(super) fn teams(&self, month: u32) -> Vec<Arc<str>> {
        let mut teams = Vec::new();
        let mut last: Arc<str> = Arc::from("");
        // One seek for each team, past all the lines of the previous one.
        while let Some(team) = self.team_after(month, &last) {
            last = Arc::clone(&team);
            teams.push(team);
        }
        teams
    }

    fn team_after(&self, month: u32, last: &Arc<str>) -> Option<Arc<str>> {
        let mut lines = self.past(month, last).take_while(|(key, _)| key.month == month);
        lines.find(|(_, line)| line.lsn > 0).map(|(key, _)| Arc::clone(&key.team))
    }

    /// The lines after those of `team`.
    fn past(&self, month: u32, team: &str) -> impl Iterator<Item = (&SpendKey, &Line)> {
        // The next string in order after `team` is `team` and a zero byte.
        self.lines.range(least(month, Arc::from(format!("{team}\0")))..)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}

/// The key before all lines of a team in a month.
fn least(month: u32, team: Arc<str>) -> SpendKey {
    let empty: Arc<str> = Arc::from("");
    SpendKey { month, team, day: 0, model: Arc::clone(&empty), key: empty }
}

/// Adds lines with the same key together. A sum beyond a `u64` stays at its maximum, far more than a line can take.
pub(super) fn merged(lines: Vec<(SpendKey, SpendAmounts)>) -> Vec<(SpendKey, SpendAmounts)> {
    let mut merged: Vec<(SpendKey, SpendAmounts)> = Vec::with_capacity(lines.len());
    for (key, added) in lines {
        match merged.iter_mut().find(|(other, _)| *other == key) {
            Some((_, amounts)) => {
                let mut ints = amounts.to_numbers();
                for (int, more) in ints.iter_mut().zip(added.to_numbers()) {
                    *int = int.saturating_add(more);
                }
                *amounts = SpendAmounts::from_numbers(ints);
            }
            None => merged.push((key, added)),
        }
    }
    merged
}

fn sum(amounts: SpendAmounts, added: &SpendAmounts) -> Option<SpendAmounts> {
    let mut ints = amounts.to_numbers();
    for (int, more) in ints.iter_mut().zip(added.to_numbers()) {
        *int = int.checked_add(more).filter(|sum| *sum <= MAX_AMOUNT)?;
    }
    Some(SpendAmounts::from_numbers(ints))
}

/// The first month kept in memory: the one before the month that `now` is in, in UTC.
pub(super) fn resident_from(now: Timestamp) -> u32 {
    match date(now) / 100 {
        month if month % 100 == 1 => month.saturating_sub(89),
        month => month.saturating_sub(1),
    }
}

/// The day in UTC, as `20261123`; 0 past the end of the calendar.
pub(super) fn date(now: Timestamp) -> u32 {
    let instant = i64::try_from(now.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let Some(instant) = instant else { return 0 };
    let date = instant.to_zoned(jiff::tz::TimeZone::UTC).date();
    let [year, month, day] = [i32::from(date.year()), i32::from(date.month()), i32::from(date.day())];
    u32::try_from(year * 10_000 + month * 100 + day).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_in_memory_until_the_tables_have_it() {
        let key =
            SpendKey { month: 202_611, team: "t".into(), day: 20_261_123, model: "m".into(), key: "".into() };
        let mut spend = Spend::new(202_611);
        spend.add(7, &key, &SpendAmounts { cost_nanos: 1, ..SpendAmounts::default() }).unwrap();
        assert_eq!(spend.take_dirty(), std::slice::from_ref(&key));
        assert!(spend.capture(&key).is_some());
        // It was taken to be written; that is not on disk yet.
        spend.drop_old(202_701, 10, 6);
        assert_eq!(spend.absent([&key].into_iter()), []);
        spend.drop_old(202_701, 10, 7);
        assert_eq!(spend.absent([&key].into_iter()), [key]);
    }
}
