//! What a key may do, as flags.

use std::time::Duration;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::super::{names, text};
use crate::rpc::{google_type::Money, proto};

/// What a key may do, and until when.
#[derive(Args)]
#[command(next_help_heading = "What it may do, within what its team may")]
pub(super) struct KeyLimitArgs {
    /// A model, or the beginning of models with `*` at the end; may be repeated
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// What it may be used for; may be repeated
    #[arg(long = "operation", value_parser = names::parser::<proto::Operation>())]
    operations: Vec<proto::Operation>,
    /// Requests in any minute
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<i64>,
    /// Requests in any hour
    #[arg(long, value_name = "COUNT")]
    requests_per_hour: Option<i64>,
    /// Requests in any 24 hours
    #[arg(long, value_name = "COUNT")]
    requests_per_day: Option<i64>,
    /// Tokens in any minute
    #[arg(long, value_name = "COUNT")]
    tokens_per_minute: Option<i64>,
    /// Tokens in any hour
    #[arg(long, value_name = "COUNT")]
    tokens_per_hour: Option<i64>,
    /// Tokens in any 24 hours
    #[arg(long, value_name = "COUNT")]
    tokens_per_day: Option<i64>,
    /// Seconds of audio in any minute
    #[arg(long, value_name = "COUNT")]
    audio_seconds_per_minute: Option<i64>,
    /// Seconds of audio in any hour
    #[arg(long, value_name = "COUNT")]
    audio_seconds_per_hour: Option<i64>,
    /// Seconds of audio in any 24 hours
    #[arg(long, value_name = "COUNT")]
    audio_seconds_per_day: Option<i64>,
    /// Requests at once: authorized and not reported yet
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<i64>,
    /// Output tokens of one request
    #[arg(long, value_name = "COUNT")]
    max_output_tokens: Option<i64>,
    /// Dollars of a calendar month
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    monthly_usd: Option<Money>,
    /// Dollars of a week from Monday
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    weekly_usd: Option<Money>,
    /// Dollars of a day
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    daily_usd: Option<Money>,
    /// What happens when a budget cannot cover a request's worst case
    #[arg(long, value_name = "WHAT", value_parser = names::parser::<proto::OnShortfall>())]
    on_shortfall: Option<proto::OnShortfall>,
    /// With --on-shortfall clamp: the fewest output tokens worth granting
    #[arg(long, value_name = "COUNT")]
    min_output_tokens: Option<i64>,
    /// Report when the budgets reach this share (80%), or the month's this amount ($400); may be repeated
    #[arg(long = "budget-alert", value_name = "POINT")]
    budget_alerts: Vec<String>,
    /// Whether this refuses, or in shadow only counts and reports what it would refuse
    #[arg(long, value_name = "MODE", value_parser = names::parser::<proto::LimitMode>())]
    mode: Option<proto::LimitMode>,
    /// When it ends: in so long (30d, 12h), or at an instant (2026-12-31T18:00:00Z)
    #[arg(long, value_name = "WHEN", value_parser = end)]
    expires: Option<prost_types::Timestamp>,
}

/// What can be taken away from a key, by the flag that sets it, and its path in an update.
const CLEARABLE: [(&str, &str); 22] = [
    ("models", "limits.models"),
    ("operations", "limits.operations"),
    ("requests-per-minute", "limits.requests_per_minute"),
    ("requests-per-hour", "limits.requests_per_hour"),
    ("requests-per-day", "limits.requests_per_day"),
    ("tokens-per-minute", "limits.tokens_per_minute"),
    ("tokens-per-hour", "limits.tokens_per_hour"),
    ("tokens-per-day", "limits.tokens_per_day"),
    ("audio-seconds-per-minute", "limits.audio_seconds_per_minute"),
    ("audio-seconds-per-hour", "limits.audio_seconds_per_hour"),
    ("audio-seconds-per-day", "limits.audio_seconds_per_day"),
    ("max-in-flight", "limits.max_in_flight"),
    ("max-output-tokens", "limits.max_output_tokens"),
    ("monthly-usd", "limits.monthly_budget"),
    ("weekly-usd", "limits.weekly_budget"),
    ("daily-usd", "limits.daily_budget"),
    ("on-shortfall", "limits.on_shortfall"),
    ("min-output-tokens", "limits.min_output_tokens"),
    ("budget-alerts", "limits.budget_alerts"),
    ("mode", "limits.mode"),
    ("expires", "expire_time"),
    ("labels", "labels"),
];

/// The path of what is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path(pub(super) &'static str);

/// Reads what is to be taken away.
pub(super) fn clearable() -> impl TypedValueParser<Value = Path> {
    PossibleValuesParser::new(CLEARABLE.map(|(flag, _)| flag)).map(|name| {
        let path = CLEARABLE.iter().find(|(flag, _)| *flag == name).map(|(_, path)| *path);
        Path(path.unwrap_or_default())
    })
}

impl KeyLimitArgs {
    /// The limits, and the end.
    pub(super) fn split(self) -> (proto::KeyLimits, Option<prost_types::Timestamp>) {
        let limits = proto::KeyLimits {
            models: self.models,
            operations: self.operations.into_iter().map(Into::into).collect(),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            max_output_tokens: self.max_output_tokens,
            monthly_budget: self.monthly_usd,
            weekly_budget: self.weekly_usd,
            daily_budget: self.daily_usd,
            on_shortfall: self.on_shortfall.unwrap_or_default().into(),
            min_output_tokens: self.min_output_tokens.unwrap_or_default(),
            budget_alerts: self.budget_alerts,
            max_in_flight: self.max_in_flight,
            requests_per_hour: self.requests_per_hour,
            requests_per_day: self.requests_per_day,
            tokens_per_hour: self.tokens_per_hour,
            tokens_per_day: self.tokens_per_day,
            audio_seconds_per_minute: self.audio_seconds_per_minute,
            audio_seconds_per_hour: self.audio_seconds_per_hour,
            audio_seconds_per_day: self.audio_seconds_per_day,
            mode: self.mode.unwrap_or_default().into(),
        };
        (limits, self.expires)
    }

    /// The paths of what was given.
    pub(super) fn given(&self) -> Vec<Path> {
        let given = [
            (!self.models.is_empty(), "limits.models"),
            (!self.operations.is_empty(), "limits.operations"),
            (self.requests_per_minute.is_some(), "limits.requests_per_minute"),
            (self.requests_per_hour.is_some(), "limits.requests_per_hour"),
            (self.requests_per_day.is_some(), "limits.requests_per_day"),
            (self.tokens_per_minute.is_some(), "limits.tokens_per_minute"),
            (self.tokens_per_hour.is_some(), "limits.tokens_per_hour"),
            (self.tokens_per_day.is_some(), "limits.tokens_per_day"),
            (self.audio_seconds_per_minute.is_some(), "limits.audio_seconds_per_minute"),
            (self.audio_seconds_per_hour.is_some(), "limits.audio_seconds_per_hour"),
            (self.audio_seconds_per_day.is_some(), "limits.audio_seconds_per_day"),
            (self.max_in_flight.is_some(), "limits.max_in_flight"),
            (self.max_output_tokens.is_some(), "limits.max_output_tokens"),
            (self.monthly_usd.is_some(), "limits.monthly_budget"),
            (self.weekly_usd.is_some(), "limits.weekly_budget"),
            (self.daily_usd.is_some(), "limits.daily_budget"),
            (self.on_shortfall.is_some(), "limits.on_shortfall"),
            (self.min_output_tokens.is_some(), "limits.min_output_tokens"),
            (!self.budget_alerts.is_empty(), "limits.budget_alerts"),
            (self.mode.is_some(), "limits.mode"),
            (self.expires.is_some(), "expire_time"),
        ];
        given.into_iter().filter(|(given, _)| *given).map(|(_, path)| Path(path)).collect()
    }
}

fn dollars(text: &str) -> Result<Money, String> {
    let amount: crate::domain::money::NanoUsd = text
        .trim_start_matches('$')
        .parse()
        .map_err(|_| format!("`{text}` is no amount of dollars, such as 5 or 12.50"))?;
    let part = |nanos: u64| i64::try_from(nanos).map_err(|_| "too much".to_owned());
    let nanos = i32::try_from(amount.nanos() % 1_000_000_000).map_err(|_| "too much".to_owned())?;
    Ok(Money { currency_code: "USD".to_owned(), units: part(amount.nanos() / 1_000_000_000)?, nanos })
}

fn end(text: &str) -> Result<prost_types::Timestamp, String> {
    let wire = |at: jiff::Timestamp| prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    };
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(wire(at));
    }
    let unknown = || {
        format!(
            "`{text}` is neither a length of time, such as 30d, nor an instant, such as 2026-12-31T18:00:00Z"
        )
    };
    let length = match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) => Duration::from_secs(days.checked_mul(86_400).ok_or_else(unknown)?),
        _ => text::parse_duration(text).map_err(|_| unknown())?,
    };
    let length = jiff::SignedDuration::try_from(length).map_err(|_| unknown())?;
    jiff::Timestamp::now().checked_add(length).map(wire).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_length_of_time_or_an_instant() {
        let now = jiff::Timestamp::now().as_second();
        for (text, seconds) in [("30d", 30 * 86_400), ("12h", 43_200), ("90s", 90)] {
            let at = end(text).unwrap().seconds;
            assert!((now + seconds..=now + seconds + 60).contains(&at), "{text}");
        }
        assert_eq!(
            end("1970-01-01T00:00:05.5Z").unwrap(),
            prost_types::Timestamp { seconds: 5, nanos: 500_000_000 }
        );
        for text in ["", "90", "soon", "99999999999999999999d", "-5d"] {
            assert!(end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dollars_are_exact() {
        let money = dollars("12.000000001").unwrap();
        assert_eq!((money.units, money.nanos), (12, 1));
        assert_eq!(dollars("$5").unwrap().units, 5);
        assert!(dollars("-1").is_err() && dollars("1e3").is_err());
    }

    #[test]
    fn whatever_a_flag_sets_can_be_cleared() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            limits: KeyLimitArgs,
        }
        let count = ["requests-per-minute", "requests-per-hour", "requests-per-day", "tokens-per-minute"];
        let line = count.map(|flag| format!("--{flag}=7")).into_iter().chain(
            [
                "--tokens-per-hour=7",
                "--tokens-per-day=7",
                "--audio-seconds-per-minute=7",
                "--audio-seconds-per-hour=7",
                "--audio-seconds-per-day=7",
                "--max-in-flight=7",
                "--max-output-tokens=7",
                "--monthly-usd=7",
                "--weekly-usd=7",
                "--daily-usd=7",
                "--on-shortfall=clamp",
                "--min-output-tokens=7",
                "--budget-alert=80%",
                "--mode=shadow",
                "--model=m",
                "--operation=chat_completion",
                "--expires=30d",
            ]
            .map(str::to_owned),
        );
        let line =
            <Line as clap::Parser>::try_parse_from(std::iter::once("x".to_owned()).chain(line)).unwrap();
        let mut given: Vec<_> = line.limits.given().into_iter().map(|path| path.0).collect();
        let mut clearable: Vec<_> = CLEARABLE.map(|(_, path)| path).to_vec();
        clearable.retain(|path| *path != "labels");
        given.sort_unstable();
        clearable.sort_unstable();
        assert_eq!(given, clearable);
        let (limits, expires) = line.limits.split();
        assert!(expires.is_some());
        assert_eq!(limits.on_shortfall(), proto::OnShortfall::Clamp);
        assert_eq!(limits.mode(), proto::LimitMode::Shadow);
        let limits = format!("{limits:?}");
        assert_eq!(limits.matches("Some(7)").count(), 11, "{limits}");
        assert_eq!(limits.matches("units: 7").count(), 3, "{limits}");
    }
}
