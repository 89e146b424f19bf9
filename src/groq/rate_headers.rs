//! `x-ratelimit-…` headers in the units that Groq's clients parse.

use std::fmt::Write as _;

use crate::domain::{limit::Quantity, limit_status::LimitStatuses};

/// The headers for the limits that apply to a request: for requests and for tokens, the limit with the least left.
#[must_use]
pub fn rate_headers(limits: &LimitStatuses) -> Vec<(&'static str, String)> {
    let names = [
        (
            Quantity::Requests,
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        ),
        (
            Quantity::Tokens,
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        ),
    ];
    let mut headers = Vec::new();
    for (quantity, [limit_name, remaining_name, reset_name]) in names {
        if let Some(limit) = limits.tightest().find(|status| status.limit.quantity == quantity) {
            headers.push((limit_name, limit.bound.to_string()));
            headers.push((remaining_name, limit.remaining().to_string()));
            headers.push((reset_name, go_duration(limit.reset_ms)));
        }
    }
    headers
}

/// Milliseconds in Go's duration format, which Groq's headers use: `185ms`, `7.66s`, `2m59.56s`.
fn go_duration(ms: u64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let mut text = String::new();
    // Writing to a string cannot fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = match ms % 1000 {
        0 => write!(text, "{seconds}"),
        fraction => {
            let digits = format!("{fraction:03}");
            write!(text, "{seconds}.{}", digits.trim_end_matches('0'))
        }
    };
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limit_status::tests::statuses;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (185, "185ms"),
            (1_000, "1s"),
            (7_660, "7.66s"),
            (179_560, "2m59.56s"),
            (60_000, "1m0s"),
            (3_600_001, "1h0m0.001s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn the_tightest_limit_of_each_kind_is_told() {
        let headers = rate_headers(&statuses(&[
            (Quantity::Requests, 60, 10, 5_000),
            (Quantity::Requests, 30, 10, 6_000),
            (Quantity::Tokens, 100, 120, 7_660),
            (Quantity::NanoUsd, 1, 1, 1),
        ]));
        let told = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(told("x-ratelimit-limit-requests"), Some("30"));
        assert_eq!(told("x-ratelimit-remaining-requests"), Some("20"));
        assert_eq!(told("x-ratelimit-reset-requests"), Some("6s"));
        assert_eq!(told("x-ratelimit-remaining-tokens"), Some("0"));
        assert_eq!(told("x-ratelimit-reset-tokens"), Some("7.66s"));
        assert_eq!(rate_headers(&LimitStatuses::default()), Vec::new());
    }
}
