//! What a likely cause is drawn from, in words.

use crate::{
    cli::text,
    reconcile::{Books, Cause, DaysOf, Finding},
};

/// What it is called in a table.
pub(super) const fn label(cause: Cause) -> &'static str {
    match cause {
        Cause::DaysShifted => "days begin elsewhere",
        Cause::NotInFile => "not in the file",
        Cause::PriceChanged => "price",
        Cause::CachedTokens => "cached tokens",
        Cause::WentRound => "went round us",
        Cause::NeverReported => "never reported",
        Cause::ChargedUnsettled => "charged unsettled",
        Cause::OtherUsage => "other usage",
        Cause::NotBilled => "not billed",
        Cause::OtherCharge => "no usage",
        Cause::Unknown => "unknown",
    }
}

/// Why this cause is likely, and what to do.
pub(super) fn reason(finding: &Finding, books: &Books) -> String {
    let count = |count: u64| text::group(count.into());
    let Finding { booked, billed, .. } = finding;
    let more = billed
        .requests
        .map(|billed| (billed.saturating_sub(booked.requests), booked.requests.saturating_sub(billed)));
    match finding.cause {
        Cause::DaysShifted => {
            let whose = match books.days {
                DaysOf::Utc => "the file's days are not UTC's, or requests ran past midnight",
                DaysOf::Zone => {
                    "our days are those of the organization's time zone, Groq's are UTC's, and hours are no longer kept"
                }
            };
            format!("what some days have more, others have less: {whose}")
        }
        Cause::NotInFile => "the file begins later or ends earlier: export all of the month".to_owned(),
        Cause::PriceChanged => price_changed(finding),
        Cause::CachedTokens => format!(
            "as many tokens, but Groq counts {} of them as cached and we {}: check that gateways report cached tokens",
            count(billed.cached_tokens.unwrap_or(0)),
            count(booked.cached_tokens)
        ),
        Cause::WentRound => match (more, booked.requests) {
            (_, 0) => "we have no request of it: a Groq key is used without Tollgate".to_owned(),
            (Some((more, _)), _) => format!(
                "Groq billed {} requests that we do not have{}: a Groq key is used without Tollgate, or its usage was not recorded",
                count(more),
                unsettled(books)
            ),
            (None, _) => "Groq billed more than we have: a Groq key is used without Tollgate".to_owned(),
        },
        Cause::NeverReported => format!(
            "Groq billed {} requests more than we booked, and {} reservations of the month ({} held) were never settled: \
             find the gateway that does not report",
            more.map_or_else(|| "an unknown number of".to_owned(), |(more, _)| count(more)),
            count(books.unsettled),
            text::dollars(books.reserved_nanos)
        ),
        Cause::ChargedUnsettled => format!(
            "{}{} of {} requests were reported without usage, and charged what `on_unsettled` says, at most the worst case",
            // Where reservations were never settled, some of the count may be those.
            if books.unsettled > 0 { "at most " } else { "" },
            count(booked.charged_unsettled()),
            count(booked.requests)
        ),
        Cause::OtherUsage => format!(
            "as many requests, but Groq counts {} tokens and we {}{}: usage is not reported as Groq told it",
            count(billed.input_tokens.unwrap_or(0).saturating_add(billed.output_tokens.unwrap_or(0))),
            count(booked.input_tokens.saturating_add(booked.output_tokens)),
            if booked.aborted > 0 {
                format!(" ({} were cut off)", count(booked.aborted))
            } else {
                String::new()
            }
        ),
        Cause::NotBilled => match more {
            Some((_, less)) if less > 0 && billed.requests > Some(0) => format!(
                "we booked {} requests that Groq did not bill: reported twice under other ids, or the file is not complete",
                count(less)
            ),
            _ => "Groq billed nothing of it: another model or project there, or the file is not complete"
                .to_owned(),
        },
        Cause::OtherCharge => "a line of no model that we know: a tax, a credit or a plan".to_owned(),
        Cause::Unknown => "the file has neither requests nor tokens: the usage export tells more".to_owned(),
    }
}

fn price_changed(finding: &Finding) -> String {
    let since = finding.first_day.map(|day| format!(" since {}", super::print::day(day))).unwrap_or_default();
    let share = finding.ratio.map_or_else(
        || "at other prices".to_owned(),
        |ratio| format!("at {} of what we book", percent(ratio, 100)),
    );
    let is_as_used = finding.booked.is_used_as(&finding.billed);
    let what = if is_as_used { "as many tokens" } else { "a constant share" };
    format!("{what}, billed {share}{since}: compare `tollgate prices` with Groq's price list")
}

/// How many of those may be reservations of which usage was never reported.
fn unsettled(books: &Books) -> String {
    match books.unsettled {
        0 => String::new(),
        count => format!(" (at most {} were authorized and never settled)", text::group(count.into())),
    }
}

/// A number of parts of which `of` are one percent.
pub(super) fn percent(parts: i128, of: i128) -> String {
    let sign = if parts < 0 { "-" } else { "" };
    let tenths = parts.unsigned_abs() * 10 / of.unsigned_abs();
    format!("{sign}{}.{}%", text::group(tenths / 10), tenths % 10)
}
