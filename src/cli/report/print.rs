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

/// The value of a dimension, as people read it.
pub(super) fn value(dimensions: &UsageDimensions, path: &str) -> String {
    let short = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_ascii_lowercase();
    match path {
        "team" => dimensions.team.clone(),
        "key" => dimensions.key.clone(),
        "user" => dimensions.user.clone(),
        "model" => dimensions.model.clone(),
        "operation" => short(dimensions.operation().as_str_name(), "OPERATION_"),
        "service_tier" => short(dimensions.service_tier().as_str_name(), "SERVICE_TIER_"),
        "project" => dimensions.project.clone(),
        "reason" => short(dimensions.reason().as_str_name(), "REASON_"),
        "limit_id" => dimensions.limit_id.clone(),
        label => dimensions
            .labels
            .values()
            .next()
            .filter(|_| label.starts_with("labels."))
            .cloned()
            .unwrap_or_default(),
    }
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

/// A cell of comma-separated values.
pub(super) fn cell(text: &str) -> String {
    // A spreadsheet takes what begins so for a formula.
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Dollars as a decimal, with as many places as needed.
pub(super) fn decimal(nanos: i128) -> String {
    text::dollars(nanos).replace(['$', ','], "")
}

/// The rows with every amount. The header is the version: columns are only added at the end.
pub(super) fn csv(screen: &mut Screen, by: &[String], rows: &[UsageRow]) -> io::Result<()> {
    const AMOUNTS: [&str; 18] = [
        "cost_usd",
        "request_count",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "audio_seconds",
        "character_count",
        "tool_call_count",
        "tool_cost_usd",
        "input_cost_usd",
        "cached_input_cost_usd",
        "output_cost_usd",
        "unsettled_count",
        "aborted_count",
        "failed_count",
        "rate_limited_count",
        "degraded_count",
    ];
    let headings = ["start_time", "end_time"].into_iter().chain(by.iter().map(String::as_str)).chain(AMOUNTS);
    writeln!(screen, "{}", headings.collect::<Vec<_>>().join(","))?;
    for row in rows {
        let (dimensions, of) = (dimensions(row), row.amounts.clone().unwrap_or_default());
        let mut cells: Vec<String> = [&row.start_time, &row.end_time]
            .into_iter()
            .map(|time| time.as_ref().map_or_else(String::new, text::instant))
            .collect();
        cells.extend(by.iter().map(|path| cell(&value(&dimensions, path))));
        let money = |money: &Option<_>| decimal(text::nanos(money.as_ref()));
        cells.push(money(&of.cost));
        let counts = [of.request_count, of.input_tokens, of.cached_input_tokens, of.output_tokens];
        cells.extend(counts.into_iter().chain([of.reasoning_tokens]).map(|count| count.to_string()));
        let audio = of.audio_duration.unwrap_or_default();
        cells.push(decimal(i128::from(audio.seconds) * 1_000_000_000 + i128::from(audio.nanos)));
        cells.extend([of.character_count, of.tool_call_count].map(|count| count.to_string()));
        cells.extend([&of.tool_cost, &of.input_cost, &of.cached_input_cost, &of.output_cost].map(money));
        let counts = [of.unsettled_count, of.aborted_count, of.failed_count, of.rate_limited_count];
        cells.extend(counts.into_iter().chain([of.degraded_count]).map(|count| count.to_string()));
        writeln!(screen, "{}", cells.join(","))?;
    }
    Ok(())
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
    fn cells_are_read_back_as_they_were() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"so\"", "\"say \"\"so\"\"\""),
            ("=1+1", "'=1+1"),
            ("\t=1+1", "'\t=1+1"),
            ("", ""),
        ] {
            assert_eq!(cell(text), expected);
        }
        assert_eq!(decimal(1_234_567_000_000_001), "1234567.000000001");
        assert_eq!(decimal(0), "0.00");
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
