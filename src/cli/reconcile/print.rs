//! The outcome as tables and as JSON.

use std::io::{self, Write as _};

use serde_json::{Map, Value, json};

use super::{
    Outcome,
    reason::{label, percent, reason},
};
use crate::{
    cli::{
        screen::Screen,
        table::{Style, Table},
        text,
    },
    reconcile::{Billed, Booked, DaysOf, Difference, Finding, Projects},
};

/// A day as `2026-11-23`.
pub(super) fn day(day: u32) -> String {
    format!("{}-{:02}", month(day / 100), day % 100)
}

/// A month as `2026-11`.
pub(super) fn month(month: u32) -> String {
    format!("{:04}-{:02}", month / 100, month % 100)
}

pub(super) fn print(screen: &mut Screen, outcome: &Outcome) -> io::Result<()> {
    let Outcome { tolerance, bill, reconciled, .. } = outcome;
    let colour = screen.colour;
    let title = format!("{}: booked by Tollgate and billed by Groq, days of UTC", month(outcome.month));
    writeln!(screen, "{}", Style::Bold.paint(&title, colour))?;
    let has_projects = reconciled.projects == Projects::Compared;
    let drifting: Vec<&Difference> = reconciled.lines.iter().filter(|line| line.cause.is_some()).collect();
    if reconciled.has_days && !drifting.is_empty() {
        table(screen, (true, has_projects), drifting.iter().copied(), None)?;
        writeln!(screen)?;
    }
    table(screen, (false, has_projects), reconciled.sums.iter(), Some(&reconciled.total))?;
    let agree = reconciled.lines.len() - drifting.len();
    let of = if reconciled.has_days { "days, models and projects" } else { "models and projects" };
    let within = text::dollars((*tolerance).into());
    let said = format!("{} of {} {of} agree within {within}", agree, reconciled.lines.len());
    let style = if reconciled.has_drift { Style::Yellow } else { Style::Green };
    writeln!(screen, "\n{}", style.paint(&said, colour))?;
    if !reconciled.findings.is_empty() {
        writeln!(screen, "\nLikely causes:")?;
    }
    for finding in &reconciled.findings {
        let (of, days) = (named(&finding.model, &finding.project), span(finding));
        let drift = signed(finding.drift_nanos);
        writeln!(screen, "  {drift} {of}{days}: {}", label(finding.cause))?;
        writeln!(screen, "      {}", reason(finding, &outcome.books))?;
    }
    let notes = notes(outcome);
    if !notes.is_empty() {
        writeln!(screen)?;
    }
    for note in notes {
        writeln!(screen, "Note: {note}")?;
    }
    if bill.credits > 0 {
        let sum = text::dollars(bill.credit_nanos);
        writeln!(screen, "Note: {} rows of the file are credits, of {sum}", bill.credits)?;
    }
    Ok(())
}

/// What to know about the comparison.
fn notes(outcome: &Outcome) -> Vec<String> {
    let Outcome { bill, reconciled, .. } = outcome;
    let mut notes = Vec::new();
    match reconciled.projects {
        Projects::Compared => {}
        Projects::NotBilled => notes.push("the file has no projects; days and models are compared".to_owned()),
        Projects::Unknown => notes.push(
            "no project of the file is one of the policy's; days and models are compared. Name `[projects.NAME]` as Groq's console \
             names the project, or by its id"
                .to_owned(),
        ),
    }
    if reconciled.days == DaysOf::Zone {
        notes.push(
            "booked days are those of the organization's time zone: hours, which tell the day in UTC, are kept for 35 days".to_owned(),
        );
    }
    if reconciled.other_months_nanos != 0 {
        let cost = text::dollars(reconciled.other_months_nanos);
        notes.push(format!("{cost} of the file are of other months, and not compared"));
    }
    if bill.repeated_rows > 0 {
        let rows = bill.repeated_rows;
        notes.push(format!("{rows} rows of the file say the same as an earlier one in every column, and were counted: is it in there twice?"));
    }
    notes
}

fn named(model: &str, project: &str) -> String {
    let model = if model.is_empty() { "(none)".to_owned() } else { text::shown(model) };
    if project.is_empty() { model } else { format!("{model} in {}", text::shown(project)) }
}

fn span(finding: &Finding) -> String {
    match (finding.first_day, finding.last_day) {
        (Some(first), Some(last)) if first == last => format!(", {}", day(first)),
        (Some(first), Some(last)) => {
            format!(", {} days from {} to {}", finding.lines, day(first), day(last))
        }
        _ => String::new(),
    }
}

fn signed(nanos: i128) -> String {
    let sign = if nanos > 0 { "+" } else { "" };
    format!("{sign}{}", text::dollars(nanos))
}

fn table<'d>(
    screen: &mut Screen,
    (has_days, has_projects): (bool, bool),
    lines: impl Iterator<Item = &'d Difference>,
    total: Option<&Difference>,
) -> io::Result<()> {
    let mut headings = vec!["MODEL"];
    if has_days {
        headings.insert(0, "DAY");
    }
    if has_projects {
        headings.push("PROJECT");
    }
    headings.extend([">BOOKED", ">BILLED", ">DRIFT", ">SHARE", "LIKELY CAUSE"]);
    if !has_days && total.is_some() {
        headings.pop();
    }
    let mut table = Table::new(headings);
    let shown = |name: &str| if name.is_empty() { "(none)".to_owned() } else { text::shown(name) };
    let row = |of: &Difference, is_total: bool| {
        let mut cells = Vec::new();
        if has_days {
            cells.push(of.day.map(day).unwrap_or_default());
        }
        cells.push(if is_total { "all".to_owned() } else { shown(&of.model) });
        if has_projects {
            cells.push(if is_total { String::new() } else { shown(&of.project) });
        }
        cells.push(text::dollars(of.booked.cost_nanos));
        cells.push(
            of.billed.as_ref().map_or_else(|| "-".to_owned(), |billed| text::dollars(billed.cost_nanos)),
        );
        cells.push(signed(of.drift()));
        cells.push(of.permille().map_or_else(|| "-".to_owned(), |parts| percent(parts, 10)));
        if has_days {
            cells.push(of.cause.map(label).unwrap_or_default().to_owned());
        }
        cells
    };
    for line in lines {
        let style = if has_days { Style::Yellow } else { Style::Plain };
        table.row(style, row(line, false));
    }
    if let Some(total) = total {
        table.row(Style::Bold, row(total, true));
    }
    let colour = screen.colour;
    table.write(screen, "", colour)
}

pub(super) fn to_json(outcome: &Outcome) -> Value {
    let Outcome { month: of, tolerance, bill, books, reconciled } = outcome;
    let projects = match reconciled.projects {
        Projects::Compared => "compared",
        Projects::NotBilled => "not_in_file",
        Projects::Unknown => "unknown",
    };
    let finding = |finding: &Finding| {
        json!({
            "cause": finding.cause.name(),
            "model": finding.model,
            "project": finding.project,
            "line_count": finding.lines,
            "first_date": finding.first_day.map(day),
            "last_date": finding.last_day.map(day),
            "drift_nano_usd": number(finding.drift_nanos),
            "reason": reason(finding, books),
        })
    };
    json!({
        "month": month(*of),
        "tolerance_nano_usd": tolerance,
        "has_drift": reconciled.has_drift,
        "projects": projects,
        "days": match reconciled.days { DaysOf::Utc => "utc", DaysOf::Zone => "time_zone" },
        "total": difference(&reconciled.total),
        "sums": reconciled.sums.iter().map(difference).collect::<Vec<_>>(),
        "lines": reconciled.lines.iter().map(difference).collect::<Vec<_>>(),
        "findings": reconciled.findings.iter().map(finding).collect::<Vec<_>>(),
        "unsettled_requests": books.unsettled,
        "reserved_nano_usd": number(books.reserved_nanos),
        "file": {
            "row_count": bill.rows,
            "repeated_row_count": bill.repeated_rows,
            "sum_line_count": bill.sum_lines,
            "credit_count": bill.credits,
            "credit_nano_usd": number(bill.credit_nanos),
            "other_months_nano_usd": number(reconciled.other_months_nanos),
        },
    })
}

/// A sum that is larger than any account's is told as the largest.
fn number(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn difference(of: &Difference) -> Value {
    let Booked {
        cost_nanos,
        requests,
        input_tokens,
        cached_tokens,
        output_tokens,
        audio_ms,
        unsettled,
        aborted,
    } = of.booked;
    let billed = of.billed.as_ref().map(|billed: &Billed| {
        json!({
            "cost_nano_usd": number(billed.cost_nanos),
            "request_count": billed.requests,
            "input_tokens": billed.input_tokens,
            "cached_input_tokens": billed.cached_tokens,
            "output_tokens": billed.output_tokens,
            "audio_milliseconds": billed.audio_ms,
        })
    });
    let booked = json!({
        "cost_nano_usd": number(cost_nanos),
        "request_count": requests,
        "input_tokens": input_tokens,
        "cached_input_tokens": cached_tokens,
        "output_tokens": output_tokens,
        "audio_milliseconds": audio_ms,
        "unsettled_count": unsettled,
        "aborted_count": aborted,
    });
    let mut fields = Map::new();
    for (name, value) in [
        ("date", of.day.map(day).into()),
        ("model", of.model.as_str().into()),
        ("project", of.project.as_str().into()),
        ("booked", booked),
        ("billed", billed.into()),
        ("drift_nano_usd", number(of.drift()).into()),
        ("cause", of.cause.map(crate::reconcile::Cause::name).into()),
    ] {
        fields.insert(name.to_owned(), value);
    }
    Value::Object(fields)
}
