//! What a limit counts, and what a request asks for, as people read them.

use maud::{Markup, html};

use crate::{
    console::text::{NO_BREAK, money, number},
    rpc::proto::{Quantity, RequestFacts},
};

/// A number of what a limit counts. Money is exact: what is asked for may be a millionth of the limit.
pub(super) fn of(quantity: Quantity, value: i64) -> Markup {
    match quantity {
        Quantity::NanoUsd => html! { (money::exact(value.into())) },
        Quantity::AudioMilliseconds => html! { (seconds(value / 1_000, value % 1_000)) },
        _ => html! { (number::count(value)) },
    }
}

/// What it is a number of.
pub(super) const fn unit(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Unspecified => "",
        Quantity::Requests => "requests",
        Quantity::Tokens => "tokens",
        Quantity::AudioMilliseconds => "audio",
        Quantity::NanoUsd => "US dollars",
        Quantity::RequestsInFlight => "requests in flight",
        Quantity::OutputTokens => "output tokens of one request",
        Quantity::UnsettledRequests => "requests without a report",
    }
}

fn seconds(whole: i64, ms: i64) -> String {
    let tenths = ms / 100;
    let part = if tenths > 0 { format!(".{tenths}") } else { String::new() };
    format!("{}{part}{NO_BREAK}s", number::count(whole))
}

/// What goes in: tokens, seconds of audio, characters to speak, or the lines of a batch.
pub(super) fn input(facts: &RequestFacts) -> String {
    match (&facts.batch, &facts.audio_duration) {
        (Some(batch), _) => number::of(batch.request_count, "line"),
        (None, Some(audio)) => seconds(audio.seconds, i64::from(audio.nanos) / 1_000_000),
        (None, None) if facts.character_count > 0 => number::of(facts.character_count, "character"),
        (None, None) => number::count(facts.input_tokens),
    }
}

/// The output tokens that are asked for; empty: the request does not say.
pub(super) fn output(facts: &RequestFacts) -> String {
    match facts.max_output_tokens {
        0 => String::new(),
        tokens => number::count(tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::Batch;

    #[test]
    fn amounts_have_their_units() {
        assert_eq!(of(Quantity::NanoUsd, 3_450_000).into_string(), "$0.00345");
        assert_eq!(of(Quantity::Tokens, 100_000).into_string(), "100,000");
        assert_eq!(of(Quantity::AudioMilliseconds, 312_500).into_string(), "312.5\u{a0}s");
        let facts = RequestFacts { input_tokens: 19_000, max_output_tokens: 1_000, ..Default::default() };
        assert_eq!((input(&facts), output(&facts)), ("19,000".to_owned(), "1,000".to_owned()));
        assert_eq!(output(&RequestFacts::default()), "");
        let audio = prost_types::Duration { seconds: 61, nanos: 500_000_000 };
        let facts = RequestFacts { audio_duration: Some(audio), ..Default::default() };
        assert_eq!(input(&facts), "61.5\u{a0}s");
        let facts = RequestFacts {
            batch: Some(Batch { request_count: 2, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(input(&facts), "2\u{a0}lines");
        let facts = RequestFacts { character_count: 1_200, ..Default::default() };
        assert_eq!(input(&facts), "1,200\u{a0}characters");
    }
}
