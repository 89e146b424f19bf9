//! Reports as tables and as comma-separated values.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use super::Answer;
use crate::{
    cli::{
        screen::Screen,
        spend::lasts_until,
        table::{Style, Table},
        text,
    },
    report_text::{csv, focus, value},
    rpc::proto::{UsageAmounts, UsageDimensions, UsageRow},
};

/// The width of a bar.
const BAR: i128 = 16;

/// What a table is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Screen,
    Markdown,
}

/// A value in a table.
pub(super) fn named(value: &str) -> String {
    if value.is_empty() { "(none)".to_owned() } else { text::shown(value) }
}

fn cost(amounts: Option<&UsageAmounts>) -> i128 {
    amounts.map_or(0, |amounts| text::nanos(amounts.cost.as_ref()))
}

fn dimensions(row: &UsageRow) -> UsageDimensions {
    row.dimensions.clone().unwrap_or_default()
}

/// How much more it is, in percent.
fn change(now: i128, before: i128) -> String {
    match (now, before) {
        (_, 0) => "new".to_owned(),
        (now, before) => format!("{:+}%", (now - before) * 100 / before),
    }
}

/// A full bar is all of it, and more.
pub(super) fn bar(part: i128, all: i128) -> String {
    let width = usize::try_from(BAR).unwrap_or(0);
    let solid = usize::try_from(part.max(0) * BAR / all.max(1)).map_or(width, |cells| cells.min(width));
    let share = match all {
        1.. => format!("{}%", part * 100 / all),
        _ if part > 0 => "over".to_owned(),
        _ => "0%".to_owned(),
    };
    format!("{}{} {share}", "█".repeat(solid), "·".repeat(width - solid))
}

/// The table: dimensions, then amounts, then how much of all it is; by team also its dearest model and its budget.
pub(super) fn table(
    screen: &mut Screen,
    (title, form): (&str, Form),
    (by, has_periods): (&[String], bool),
    answer: &Answer,
) -> io::Result<()> {
    let mut headings: Vec<String> = Vec::new();
    if has_periods {
        headings.push("FROM".to_owned());
    }
    headings.extend(by.iter().map(|path| path.trim_start_matches("labels.").to_uppercase()));
    headings.extend([">COST", ">REQUESTS", ">TOKENS"].map(str::to_owned));
    if answer.before.is_some() {
        headings.push(">CHANGE".to_owned());
    }
    if answer.teams.is_some() {
        headings.extend(["TOP MODEL", ">BUDGET", "USED", "LASTS UNTIL"].map(str::to_owned));
    } else {
        headings.push("SHARE".to_owned());
    }
    let before: HashMap<Vec<String>, i128> = answer
        .before
        .iter()
        .flat_map(|before| &before.rows)
        .map(|row| {
            let dimensions = dimensions(row);
            (by.iter().map(|path| value(&dimensions, path)).collect(), cost(row.amounts.as_ref()))
        })
        .collect();
    let total = answer.usage.total.clone().unwrap_or_default();
    let mut rows = Vec::new();
    for row in &answer.usage.rows {
        let (dimensions, amounts) = (dimensions(row), row.amounts.clone().unwrap_or_default());
        let values: Vec<String> = by.iter().map(|path| value(&dimensions, path)).collect();
        let mut cells = Vec::new();
        if has_periods {
            cells.push(row.start_time.as_ref().map_or_else(String::new, text::instant));
        }
        cells.extend(values.iter().map(|value| named(value)));
        cells.extend(counted(&amounts));
        let own = cost(Some(&amounts));
        if answer.before.is_some() {
            cells.push(change(own, before.get(&values).copied().unwrap_or(0)));
        }
        match of_team(answer, &dimensions.team) {
            Some(of_team) => cells.extend(of_team),
            None => cells.push(bar(own, cost(Some(&total)))),
        }
        rows.push(cells);
    }
    let mut sum = vec![String::new(); by.len() + usize::from(has_periods)];
    if let Some(first) = sum.first_mut() {
        "all".clone_into(first);
    }
    sum.extend(counted(&total));
    if let Some(before) = &answer.before {
        sum.push(change(cost(Some(&total)), cost(before.total.as_ref())));
    }
    sum.resize(headings.len(), String::new());
    rows.push(sum);
    write(screen, (title, form), &headings, rows)
}

fn counted(amounts: &UsageAmounts) -> [String; 3] {
    let group = |count: i64| text::group(count.unsigned_abs().into());
    let tokens = amounts.input_tokens.saturating_add(amounts.output_tokens);
    [text::dollars(cost(Some(amounts))), group(amounts.request_count), group(tokens)]
}

/// The dearest model of a team, its budget of the current month, how much of that is spent, and until when it lasts.
fn of_team(answer: &Answer, team: &str) -> Option<[String; 4]> {
    let (models, spend) = answer.teams.as_ref()?;
    let own = models.rows.iter().map(|row| (dimensions(row), cost(row.amounts.as_ref())));
    let dearest = own.filter(|(of, _)| of.team == team).max_by_key(|(_, cost)| *cost);
    let model = dearest.map_or_else(|| "-".to_owned(), |(of, _)| text::shown(&of.model));
    let of_month =
        spend.teams.iter().find(|report| report.name == team).and_then(|report| report.spend.clone());
    let of_month = of_month.unwrap_or_default();
    let used = match &of_month.budget {
        Some(budget) => bar(text::nanos(of_month.spent.as_ref()), text::nanos(Some(budget))),
        None => "no budget".to_owned(),
    };
    let until = lasts_until(&of_month, &spend.time_zone);
    Some([model, text::money(of_month.budget.as_ref()), used, until])
}

pub(super) fn write(
    screen: &mut Screen,
    (title, form): (&str, Form),
    headings: &[String],
    rows: Vec<Vec<String>>,
) -> io::Result<()> {
    let colour = screen.colour;
    if form == Form::Screen {
        writeln!(screen, "{}", Style::Bold.paint(title, colour))?;
        let mut table = Table::new(headings.iter().map(String::as_str));
        rows.into_iter().for_each(|cells| table.row(Style::Plain, cells));
        return table.write(screen, "", colour);
    }
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let escaped = |cell: &String| markdown(&text::plain(cell));
    let named: Vec<String> = headings.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
    let rule = |name: &String| if name.starts_with('>') { "--:" } else { "---" }.to_owned();
    let rules: Vec<String> = headings.iter().map(rule).collect();
    writeln!(screen, "**{title}**\n\n{}\n{}", line(&named), line(&rules))?;
    for cells in &rows {
        writeln!(screen, "{}", line(&cells.iter().map(escaped).collect::<Vec<_>>()))?;
    }
    Ok(())
}

/// The text as Markdown that says just that: callers choose users and labels.
fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '!' | '@' | '|') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The rows with every amount.
pub(super) fn csv(screen: &mut Screen, by: &[String], rows: &[UsageRow]) -> io::Result<()> {
    screen.write_all(csv::head(by).as_bytes())?;
    rows.iter().try_for_each(|row| screen.write_all(csv::row(by, row).as_bytes()))
}

/// FOCUS; `months` are those that the days of the rows are in.
pub(super) fn focus(screen: &mut Screen, rows: &[UsageRow], months: &[UsageRow]) -> io::Result<()> {
    screen.write_all(focus::head().as_bytes())?;
    rows.iter().try_for_each(|row| screen.write_all(focus::lines(row, months).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_says_what_the_text_says() {
        assert_eq!(markdown(r"![x](y)|a\b"), r"\!\[x\](y)\|a\\b");
        assert_eq!(markdown("gpt-oss-120b 50%"), "gpt-oss-120b 50%");
    }

    #[test]
    fn shares_and_changes_are_in_percent() {
        assert_eq!(bar(50, 100), "████████········ 50%");
        assert_eq!(bar(0, 0), "················ 0%");
        // A budget that was lowered since.
        assert_eq!(bar(300, 100), "████████████████ 300%");
        assert_eq!(bar(5_000_000_000, 0), "████████████████ over");
        assert_eq!([change(150, 100), change(50, 100), change(5, 0)], ["+50%", "-50%", "new"]);
    }
}
