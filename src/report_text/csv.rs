//! Usage as comma-separated values, with every amount. The header is the version: columns are only added at the end.

use super::{instant, nanos, value};
use crate::{domain::text::dollars, rpc::proto::UsageRow};

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

/// The first line of rows by these dimensions.
pub(crate) fn head(by: &[String]) -> String {
    let headings = ["start_time", "end_time"].into_iter().chain(by.iter().map(String::as_str)).chain(AMOUNTS);
    line(headings.map(str::to_owned).collect())
}

/// The line of a row.
pub(crate) fn row(by: &[String], row: &UsageRow) -> String {
    let (dimensions, of) =
        (row.dimensions.clone().unwrap_or_default(), row.amounts.clone().unwrap_or_default());
    let mut cells: Vec<String> = [&row.start_time, &row.end_time]
        .into_iter()
        .map(|time| time.as_ref().map_or_else(String::new, instant))
        .collect();
    cells.extend(by.iter().map(|path| cell(&value(&dimensions, path))));
    let money = |money: &Option<_>| decimal(nanos(money.as_ref()));
    cells.push(money(&of.cost));
    let counts = [of.request_count, of.input_tokens, of.cached_input_tokens, of.output_tokens];
    cells.extend(counts.into_iter().chain([of.reasoning_tokens]).map(|count| count.to_string()));
    let audio = of.audio_duration.unwrap_or_default();
    cells.push(decimal(i128::from(audio.seconds) * 1_000_000_000 + i128::from(audio.nanos)));
    cells.extend([of.character_count, of.tool_call_count].map(|count| count.to_string()));
    cells.extend([&of.tool_cost, &of.input_cost, &of.cached_input_cost, &of.output_cost].map(money));
    let counts = [of.unsettled_count, of.aborted_count, of.failed_count, of.rate_limited_count];
    cells.extend(counts.into_iter().chain([of.degraded_count]).map(|count| count.to_string()));
    line(cells)
}

/// A line of cells.
pub(crate) fn line(cells: Vec<String>) -> String {
    cells.join(",") + "\n"
}

/// A text as a cell.
pub(crate) fn cell(text: &str) -> String {
    // A spreadsheet takes what begins so for a formula.
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Dollars as a decimal, with as many places as needed.
pub(crate) fn decimal(nanos: i128) -> String {
    dollars(nanos).replace(['$', ','], "")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
