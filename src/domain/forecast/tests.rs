//! Made-up months, with what a person with a calendar and a pencil expects.

use super::*;
use crate::domain::calendar::parse_time_zone;

const USD: u64 = 1_000_000_000;
const HOUR_MS: u64 = 3_600_000;

fn at(text: &str) -> Timestamp {
    let instant: jiff::Timestamp = text.parse().unwrap();
    Timestamp(u64::try_from(instant.as_millisecond()).unwrap())
}

fn outlook_at(zone: &str, now: &str) -> Outlook {
    Outlook::new(&Calendar::new(parse_time_zone(zone).unwrap()), at(now))
}

/// What was spent each day from `first` on, in dollars.
fn from(first: u32, dollars: impl IntoIterator<Item = u64>) -> DailySpend {
    let days = std::iter::successors(Some(first), |day| next_day(*day));
    days.zip(dollars).map(|(day, dollars)| (day, dollars * USD)).collect()
}

/// The same for every day to the one before `until`, by a rule for the day of the week (Monday is 0).
fn by_rule(first: u32, until: u32, rule: impl Fn(usize) -> u64) -> DailySpend {
    let days = std::iter::successors(Some(first), |day| next_day(*day));
    days.take_while(|day| *day < until).map(|day| (day, rule(weekday(day)) * USD)).collect()
}

/// The forecast of a budget of so many dollars, of which the period's part of `spent` is used.
fn of(outlook: &Outlook, spent: &DailySpend, budget: u64, period: Period) -> Forecast {
    let used: u64 = spent.range(outlook.today().of(period).first_day..).map(|(_, spent)| spent).sum();
    let state = BudgetState { budget: Some(budget * USD), spent: used, ..BudgetState::default() };
    Forecast::of(outlook, &Pace::of(outlook, spent, Some(budget * USD)), &state, period)
}

/// The projected dollars, rounded down, and the instant.
fn month(outlook: &Outlook, spent: &DailySpend, budget: u64) -> (u64, Option<Timestamp>) {
    let forecast = of(outlook, spent, budget, Period::Month);
    (forecast.projected / USD, forecast.exhaust)
}

#[test]
fn a_steady_month_ends_where_its_days_lead() {
    // Noon of the 11th: ten days and a half of 30 at $10.
    let outlook = outlook_at("UTC", "2026-11-11T12:00:00Z");
    let spent = from(20_261_001, std::iter::repeat_n(10, 41).chain([5]));
    assert_eq!(month(&outlook, &spent, 400), (300, None));
    assert_eq!(month(&outlook, &spent, 300), (300, None));
    assert_eq!(month(&outlook, &spent, 205), (300, Some(at("2026-11-21T12:00:00Z"))));
    // Without a budget it ends nowhere, and costs the same.
    let pace = Pace::of(&outlook, &spent, None);
    let state = BudgetState { spent: 105 * USD, ..BudgetState::default() };
    let forecast = Forecast::of(&outlook, &pace, &state, Period::Month);
    assert_eq!(forecast, Forecast { projected: 300 * USD, exhaust: None, days: 28 });
    // What is reserved is as good as spent.
    let state = BudgetState { budget: Some(205 * USD), reserved: 10 * USD, ..state };
    let forecast = Forecast::of(&outlook, &pace, &state, Period::Month);
    assert_eq!((forecast.projected, forecast.exhaust), (310 * USD, Some(at("2026-11-20T12:00:00Z"))));
}

#[test]
fn weekends_are_quiet() {
    // Monday, 9 November, in the morning; $20 on each working day. The month has 21 of these, and five are over.
    let outlook = outlook_at("UTC", "2026-11-09T00:00:00Z");
    let rule = |weekday| if weekday < 5 { 20 } else { 0 };
    let spent = by_rule(20_261_001, 20_261_109, rule);
    assert_eq!(month(&outlook, &spent, 1_000), (420, None));
    // $100 are spent; of $200 more the tenth day from now is the last: Friday the 20th, not Wednesday the 18th.
    assert_eq!(month(&outlook, &spent, 300), (420, Some(at("2026-11-23T00:00:00Z"))));
    assert_eq!(
        month(&outlook, &spent, 299).1.map(|at| at.0 / HOUR_MS),
        Some(at("2026-11-20T22:00:00Z").0 / HOUR_MS)
    );
    // On a Saturday, the budget that is left lasts for the weekend.
    let saturday = outlook_at("UTC", "2026-11-14T09:00:00Z");
    let spent = by_rule(20_261_001, 20_261_114, rule);
    assert_eq!(month(&saturday, &spent, 210), (420, Some(at("2026-11-16T12:00:00Z"))));
}

#[test]
fn growth_is_followed_and_not_continued() {
    // A dollar more each day for four weeks: the last of them had $22 to $28, a mean of $25.
    let outlook = outlook_at("UTC", "2026-11-29T00:00:00Z");
    let spent = from(20_261_101, 1..=28);
    let next_week: u64 = Pace::of(&outlook, &spent, None).usual.iter().sum();
    assert_eq!(next_week / USD, 7 * 25 - 1, "a thousandth is lost to rounding");
    // Twice as much since Monday, all at once: two days say it.
    let spent = from(20_261_001, std::iter::repeat_n(10, 40).chain([20, 20]));
    let outlook = outlook_at("UTC", "2026-11-12T00:00:00Z");
    assert_eq!(month(&outlook, &spent, 10_000), (90 + 40 + 19 * 20, None));
    // Half as much: believed once most of a week says so.
    let of_days =
        |less| from(20_261_001, std::iter::repeat_n(10, 42 - less).chain(std::iter::repeat_n(5, less)));
    assert_eq!(month(&outlook, &of_days(3), 10_000).0, 80 + 15 + 19 * 10);
    assert_eq!(month(&outlook, &of_days(4), 10_000).0, 70 + 20 + 19 * 5);
}

#[test]
fn a_burst_that_is_over_is_no_pace() {
    // $500 on the 5th, $10 on all other days.
    let mut spent = from(20_261_001, std::iter::repeat_n(10, 42));
    spent.insert(20_261_105, 500 * USD);
    let outlook = outlook_at("UTC", "2026-11-12T00:00:00Z");
    assert_eq!(month(&outlook, &spent, 1_000), (500 + 290, None));
    // Yesterday, and as one of few days.
    spent.insert(20_261_105, 10 * USD);
    spent.insert(20_261_111, 500 * USD);
    assert_eq!(month(&outlook, &spent, 1_000), (500 + 290, None));
    assert_eq!(month(&outlook, &from(20_261_109, [10, 10, 500]), 1_000), (520 + 190, None));
    // One that is not over counts for the rest of its day: $100 by six in the morning, where $10 a day are usual.
    let today = outlook_at("UTC", "2026-11-12T06:00:00Z");
    let mut spent = from(20_261_001, std::iter::repeat_n(10, 42));
    spent.insert(20_261_112, 100 * USD);
    // (100 + 10 / 4) / (1 / 4 + 1 / 4) is $205 a day, for three quarters of one.
    let forecast = of(&today, &spent, 10_000, Period::Month);
    assert_eq!(forecast.projected, 210 * USD + 205 * USD * 3 / 4 + 180 * USD);
    assert_eq!(
        of(&today, &spent, 300, Period::Month).exhaust.map(|at| at.0 / HOUR_MS),
        Some(at("2026-11-12T16:00:00Z").0 / HOUR_MS)
    );
}

#[test]
fn what_has_just_begun_is_told_by_what_came_before() {
    // The first hour of a month.
    let first = outlook_at("UTC", "2026-11-01T01:00:00Z");
    let spent = from(20_261_001, std::iter::repeat_n(10, 31));
    assert_eq!(month(&first, &spent, 155), (299, Some(at("2026-11-16T13:00:00Z"))));
    assert_eq!(first.month_before(), Some(202_610));
    assert_eq!(outlook_at("UTC", "2026-11-29T00:00:00Z").month_before(), None);
    // The first request of all, at noon: $3 in half a day.
    let noon = outlook_at("UTC", "2026-11-21T12:00:00Z");
    let forecast = of(&noon, &from(20_261_121, [3]), 33, Period::Month);
    let expected = Forecast { projected: 60 * USD, exhaust: Some(at("2026-11-26T12:00:00Z")), days: 0 };
    assert_eq!(forecast, expected);
    // A minute after midnight it is no pace for 1,440 times as much.
    let midnight = outlook_at("UTC", "2026-11-21T00:01:00Z");
    assert_eq!(month(&midnight, &from(20_261_121, [1]), 100).0, 1 + 4 * 10 - 1);
    // The first days: their mean, from the first on.
    let spent = from(20_261_119, [4, 8]);
    assert_eq!(month(&outlook_at("UTC", "2026-11-21T00:00:00Z"), &spent, 100), (12 + 60, None));
}

#[test]
fn a_budget_that_held_last_month_does_not_hide_the_pace() {
    // $30 a day used up $300 by the 10th of October; nothing after it, until November.
    let spent = from(20_261_001, std::iter::repeat_n(30, 10));
    let outlook = outlook_at("UTC", "2026-11-01T00:00:00Z");
    let forecast = of(&outlook, &spent, 300, Period::Month);
    assert_eq!((forecast.projected, forecast.exhaust), (900 * USD, Some(at("2026-11-11T00:00:00Z"))));
    assert_eq!(forecast.days, 7);
    // With another budget the same days are a team that stopped.
    assert_eq!(month(&outlook, &spent, 400), (0, None));
    // One that only warned was passed, and all days count.
    let spent = from(20_261_001, std::iter::repeat_n(30, 31));
    assert_eq!(of(&outlook, &spent, 300, Period::Month).days, 28);
}

#[test]
fn days_of_23_and_25_hours_are_days() {
    // Berlin: the 29th of March has 23 hours, the 25th of October 25.
    let spring = outlook_at("Europe/Berlin", "2026-03-28T23:00:00Z");
    let spent = from(20_260_201, std::iter::repeat_n(10, 56));
    assert_eq!(month(&spring, &spent, 1_000), (310, None));
    assert_eq!(month(&spring, &spent, 290), (310, Some(at("2026-03-29T22:00:00Z"))));
    assert_eq!(month(&spring, &spent, 285).1, Some(at("2026-03-29T10:30:00Z")));
    let autumn = outlook_at("Europe/Berlin", "2026-10-24T22:00:00Z");
    let spent = from(20_260_901, std::iter::repeat_n(10, 54));
    assert_eq!(month(&autumn, &spent, 245), (310, Some(at("2026-10-25T10:30:00Z"))));
    // A day that Samoa left out is none, and the others keep their days of the week.
    let samoa = outlook_at("Pacific/Apia", "2011-12-29T10:00:00Z");
    let spent = from(20_111_101, std::iter::repeat_n(10, 58));
    assert_eq!(month(&samoa, &spent, 1_000), (300, None));
}

#[test]
fn months_have_28_to_31_days() {
    for (now, first, days) in [
        ("2026-02-01T00:00:00Z", 20_260_101, 28),
        ("2028-02-01T00:00:00Z", 20_280_101, 29),
        ("2026-11-01T00:00:00Z", 20_261_001, 30),
        ("2026-12-01T00:00:00Z", 20_261_101, 31),
    ] {
        let outlook = outlook_at("UTC", now);
        let spent = by_rule(first, outlook.today().day_number(), |_| 10);
        assert_eq!(month(&outlook, &spent, 1_000), (days * 10, None), "{now}");
    }
    // March after a short February: all of the 28 days are there.
    let march = outlook_at("UTC", "2026-03-01T00:00:00Z");
    assert_eq!(of(&march, &by_rule(20_260_201, 20_260_301, |_| 1), 40, Period::Month).days, 28);
}

#[test]
fn weeks_and_days_end_earlier() {
    // Wednesday noon, $10 a day.
    let outlook = outlook_at("UTC", "2026-11-11T12:00:00Z");
    let spent = from(20_261_001, std::iter::repeat_n(10, 41).chain([5]));
    let week = of(&outlook, &spent, 40, Period::Week);
    assert_eq!((week.projected, week.exhaust), (70 * USD, Some(at("2026-11-13T00:00:00Z"))));
    let day = of(&outlook, &spent, 8, Period::Day);
    assert_eq!(day.projected, 10 * USD);
    assert_eq!(day.exhaust.map(|at| at.0 / 60_000), Some(at("2026-11-11T19:12:00Z").0 / 60_000));
    assert_eq!(of(&outlook, &spent, 10, Period::Day).exhaust, None);
    // The week that the month ends in.
    let last = outlook_at("UTC", "2026-11-30T12:00:00Z");
    let spent = from(20_261_001, std::iter::repeat_n(10, 60).chain([5]));
    assert_eq!(of(&last, &spent, 100, Period::Week).projected, 70 * USD);
    assert_eq!(of(&last, &spent, 45, Period::Week).exhaust, Some(at("2026-12-04T12:00:00Z")));
}

#[test]
fn nothing_and_what_is_used_up() {
    let outlook = outlook_at("UTC", "2026-11-11T12:00:00Z");
    let nothing = DailySpend::new();
    assert_eq!(of(&outlook, &nothing, 10, Period::Month), Forecast { projected: 0, exhaust: None, days: 0 });
    // A budget of nothing is used up from the start.
    assert_eq!(month(&outlook, &nothing, 0), (0, Some(outlook.now)));
    // So is one that was passed; what it costs by the end is still said.
    let spent = from(20_261_001, std::iter::repeat_n(10, 41).chain([5]));
    assert_eq!(month(&outlook, &spent, 100), (300, Some(outlook.now)));
    // A team that stopped a week ago spends nothing more.
    let stopped = from(20_261_001, std::iter::repeat_n(10, 34));
    assert_eq!(month(&outlook, &stopped, 100), (30, None));
    // A team that began again two days ago, after weeks without, continues as since then.
    let mut again = from(20_261_001, [10, 10, 10]);
    again.extend(from(20_261_015, [10, 0, 0]));
    again.extend(from(20_261_109, [50, 50, 25]));
    assert_eq!(month(&outlook, &again, 10_000), (125 + 25 + 19 * 50, None));
}

#[test]
fn enormous_amounts_stay_the_largest() {
    let outlook = outlook_at("UTC", "2026-11-11T12:00:00Z");
    for amounts in [[u64::MAX, u64::MAX], [1, u64::MAX], [u64::MAX, 1], [0, u64::MAX]] {
        let days = std::iter::successors(Some(20_261_001), |day| next_day(*day));
        let spent: DailySpend = days.zip(amounts.into_iter().cycle().take(42)).collect();
        let state = BudgetState { budget: Some(u64::MAX), spent: u64::MAX, reserved: u64::MAX, unsettled: 0 };
        let pace = Pace::of(&outlook, &spent, Some(u64::MAX));
        for period in [Period::Day, Period::Week, Period::Month] {
            let forecast = Forecast::of(&outlook, &pace, &state, period);
            assert_eq!((forecast.projected, forecast.exhaust), (u64::MAX, Some(outlook.now)));
        }
    }
    // The end of the calendar.
    let end = Outlook::new(&Calendar::new(parse_time_zone("UTC").unwrap()), Timestamp(u64::MAX));
    let forecast = of(&end, &DailySpend::new(), 1, Period::Month);
    assert_eq!((forecast.projected, forecast.exhaust), (0, None));
}

#[test]
fn an_alert_opens_with_certainty_and_does_not_flap() {
    let forecast = |projected: u64, days| Forecast { projected, exhaust: Some(Timestamp(1)), days };
    assert!(!forecast(109, 28).falls_short(100, false));
    assert!(!forecast(110, 28).falls_short(100, false));
    assert!(forecast(111, 28).falls_short(100, false));
    assert!(forecast(101, 28).falls_short(100, true));
    assert!(!forecast(100, 28).falls_short(100, true));
    // A few days are not certain enough to open one.
    assert!(!forecast(500, 6).falls_short(100, false));
    assert!(forecast(500, 7).falls_short(100, false));
    assert!(forecast(500, 0).falls_short(100, true));
    let lasts = Forecast { projected: 500, exhaust: None, days: 28 };
    assert!(!lasts.falls_short(100, false));
}
