//! What a report is asked with: links to usual days, and a form for everything else.

use maud::{Markup, html};

use super::{
    asked::{Asked, DIMENSIONS, FILTERS, MAX_BY, ORDERS, Wrong, number},
    period::Period,
};
use crate::{
    console::view::View,
    report_text::{Interval, day_text},
    rpc::proto::{Operation, ServiceTier},
};

/// Links to this week and month, and to those before.
pub(super) fn periods(view: &View, asked: &Asked, shown: Option<Interval>) -> Markup {
    let today = number(view.now().date());
    let (week, month) = (Interval::week_of(today), Interval::month(today / 100));
    let before = |interval: Interval| crate::domain::calendar::day_before(interval.first).unwrap_or(today);
    let links = [
        ("This week", week),
        ("Last week", week.before()),
        ("This month", month),
        ("Last month", Interval::month(before(month) / 100)),
    ];
    html! {
        @for (name, interval) in links {
            a href=(asked.address(view, "/reports", &days(interval).each_ref().map(|(name, value)| (*name, value.as_str()))))
                aria-current=[(shown == Some(interval)).then_some("true")] { (name) }
            " "
        }
    }
}

/// What of an address says these days, from the first page.
fn days(interval: Interval) -> [(&'static str, String); 3] {
    [("from", day_text(interval.first)), ("to", day_text(interval.last())), ("after", String::new())]
}

/// The form. `wrong` is told at its field, and what was typed stays.
pub(super) fn form(view: &View, asked: &Asked, period: Option<&Period>, wrong: Option<&Wrong>) -> Markup {
    let day = |field: &str, of_period: Option<u32>| match asked.text(field) {
        "" => of_period.map(day_text).unwrap_or_default(),
        typed => typed.to_owned(),
    };
    let first = day("from", period.map(|period| period.interval.first));
    let last = day("to", period.map(|period| period.interval.last()));
    let is_open = asked.is_filtered() || wrong.is_some() || asked.by().len() > 1;
    html! {
        form.report-form.no-print method="get" action=(view.address("/reports")) {
            div.filters {
                (field("from", "First day", wrong, |described| html! {
                    input id="from" name="from" type="date" value=(first) aria-describedby=[described] aria-invalid=[described.map(|_| "true")];
                }))
                (field("to", "Last day", wrong, |described| html! {
                    input id="to" name="to" type="date" value=(last) aria-describedby=[described] aria-invalid=[described.map(|_| "true")];
                }))
                (groups(view, asked, wrong))
                div.field {
                    label for="order" { "The most first of" }
                    select id="order" name="order" {
                        @for (name, words) in ORDERS {
                            option value=(name) selected[asked.text("order") == name] { (words) }
                        }
                    }
                }
                button { "Show" }
            }
            details open[is_open] {
                summary { "Filters" }
                div.filters { @for (name, words) in FILTERS { (filter(asked, name, words, wrong)) } }
                p.hint.quiet.small { "Of names, several with commas between them. A label as NAME=VALUE." }
            }
        }
    }
}

fn groups(view: &View, asked: &Asked, wrong: Option<&Wrong>) -> Markup {
    let by = asked.by();
    let labels = view.snapshot().policy.reports.labels.iter();
    let labels: Vec<_> = labels.map(|label| (format!("labels.{label}"), format!("Label {label}"))).collect();
    let known = DIMENSIONS.iter().map(|(path, words)| (*path, *words));
    let all: Vec<(&str, &str)> =
        known.chain(labels.iter().map(|(path, words)| (path.as_str(), words.as_str()))).collect();
    // One place more than there are, for another.
    let places = (by.len() + 1).clamp(2, MAX_BY);
    html! {
        @for place in 0..places {
            @let id = format!("by{place}");
            @let fault = wrong.filter(|wrong| place == 0 && wrong.field == "by");
            @let words = if place == 0 { "By" } else { "Then by" };
            div.field {
                label for=(id) { (words) }
                select id=(id) name="by" aria-describedby=[fault.map(|_| "by-fault")] aria-invalid=[fault.map(|_| "true")] {
                    @if place > 0 { option value="" { "–" } }
                    @for (path, words) in &all {
                        option value=(path) selected[by.get(place).is_some_and(|chosen| chosen == path)] { (words) }
                    }
                }
                @if let Some(fault) = fault { p.fault #by-fault { (fault.message) } }
            }
        }
    }
}

fn filter(asked: &Asked, name: &'static str, words: &str, wrong: Option<&Wrong>) -> Markup {
    let typed = match name {
        "user" | "label" => asked.text(name).to_owned(),
        _ => asked.values(name).join(", "),
    };
    let choice = |options: Vec<String>, described: Option<&str>| {
        html! {
            select id=(name) name=(name) aria-describedby=[described] aria-invalid=[described.map(|_| "true")] {
                option value="" { "all" }
                @for option in options { option value=(option) selected[typed == option] { (option) } }
            }
        }
    };
    field(name, words, wrong, |described| match name {
        "operation" => {
            choice(short(1.., Operation::try_from, |of| of.as_str_name(), "OPERATION_"), described)
        }
        "service_tier" => {
            choice(short(1.., ServiceTier::try_from, |of| of.as_str_name(), "SERVICE_TIER_"), described)
        }
        _ => html! {
            input id=(name) name=(name) value=(typed) placeholder="all" autocomplete="off"
                aria-describedby=[described] aria-invalid=[described.map(|_| "true")];
        },
    })
}

/// The short names of an enum's values.
fn short<E, X>(
    numbers: std::ops::RangeFrom<i32>,
    of: impl Fn(i32) -> Result<E, X>,
    name: impl Fn(&E) -> &'static str,
    prefix: &str,
) -> Vec<String> {
    let values = numbers.map_while(|number| of(number).ok());
    values.map(|value| name(&value).trim_start_matches(prefix).to_ascii_lowercase()).collect()
}

/// A field with what is wrong with it.
fn field(
    name: &'static str,
    words: &str,
    wrong: Option<&Wrong>,
    control: impl FnOnce(Option<&str>) -> Markup,
) -> Markup {
    let fault = wrong.filter(|wrong| wrong.field == name);
    let id = format!("{name}-fault");
    html! {
        div.field {
            label for=(name) { (words) }
            (control(fault.map(|_| id.as_str())))
            @if let Some(fault) = fault { p.fault id=(id) { (fault.message) } }
        }
    }
}
