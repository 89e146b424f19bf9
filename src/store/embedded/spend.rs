//! The rows of usage: those of recent periods in memory, all of them in table `usage`.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use crate::domain::{MAX_AMOUNT, Timestamp};
use crate::store::{Series, StoreError, UsageAmounts, UsageKey, UsageSet};

/// A row as table `usage` keeps it.
#[derive(Clone)]
pub(super) struct LineRow {
    pub(super) key: UsageKey,
    pub(super) amounts: UsageAmounts,
    /// The op that last changed it; 0: none, the row is empty.
    pub(super) lsn: u64,
}

struct Line {
    amounts: UsageAmounts,
    lsn: u64,
    /// Whether it is in `dirty`.
    dirty: bool,
}

/// The first periods of which all rows are in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resident {
    /// Of rows of days: the month before the present one, as those are what is reported most.
    pub(super) month: u32,
    /// Of all others: the day before the present one, as those are many.
    pub(super) day: u32,
}

impl Resident {
    /// Those at an instant, by the calendar in UTC. Zones are at most 14 hours away, so yesterday's rows are there in every zone.
    pub(super) fn at(now: Timestamp) -> Self {
        let month = match date(now) / 100 {
            month if month % 100 == 1 => month.saturating_sub(89),
            month => month.saturating_sub(1),
        };
        Self { month, day: date(Timestamp(now.0.saturating_sub(2 * 86_400_000))) }
    }

    /// Whether all rows of a set are in memory.
    pub(super) const fn has(self, set: &UsageSet) -> bool {
        set.period >= if set.series.is_monthly() { self.month } else { self.day }
    }

    fn max(self, other: Self) -> Self {
        Self { month: self.month.max(other.month), day: self.day.max(other.day) }
    }
}

/// The rows in memory.
#[derive(Default)]
pub(super) struct Spend {
    lines: BTreeMap<UsageKey, Line>,
    /// How many rows each bounded set has in memory, without empty ones.
    counts: HashMap<UsageSet, u64>,
    /// From these periods on all rows are in memory; before them only those that a late settlement needed.
    resident: Resident,
    /// How often rows were dropped: a row read from the table is valid only if this has not changed since.
    drops: u64,
    dirty: Vec<UsageKey>,
}

impl Spend {
    pub(super) fn new(resident: Resident) -> Self {
        Self { resident, ..Self::default() }
    }

    pub(super) const fn drops(&self) -> u64 {
        self.drops
    }

    /// Whether all rows of `set` are in memory.
    pub(super) const fn is_resident(&self, set: &UsageSet) -> bool {
        self.resident.has(set)
    }

    /// Whether the row is in memory.
    pub(super) fn has(&self, key: &UsageKey) -> bool {
        self.lines.contains_key(key)
    }

    /// Calls `each` with each row of days in memory.
    pub(super) fn each_of_days(&self, mut each: impl FnMut(&UsageKey, &UsageAmounts)) {
        let lines = self.lines.iter().take_while(|(key, _)| key.set.series.is_monthly());
        lines.for_each(|(key, line)| each(key, &line.amounts));
    }

    /// The keys that have to be read from the table before they can be added to.
    pub(super) fn absent<'a>(&self, keys: impl Iterator<Item = &'a UsageKey>) -> Vec<UsageKey> {
        keys.filter(|key| !self.is_resident(&key.set) && !self.lines.contains_key(key)).cloned().collect()
    }

    /// Puts in a row as read from the table; one in memory is newer and stays.
    pub(super) fn put(&mut self, row: LineRow) {
        let LineRow { key, amounts, lsn } = row;
        if self.lines.contains_key(&key) {
            return;
        }
        if lsn > 0 {
            self.count(&key.set);
        }
        self.lines.insert(key, Line { amounts, lsn, dirty: false });
    }

    fn count(&mut self, set: &UsageSet) {
        if set.series.is_bounded() {
            *self.counts.entry(set.clone()).or_default() += 1;
        }
    }

    /// Gives new rows for which their set has no more room the value that stands for all of those. Every row of sets that are not
    /// resident is in memory, if one that is absent was asked for.
    pub(super) fn make_room(&self, lines: &mut Vec<(UsageKey, UsageAmounts)>, max_rows: u64) {
        let is_new = |key: &UsageKey| self.lines.get(key).is_none_or(|line| line.lsn == 0);
        if lines.iter().all(|(key, _)| !key.set.series.is_bounded() || !is_new(key)) {
            return;
        }
        let (mut added, mut seen): (Vec<(UsageSet, u64)>, Vec<UsageKey>) = (Vec::new(), Vec::new());
        for (key, _) in lines.iter_mut().filter(|(key, _)| key.set.series.is_bounded() && is_new(key)) {
            let place = added.iter().position(|(set, _)| *set == key.set).unwrap_or_else(|| {
                added.push((key.set.clone(), self.counts.get(&key.set).copied().unwrap_or(0)));
                added.len() - 1
            });
            let Some((_, count)) = added.get_mut(place) else { continue };
            if *count >= key.set.series.room(max_rows)
                && let Some(other) = key.other()
            {
                *key = other;
            }
            if is_new(key) && !seen.contains(key) {
                *count += 1;
                seen.push(key.clone());
            }
        }
        *lines = merged(std::mem::take(lines));
    }

    /// Whether every row can take its addition.
    pub(super) fn can_add(&self, lines: &[(UsageKey, UsageAmounts)]) -> bool {
        lines.iter().all(|(key, added)| {
            let amounts = self.lines.get(key).map(|line| line.amounts).unwrap_or_default();
            sum(amounts, added).is_some()
        })
    }

    /// Adds to a row, unless it has already seen op `lsn`.
    pub(super) fn add(&mut self, lsn: u64, key: &UsageKey, added: &UsageAmounts) -> Result<(), StoreError> {
        let Some(line) = self.lines.get_mut(key) else {
            self.count(&key.set);
            self.lines.insert(key.clone(), Line { amounts: *added, lsn, dirty: true });
            self.dirty.push(key.clone());
            return Ok(());
        };
        if line.lsn >= lsn {
            return Ok(());
        }
        let was_empty = line.lsn == 0;
        line.amounts = sum(line.amounts, added).ok_or(StoreError::Corrupt)?;
        line.lsn = lsn;
        if !line.dirty {
            line.dirty = true;
            self.dirty.push(key.clone());
        }
        if was_empty {
            self.count(&key.set);
        }
        Ok(())
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn take_dirty(&mut self) -> Vec<UsageKey> {
        std::mem::take(&mut self.dirty)
    }

    /// The line as it is now, if it changed since it was last written.
    pub(super) fn capture(&mut self, key: &UsageKey) -> Option<LineRow> {
        let line = self.lines.get_mut(key).filter(|line| line.dirty)?;
        line.dirty = false;
        Some(LineRow { key: key.clone(), amounts: line.amounts, lsn: line.lsn })
    }

    /// Drops at most `count` rows of periods that are no longer kept in memory and that the tables have: those that no op after
    /// `covered` changed. Returns whether there may be more.
    pub(super) fn drop_old(&mut self, resident: Resident, count: usize, covered: u64) -> bool {
        self.resident = self.resident.max(resident);
        let old = self.old(count, covered);
        for key in &old {
            let Some(line) = self.lines.remove(key) else { continue };
            if line.lsn > 0
                && let Some(rows) = self.counts.get_mut(&key.set)
            {
                *rows = rows.saturating_sub(1);
                if *rows == 0 {
                    self.counts.remove(&key.set);
                }
            }
        }
        self.drops += u64::from(!old.is_empty());
        old.len() == count
    }

    /// At most `count` rows that can be dropped, series by series: those of each begin with its earliest period.
    fn old(&self, count: usize, covered: u64) -> Vec<UsageKey> {
        let mut old = Vec::new();
        let mut series = self.lines.first_key_value().map(|(key, _)| key.set.series.clone());
        while let Some(present) = series {
            let rows = self.lines.range(least(&first_set(present.clone()))..);
            let rows = rows.take_while(|(key, _)| key.set.series == present && !self.resident.has(&key.set));
            let written = rows.filter(|(_, line)| !line.dirty && line.lsn <= covered);
            old.extend(written.take(count - old.len()).map(|(key, _)| key.clone()));
            let next = UsageSet { period: u32::MAX, ..first_set(present) };
            let mut rest = self.lines.range((Bound::Excluded(least(&next)), Bound::Unbounded));
            series = rest.next().map(|(key, _)| key.set.series.clone()).filter(|_| old.len() < count);
        }
        old
    }

    /// At most `count` rows in memory of a set, in order, starting with the first after `after`.
    pub(super) fn of_set(
        &self,
        set: &UsageSet,
        after: Option<&UsageKey>,
        count: usize,
    ) -> Vec<(UsageKey, UsageAmounts)> {
        let start = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(least(set)),
        };
        self.lines
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.set == *set)
            .filter(|(_, line)| line.lsn > 0)
            .take(count)
            .map(|(key, line)| (key.clone(), line.amounts))
            .collect()
    }

    /// The teams with rows of days in memory in one month, in order.
    pub(super) fn teams(&self, month: u32) -> Vec<Arc<str>> {
        let mut teams = Vec::new();
        let mut last: Arc<str> = Arc::from("");
        // One seek for each team, past all the rows of the previous one.
        while let Some(team) = self.team_after(month, &last) {
            last = Arc::clone(&team);
            teams.push(team);
        }
        teams
    }

    fn team_after(&self, month: u32, last: &str) -> Option<Arc<str>> {
        // The next string in order after `last` is `last` and a zero byte.
        let next = UsageSet { series: Series::Days, period: month, team: Arc::from(format!("{last}\0")) };
        let of_month = |set: &UsageSet| set.series.is_monthly() && set.period == month;
        self.first(&next, of_month).map(|key| Arc::clone(&key.set.team))
    }

    /// The first of these rows in memory, from `start` on, that is not empty.
    pub(super) fn first(&self, start: &UsageSet, is_wanted: impl Fn(&UsageSet) -> bool) -> Option<&UsageKey> {
        let mut lines = self.lines.range(least(start)..).take_while(|(key, _)| is_wanted(&key.set));
        lines.find(|(_, line)| line.lsn > 0).map(|(key, _)| key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }
}

/// The set before all others of a series.
fn first_set(series: Series) -> UsageSet {
    UsageSet { series, period: 0, team: Arc::default() }
}

/// The key before all rows of a set.
fn least(set: &UsageSet) -> UsageKey {
    let empty: Arc<str> = Arc::default();
    UsageKey { set: set.clone(), ..UsageKey::of_day(0, Arc::clone(&empty), 0, Arc::clone(&empty), empty) }
}

/// Adds rows with the same key together. A sum beyond a `u64` stays at its maximum, far more than a row can take.
pub(super) fn merged(lines: Vec<(UsageKey, UsageAmounts)>) -> Vec<(UsageKey, UsageAmounts)> {
    let mut merged: Vec<(UsageKey, UsageAmounts)> = Vec::with_capacity(lines.len());
    for (key, added) in lines {
        match merged.iter_mut().find(|(other, _)| *other == key) {
            Some((_, amounts)) => amounts.add(&added),
            None => merged.push((key, added)),
        }
    }
    merged
}

fn sum(amounts: UsageAmounts, added: &UsageAmounts) -> Option<UsageAmounts> {
    amounts.combined(added, |a, b| a.checked_add(b).filter(|sum| *sum <= MAX_AMOUNT))
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

    fn resident(month: u32, day: u32) -> Resident {
        Resident { month, day }
    }

    fn key(series: Series, period: u32, value: &str) -> UsageKey {
        let set = UsageSet { series, period, team: "t".into() };
        let day = UsageKey::of_day(0, "".into(), 20_261_123, "m".into(), "".into());
        UsageKey { set, value: value.into(), ..day }
    }

    fn one() -> UsageAmounts {
        UsageAmounts { cost_nanos: 1, ..UsageAmounts::default() }
    }

    #[test]
    fn a_row_stays_in_memory_until_the_tables_have_it() {
        let day = key(Series::Days, 202_611, "");
        let mut spend = Spend::new(resident(202_611, 20_261_123));
        spend.add(7, &day, &one()).unwrap();
        assert_eq!(spend.take_dirty(), std::slice::from_ref(&day));
        assert!(spend.capture(&day).is_some());
        // It was taken to be written; that is not on disk yet.
        spend.drop_old(resident(202_701, 20_270_101), 10, 6);
        assert_eq!(spend.absent([&day].into_iter()), []);
        spend.drop_old(resident(202_701, 20_270_101), 10, 7);
        assert_eq!(spend.absent([&day].into_iter()), [day]);
    }

    #[test]
    fn old_rows_of_every_series_are_dropped_and_no_others() {
        let all = [
            Series::Days,
            Series::Hours,
            Series::Users,
            Series::Label("a".into()),
            Series::Label("b".into()),
        ];
        let mut spend = Spend::default();
        for (lsn, series) in (1..).zip(&all) {
            let periods = if series.is_monthly() { [202_609, 202_610] } else { [20_261_030, 20_261_031] };
            for period in periods {
                spend.add(lsn, &key(series.clone(), period, "x"), &one()).unwrap();
            }
        }
        for key in spend.take_dirty() {
            spend.capture(&key);
        }
        assert!(spend.drop_old(resident(202_610, 20_261_031), 2, 9));
        assert!(spend.drop_old(resident(202_610, 20_261_031), 2, 9));
        assert!(!spend.drop_old(resident(202_610, 20_261_031), 2, 9));
        let left: Vec<_> = spend.lines.keys().map(|key| key.set.period).collect();
        assert_eq!(left, [202_610, 20_261_031, 20_261_031, 20_261_031, 20_261_031]);
        assert_eq!(spend.counts.values().sum::<u64>(), 3);
    }

    #[test]
    fn what_a_set_has_no_room_for_is_one_row() {
        let mut spend = Spend::default();
        let of = |value: &str| (key(Series::Users, 20_261_123, value), one());
        let mut lines = vec![of("a"), of("b"), of("c"), of("d")];
        spend.make_room(&mut lines, 2);
        assert_eq!(lines.iter().map(|(key, _)| &*key.value).collect::<Vec<_>>(), ["a", "b", "(other)"]);
        assert_eq!(lines[2].1.cost_nanos, 2);
        for (key, amounts) in &lines {
            spend.add(1, key, amounts).unwrap();
        }
        let mut lines = vec![of("b"), of("e")];
        spend.make_room(&mut lines, 2);
        assert_eq!(lines.iter().map(|(key, _)| &*key.value).collect::<Vec<_>>(), ["b", "(other)"]);
    }
}
