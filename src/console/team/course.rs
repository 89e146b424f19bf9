//! The course of a budget: a sentence on how it ends, and what remains of it over its period, drawn and in numbers.

use jiff::{ToSpan as _, Zoned, civil::Date};
use maud::{Markup, html};

use super::{
    gather::{Question, Spend},
    standing::{Standing, Then},
};
use crate::{
    console::{
        parts::{BurnDown, Mark, Stretch},
        text::{
            money::{self, nanos},
            time,
        },
    },
    rpc::proto::{Period, UsageRow},
};

/// The height of the scale of the page's own budget, in px.
const TALL: i128 = 300;
/// The same of its others.
const LOW: i128 = 130;
/// Places in the period.
const WHOLE: i128 = 10_000;
/// How many of them words take.
const NEAR: i128 = 1_200;

/// How a budget is spent, from its beginning to now or its end.
pub(super) struct Course<'s> {
    question: Question<'s>,
    budget: &'s Standing,
    /// The earliest first.
    parts: Vec<Part>,
}

/// A day, or an hour of the day.
struct Part {
    start: Zoned,
    /// Now, if it is not over.
    end: Zoned,
    spent: i128,
    /// Of the budget, at its end.
    remains: i128,
    is_open: bool,
}

/// What stands below a drawing on the first day of a month, and each week after it.
pub(super) fn day_mark(date: Date) -> Option<String> {
    match date.day() {
        1 => Some(time::short_day(date)),
        8 | 15 | 22 | 29 => Some(date.day().to_string()),
        _ => None,
    }
}

/// How the budget ends at this pace, in one or two sentences.
pub(super) fn sentence(question: Question<'_>, budget: &Standing) -> Markup {
    let Some(then) = budget.then else {
        return html! {
            @if budget.spent > budget.limit { (money::sum(budget.spent - budget.limit)) " past the budget." }
            @else { (money::sum(budget.limit - budget.spent)) " of it was left." }
        };
    };
    let (today, next) = (question.today(), budget.next(question.today()));
    let after = match then {
        Then::Denied => format!("Then requests that cost anything are denied until {next}."),
        Then::Shortened => format!("Answers get shorter before, then requests are denied until {next}."),
        Then::Warned => "Then requests are allowed with a warning.".to_owned(),
        Then::Counted => "The budget is in shadow mode, so nothing is denied then.".to_owned(),
    };
    if budget.spent >= budget.limit {
        return html! {
            strong { "Nothing is left." }
            @match then {
                Then::Denied | Then::Shortened => { " Requests that cost anything are denied until " (next) "." }
                Then::Warned => " The budget warns only, so requests are allowed.",
                Then::Counted => " The budget is in shadow mode, so requests are allowed.",
            }
        };
    }
    match (&budget.ends, budget.projected) {
        (Some(_), _) if budget.is_of_day() => {
            html! { "At this pace nothing is left before " strong { "midnight" } ". " (after) }
        }
        (Some(ends), _) => html! {
            "At this pace nothing is left about " strong { (time::day(ends.date(), today)) } ". " (after)
        },
        (None, Some(0)) => html! { "Nothing was spent yet." },
        (None, Some(projected)) => html! {
            "At this pace about " strong { (money::about(projected)) } " is spent by " (last(budget, today)) ", inside the budget."
        },
        (None, None) => html! { "There is no forecast yet: it rests on the last days." },
    }
}

/// The last day of the budget's period.
fn last(budget: &Standing, today: Date) -> String {
    let last = budget.end.date().yesterday().unwrap_or(budget.end.date());
    match budget.period {
        Period::Day => "midnight".to_owned(),
        Period::Week => time::day(last, today),
        Period::Month | Period::Unspecified => time::short_day(last),
    }
}

impl<'s> Course<'s> {
    pub(super) fn of(question: Question<'s>, budget: &'s Standing, spend: &Spend) -> Self {
        let rows = if budget.is_of_day() { &spend.hours } else { &spend.days };
        let parts = parts(budget, rows, question.view.now());
        Self { question, budget, parts }
    }

    /// The drawing and the table. The page's own budget is drawn large.
    pub(super) fn figure(&self, is_own: bool) -> Markup {
        html! {
            figure.gap {
                figcaption {
                    ul.legend {
                        li { span.key.key-line {} "Remaining" }
                        li { span.key.key-thin {} "Even pace" }
                        @if self.ahead().is_some() { li { span.key.key-dash {} "At this pace" } }
                    }
                }
                (self.drawing(if is_own { TALL } else { LOW }))
                details.numbers { summary { "The same in numbers" } (self.table()) }
            }
        }
    }

    fn id(&self) -> &'static str {
        match self.budget.period {
            Period::Day => "burn-day",
            Period::Week => "burn-week",
            Period::Month | Period::Unspecified => "burn-month",
        }
    }

    /// A part's name: its day, or its hour.
    fn name(&self, part: &Part) -> String {
        let until = match part.is_open {
            true => format!(" until {}", part.end.strftime("%H:%M")),
            false => String::new(),
        };
        match self.budget.is_of_day() {
            true => format!("{}{until}", part.start.strftime("%H:%M")),
            false => format!("{}{until}", time::day(part.start.date(), self.question.today())),
        }
    }

    fn place(&self, at: &Zoned) -> i128 {
        self.budget.elapsed(at) * WHOLE / self.budget.length()
    }

    fn drawing(&self, height: i128) -> Markup {
        let stretches = self.parts.iter().map(|part| Stretch {
            from: self.place(&part.start),
            to: self.place(&part.end),
            remains: part.remains,
            title: format!("{}: spent {}, {}", self.name(part), money::short(part.spent), rest(part.remains)),
        });
        let stretches: Vec<_> = stretches.collect();
        let last = self.parts.last();
        let now = last
            .filter(|last| last.is_open)
            .map(|last| Mark { place: self.place(&last.end), words: money::short(last.remains) });
        let limit = money::short(self.budget.limit);
        BurnDown {
            id: self.id(),
            title: &format!("What remains of {}'s {limit} {}", self.question.team, self.budget.within()),
            description: &self.description(),
            height,
            limit: self.budget.limit,
            stretches: &stretches,
            now,
            ahead: self.ahead(),
            calendar: &self.calendar(),
            write: money::at_scale,
        }
        .draw()
    }

    fn description(&self) -> String {
        let Some(last) = self.parts.last() else { return "Nothing was spent yet.".to_owned() };
        let even = money::short(self.budget.limit - self.budget.pace(&last.end));
        let ahead = self.ahead().map(|(mark, remains)| match remains {
            ..=0 => format!(" At this pace nothing remains about {}.", mark.words),
            _ => format!(" At this pace {} remain at the end.", money::about(remains)),
        });
        format!("{}; at an even pace it would be {even}.{}", rest(last.remains), ahead.unwrap_or_default())
    }

    /// Where the line goes at this pace: to nothing within the period, or to what is left at its end.
    fn ahead(&self) -> Option<(Mark, i128)> {
        let open = self.parts.last().filter(|last| last.is_open)?;
        if open.remains <= 0 {
            return None;
        }
        if let Some(ends) = &self.budget.ends {
            let words = match self.budget.is_of_day() {
                true => "before midnight".to_owned(),
                false => time::short_day(ends.date()),
            };
            return Some((Mark { place: self.place(ends), words }, 0));
        }
        let remains = self.budget.limit - self.budget.projected?;
        // Near the end its words would stand on those of the present.
        let is_near = self.place(&open.end) > WHOLE - NEAR;
        let words = if is_near { String::new() } else { money::about(remains) };
        (remains > 0).then_some((Mark { place: WHOLE, words }, remains))
    }

    fn calendar(&self) -> Vec<Mark> {
        let Standing { start, end, period, .. } = self.budget;
        let step = if *period == Period::Day { 1.hour() } else { 1.day() };
        let mut marks = Vec::new();
        let mut at = start.clone();
        while at < *end {
            let Ok(next) = at.checked_add(step) else { break };
            let words = match period {
                Period::Day => (at.hour() % 6 == 0).then(|| at.strftime("%H:%M").to_string()),
                Period::Week => Some(at.strftime("%a").to_string()),
                Period::Month | Period::Unspecified => day_mark(at.date()),
            };
            // A day's name stands below its middle, an hour's where it begins.
            let (from, to) = (self.place(&at), self.place(&next));
            let place = if *period == Period::Day { from } else { (from + to) / 2 };
            marks.extend(words.map(|words| Mark { place, words }));
            at = next;
        }
        marks
    }

    fn table(&self) -> Markup {
        let unit = if self.budget.is_of_day() { "Hour" } else { "Day" };
        html! {
            div.table.table-tall role="region" aria-label={ "What remains " (self.budget.within()) } tabindex="0" {
                table {
                    thead { tr {
                        th scope="col" { (unit) }
                        th.num scope="col" { "Spent" }
                        th.num scope="col" { "Remains" }
                        th.num scope="col" { "Even pace" }
                    } }
                    tbody {
                        @for part in self.parts.iter().rev() {
                            tr {
                                th scope="row" { (self.name(part)) }
                                td.num { (money::sum(part.spent)) }
                                td.num { (money::sum(part.remains)) }
                                td.num { (money::short(self.budget.limit - self.budget.pace(&part.end))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The days, or hours, of the budget's period that have begun at `now`, given what they cost.
fn parts(budget: &Standing, rows: &[UsageRow], now: &Zoned) -> Vec<Part> {
    let step = if budget.is_of_day() { 1.hour() } else { 1.day() };
    let until = if budget.then.is_some() { now.min(&budget.end) } else { &budget.end };
    let mut parts = Vec::new();
    let (mut start, mut sum) = (budget.start.clone(), 0);
    while start < *until {
        let Ok(next) = start.checked_add(step) else { break };
        let is_open = next > *until;
        let spent = cost_at(rows, &start);
        sum += spent;
        let end = if is_open { until.clone() } else { next.clone() };
        parts.push(Part { start, end, spent, remains: budget.limit - sum, is_open });
        start = next;
    }
    // What holds now is what the budget says of itself.
    if let Some(last) = parts.last_mut().filter(|last| last.is_open) {
        last.remains = budget.limit - budget.spent;
    }
    parts
}

/// What remains, in words.
fn rest(remains: i128) -> String {
    match remains < 0 {
        true => format!("{} past the budget", money::short(-remains)),
        false => format!("{} remain", money::short(remains)),
    }
}

/// What the row that begins at `start` cost; rows that are zero are left out of answers.
fn cost_at(rows: &[UsageRow], start: &Zoned) -> i128 {
    let begins = |row: &&UsageRow| {
        row.start_time.as_ref().is_some_and(|at| at.seconds == start.timestamp().as_second())
    };
    let row = rows.iter().find(begins);
    row.and_then(|row| row.amounts.as_ref()).map_or(0, |amounts| nanos(amounts.cost.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{google_type::Money, proto::UsageAmounts};

    const DOLLAR: i128 = 1_000_000_000;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    fn row(start: &str, units: i64) -> UsageRow {
        let seconds = at(start).timestamp().as_second();
        let cost = Money { units, ..Default::default() };
        UsageRow {
            start_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            amounts: Some(UsageAmounts { cost: Some(cost), ..Default::default() }),
            ..Default::default()
        }
    }

    fn budget(period: Period, start: &str, end: &str, then: Option<Then>) -> Standing {
        Standing {
            period,
            start: at(start),
            end: at(end),
            limit: 100 * DOLLAR,
            spent: 31 * DOLLAR,
            reserved: 0,
            projected: None,
            ends: None,
            then,
            thresholds: Vec::new(),
        }
    }

    /// The rest in dollars at the end of each part, and whether it is open.
    fn rests(parts: &[Part]) -> Vec<(i128, bool)> {
        parts.iter().map(|part| (part.remains / DOLLAR, part.is_open)).collect()
    }

    const OCTOBER: [&str; 2] =
        ["2026-10-01T00:00:00+02:00[Europe/Berlin]", "2026-11-01T00:00:00+01:00[Europe/Berlin]"];

    #[test]
    fn each_day_leaves_less_and_now_is_what_the_budget_says() {
        let rows = [row(OCTOBER[0], 10), row("2026-10-03T00:00:00+02:00[Europe/Berlin]", 20)];
        let [start, end] = OCTOBER;
        let now = at("2026-10-03T12:00:00+02:00[Europe/Berlin]");
        let present = budget(Period::Month, start, end, Some(Then::Denied));
        assert_eq!(rests(&parts(&present, &rows, &now)), [(90, false), (90, false), (69, true)]);
        // A month that is over has all of its days, that of the change of clocks as well.
        let past = parts(&budget(Period::Month, start, end, None), &rows, &now);
        assert_eq!((past.len(), past.last().unwrap().remains), (31, 70 * DOLLAR));
        assert!(past.iter().all(|part| !part.is_open));
        // At midnight the day before is over.
        let midnight = at("2026-10-03T00:00:00+02:00[Europe/Berlin]");
        assert_eq!(rests(&parts(&present, &rows, &midnight)), [(90, false), (90, false)]);
    }

    #[test]
    fn the_hours_of_a_day_are_as_many_as_it_has() {
        let [start, end] =
            ["2026-10-25T00:00:00+02:00[Europe/Berlin]", "2026-10-26T00:00:00+01:00[Europe/Berlin]"];
        let day = budget(Period::Day, start, end, Some(Then::Denied));
        let rows = [row("2026-10-25T02:00:00+01:00[Europe/Berlin]", 5)];
        let parts = parts(&day, &rows, &at("2026-10-25T23:30:00+01:00[Europe/Berlin]"));
        assert_eq!(parts.len(), 25);
        let spent: Vec<usize> = (0..25).filter(|hour| parts[*hour].spent > 0).collect();
        assert_eq!(spent, [3], "the second hour that is called two");
    }
}
