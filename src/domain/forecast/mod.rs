//! When a budget is used up at the present pace, and what its period will have cost.
//!
//! The pace is what days usually cost: by the day of the week, as weekends are quiet, over the four weeks before today; at the level of
//! the last seven days. It follows growth and does not continue it: what is said holds "at this pace". Medians keep a burst that is over from
//! counting as usual. `docs/reports.md` states the method for those who read the numbers.

use std::collections::BTreeMap;

use super::{
    Timestamp,
    budget::BudgetState,
    calendar::{Calendar, Days, day_before, first_days, next_day},
    limit::Period,
};

/// How many days before today the pace is taken from: four of each day of the week. Never more than two months have them.
pub const HISTORY_DAYS: usize = 28;
/// The fewest days with which days of the week are told apart: two of each.
const LEAST_BY_WEEKDAY: usize = 14;
/// The days whose level counts, so that each day of the week counts once.
const WEEK: usize = 7;
/// Ratios are in thousandths.
const ONE: u128 = 1_000;
/// Until this part of today is over, what it cost so far is mixed with what such a day usually costs: the first request after midnight
/// would otherwise be the pace of a day.
const SETTLING_PART: u128 = 4;

/// A day before today.
#[derive(Clone, Copy, Debug)]
struct Past {
    /// As `20261123`.
    number: u32,
    /// From Monday, 0.
    weekday: usize,
}

/// Today, or a day after it.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    weekday: usize,
    start: Timestamp,
    end: Timestamp,
}

/// The days before and after an instant, in the organization's time zone. One serves every forecast of that instant.
#[derive(Clone, Debug)]
pub struct Outlook {
    now: Timestamp,
    today: Days,
    /// The earliest first.
    past: Vec<Past>,
    /// From today to the end of the month and of the week.
    ahead: Vec<Ahead>,
}

impl Outlook {
    /// The outlook at `now`.
    #[must_use]
    pub fn new(calendar: &Calendar, now: Timestamp) -> Self {
        let today = calendar.today(now);
        let weekday = weekday(today.day_number());
        let before = std::iter::successors(day_before(today.day_number()), |day| day_before(*day));
        let mut past: Vec<Past> = before
            .zip(1..=HISTORY_DAYS)
            .map(|(number, back)| Past { number, weekday: (weekday + HISTORY_DAYS - back) % WEEK })
            .collect();
        past.reverse();
        let (end, mut ahead) = (today.month.end.max(today.week.end), Vec::new());
        let mut day = Some((today.day_number(), weekday, today.day.start));
        while let Some((number, weekday, start)) = day.filter(|(_, _, start)| *start < end) {
            let next = next_day(number).and_then(|next| Some((next, calendar.start_of_day(next)?)));
            ahead.push(Ahead { weekday, start, end: next.map_or(end, |(_, begin)| begin) });
            day = next.map(|(next, begin)| (next, (weekday + 1) % WEEK, begin));
        }
        Self { now, today, past, ahead }
    }

    /// The day, the week and the month that it is.
    #[must_use]
    pub const fn today(&self) -> &Days {
        &self.today
    }

    /// The month before, as `202610`, if some of the [`HISTORY_DAYS`] are in it.
    #[must_use]
    pub fn month_before(&self) -> Option<u32> {
        let first = self.past.first()?.number / 100;
        (first != self.today.month_number()).then_some(first)
    }

    /// The last day of the month before on which `month_budget` did not hold spending back; `None`: it never did. Days after it show the
    /// budget, and not what would have been spent.
    #[must_use]
    pub fn held_after(&self, spent: &DailySpend, month_budget: Option<u64>) -> Option<u32> {
        choked_after(self.month_before()?, spent, month_budget?)
    }

    /// What was spent today, and how much of today is over, of which length, in milliseconds.
    fn so_far(&self, spent: u64) -> (u128, u128, u128) {
        let length = self.today.day.end.since(self.today.day.start);
        (spent.into(), self.now.since(self.today.day.start).min(length).into(), length.into())
    }
}

/// From Monday, 0.
fn weekday(day: u32) -> usize {
    let firsts = first_days(day).into_iter().flatten();
    let monday = firsts.filter(|(of, _)| *of == Period::Week).map(|(_, first)| first).next();
    let days = std::iter::successors(monday, |present| next_day(*present));
    days.take(WEEK).position(|present| present == day).unwrap_or(0)
}

/// What was spent, in nano-USD, by day (`20261123`): of the present month, and of the month before it.
pub type DailySpend = BTreeMap<u32, u64>;

/// What a team or the organization usually spends, and what today is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// What a day of each kind costs, in nano-USD, from Monday.
    usual: [u64; WEEK],
    /// What the rest of today costs.
    rest_of_today: u64,
    /// How many complete days it is taken from.
    days: u32,
}

impl Pace {
    /// The pace of `spent`. Days after `month_budget` of the month before had been used up are left out.
    #[must_use]
    pub fn of(outlook: &Outlook, spent: &DailySpend, month_budget: Option<u64>) -> Self {
        Self::held(outlook, spent, outlook.held_after(spent, month_budget))
    }

    /// The pace of `spent`, without the days of the month before that are after `held_after`.
    #[must_use]
    pub fn held(outlook: &Outlook, spent: &DailySpend, held_after: Option<u32>) -> Self {
        let on = |day: u32| spent.get(&day).copied().unwrap_or(0);
        let is_choked = |day: u32| held_after.is_some_and(|last| day > last && day / 100 == last / 100);
        let free = outlook.past.iter().filter(|past| !is_choked(past.number));
        let days: Vec<(usize, u64)> =
            free.map(|past| (past.weekday, on(past.number))).skip_while(|(_, spent)| *spent == 0).collect();
        let (so_far, elapsed, length) = outlook.so_far(on(outlook.today.day_number()));
        let of_day = |spent: u128, time: u128| spent * length / time.max(1);
        let by_weekday = (days.len() >= LEAST_BY_WEEKDAY).then(|| by_weekday(&days)).flatten();
        let usual = by_weekday.or_else(|| flat(&days)).unwrap_or_else(|| {
            // The first day of all.
            [amount(of_day(so_far, elapsed.max(length / SETTLING_PART))); WEEK]
        });
        let of_today = outlook.ahead.first().and_then(|today| usual.get(today.weekday)).copied().unwrap_or(0);
        let of_today = u128::from(of_today);
        let mixed = match days.is_empty() {
            true => of_today,
            false => of_day(so_far + of_today / SETTLING_PART, elapsed + length / SETTLING_PART),
        };
        let rest_of_today = of_today.max(mixed) * length.saturating_sub(elapsed) / length.max(1);
        let count = u32::try_from(days.len()).unwrap_or(u32::MAX);
        Self { usual, rest_of_today: amount(rest_of_today), days: count }
    }
}

/// The last day of `month` before its budget held spending back; `None`: it did not. The budget held if the month ended within a twentieth
/// of it, and from when no more than a twentieth was left: what does not fit is denied before all of it is spent.
fn choked_after(month: u32, spent: &DailySpend, budget: u64) -> Option<u32> {
    let days = || spent.range(month * 100..(month + 1) * 100).map(|(day, spent)| (*day, u128::from(*spent)));
    let (total, budget) = (days().map(|(_, spent)| spent).sum::<u128>(), u128::from(budget));
    if budget == 0 || total * 20 < budget * 19 || total * 20 > budget * 21 {
        return None;
    }
    let mut sum = 0;
    days().find_map(|(day, spent)| {
        sum += spent;
        (sum * 20 >= budget * 19).then_some(day)
    })
}

/// What each day of the week costs: the median of its days, at the level of the last seven days. `None` if these say nothing.
///
/// The level is the median of how these seven compare with the medians. A rise by half or more counts at once when the last two days
/// both show it; one day alone never counts.
fn by_weekday(days: &[(usize, u64)]) -> Option<[u64; WEEK]> {
    let mut usual = [0; WEEK];
    for (weekday, usual) in usual.iter_mut().enumerate() {
        *usual = median(days.iter().filter(|(of, _)| *of == weekday).map(|(_, spent)| u128::from(*spent)))?;
    }
    let week: u128 = usual.iter().sum();
    if week == 0 {
        return None;
    }
    let recent = days.iter().rev().take(WEEK);
    // A day that usually costs less than a tenth of the average says nothing about the others.
    let compared = recent.filter_map(|(weekday, spent)| {
        let usual = usual.get(*weekday).copied().filter(|usual| usual * 10 * WEEK as u128 >= week)?;
        Some(u128::from(*spent) * ONE / usual)
    });
    let compared: Vec<u128> = compared.collect();
    let mut level = median(compared.iter().copied()).unwrap_or(ONE);
    if let [last, before, ..] = compared.as_slice() {
        let rise = *last.min(before);
        if rise * 2 >= level * 3 {
            level = rise;
        }
    }
    Some(usual.map(|usual| amount(usual * level / ONE)))
}

/// What any day costs, by the last seven since the first of them that cost something: their mean, with the highest of three or more
/// counted as the second highest. `None`: there are none, or they cost nothing.
fn flat(days: &[(usize, u64)]) -> Option<[u64; WEEK]> {
    let recent = days.iter().skip(days.len().saturating_sub(WEEK)).map(|(_, spent)| u128::from(*spent));
    let mut recent: Vec<u128> = recent.skip_while(|spent| *spent == 0).collect();
    recent.sort_unstable();
    if let [_, .., second, highest] = recent.as_mut_slice() {
        *highest = *second;
    }
    let count = recent.len() as u128;
    match days.is_empty() {
        true => None,
        false => Some([amount(recent.iter().sum::<u128>() / count.max(1)); WEEK]),
    }
}

/// The lower of both in the middle, where there are two.
fn median(values: impl Iterator<Item = u128>) -> Option<u128> {
    let mut values: Vec<u128> = values.collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// More than a `u64` has stays at its largest value, far above what a budget can be.
fn amount(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// How a budget's period ends at a pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// What will be spent and reserved at the period's end, in nano-USD, if nothing holds it back.
    pub projected: u64,
    /// When the budget is used up: the instant of the forecast if it is already. `None`: not in this period, or there is no
    /// budget.
    pub exhaust: Option<Timestamp>,
    /// How many complete days it rests on, at most [`HISTORY_DAYS`].
    pub days: u32,
}

impl Forecast {
    /// The fewest complete days on which an alert may rest: each day of the week was seen once.
    pub const LEAST_DAYS: u32 = 7;
    /// An alert opens once this many percent of the budget are to be spent, and ends below all of it, so that a pace which just uses up the
    /// budget does not open and end it again and again.
    pub const OPENS_AT_PERCENT: u64 = 110;

    /// The forecast of the budget `state` of the `period` that it is now, at `pace`. What is reserved counts as spent, as it does for
    /// decisions.
    #[must_use]
    pub fn of(outlook: &Outlook, pace: &Pace, state: &BudgetState, period: Period) -> Self {
        let end = outlook.today.of(period).end;
        let mut used = u128::from(state.spent) + u128::from(state.reserved);
        let budget = state.budget.map(u128::from);
        let mut exhaust = budget.filter(|budget| used >= *budget).map(|_| outlook.now);
        for (place, day) in outlook.ahead.iter().enumerate().filter(|(_, day)| day.start < end) {
            let start = day.start.max(outlook.now);
            let length = day.end.since(start);
            let spends = match place {
                0 => pace.rest_of_today,
                // A day that a zone left out.
                _ if length == 0 => 0,
                _ => pace.usual.get(day.weekday).copied().unwrap_or(0),
            };
            let spends = u128::from(spends);
            if let Some(left) = budget.and_then(|budget| budget.checked_sub(used))
                && exhaust.is_none()
                && spends > left
            {
                // Below the day's length, as `left` is below what the day costs.
                exhaust = Some(start.plus(amount(left * u128::from(length) / spends)));
            }
            used += spends;
        }
        Self { projected: amount(used), exhaust, days: pace.days }
    }

    /// Whether an alert that `budget` will not last is to be open, given whether it is. [`Self::LEAST_DAYS`] and
    /// [`Self::OPENS_AT_PERCENT`] say when it opens.
    #[must_use]
    pub fn falls_short(&self, budget: u64, is_open: bool) -> bool {
        let percent = if is_open { 100 } else { Self::OPENS_AT_PERCENT };
        let is_certain = is_open || self.days >= Self::LEAST_DAYS;
        let goes_past = u128::from(self.projected) * 100 > u128::from(budget) * u128::from(percent);
        is_certain && self.exhaust.is_some() && goes_past
    }
}

#[cfg(test)]
mod tests;
