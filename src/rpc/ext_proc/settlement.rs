//! How an HTTP exchange ended, and what is charged for it. One rule for each ending:
//!
//! | ending | charged |
//! | --- | --- |
//! | an answer that says what was used | that |
//! | a complete answer of audio that does not (speech, a transcription as text) | what was sent |
//! | a complete stream without usage | the estimated input, and the output that was seen; a warning |
//! | a complete answer in one piece without usage, billed by tokens | by the team's `on_unsettled`; never nothing; a warning |
//! | a stream that was cut, by the client or by Groq | the estimated input, and the output that was seen |
//! | an answer with a count that is missing or cannot be read | for that count, what was sent or the output that was seen |
//! | the same, where not all input or output was seen | by the team's `on_unsettled`; never nothing |
//! | an answer whose usage cannot be read, or in one piece that was cut | by the team's `on_unsettled`; never nothing |
//! | an answer in one piece that never came | by the team's `on_unsettled` |
//! | an answer that does not say, or a stream that was cut, if not all input or output was seen | by the team's `on_unsettled`; never nothing |
//! | a stream that is still open when the service stops | by the team's `on_unsettled` |
//! | an error of Groq | nothing |
//! | 429 of Groq | nothing; a cooldown begins, for as long as Groq asks within the policy's bound |
//! | 413 of Groq, or 429 with its words: the request is too large for a limit | nothing |
//! | never sent to Groq | nothing, and it does not count as a request |
//!
//! Some input is unseen if Groq adds to it (its own tools, links); some output is unseen if reasoning is hidden or an answer
//! is too long to keep.
//!
//! The output that was seen is one token for every 3 bytes, as input is estimated, and at most what was granted. «Never
//! nothing»: Groq answered, so under `release` the worst case is charged.

use super::super::{filter_context::FilterContext, settling::Report};
use crate::{
    domain::request::{Billing, Operation, Outcome, Usage, tokens_of_bytes},
    groq::{answer::Reading, decimal::scaled, usage::Counts},
};

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The request never reached Groq.
    NotSent,
    /// There was no answer.
    NoAnswer,
    /// The service stops before the exchange does, so its end is not seen.
    Unknown,
    /// Groq answered with an error.
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long Groq asked to wait, in milliseconds.
        retry_ms: u64,
    },
    /// Groq answered.
    Answered(Reading),
}

/// The report by the rules above; `None` for what is still to be used (a batch that was taken).
pub(super) fn report_of(context: &FilterContext, end: &End) -> Option<Report> {
    let report = |outcome, usage| Some(Report { outcome, usage, upstream_delay_ms: 0 });
    // Groq did answer, and its usage is unknown.
    let unknown = report(Outcome::Completed, None);
    let saw_input = !context.unseen_input;
    match end {
        End::NotSent => Some(Report::NOT_SENT),
        // None of the stream was seen; for an answer in one piece it is unknown whether it was made.
        End::NoAnswer if context.stream && saw_input && !context.hides_reasoning => {
            report(Outcome::Aborted, Some(seen(context, 0)))
        }
        End::NoAnswer | End::Unknown => report(Outcome::Aborted, None),
        End::Refused { status: 429, retry_ms } => {
            Some(Report { outcome: Outcome::RateLimited, usage: None, upstream_delay_ms: *retry_ms })
        }
        End::Refused { .. } => report(Outcome::Failed, None),
        End::Answered(_) if context.operation == Operation::Batch => None,
        End::Answered(reading) => {
            let saw_output = !context.hides_reasoning && !reading.text_is_missing;
            let seen = || seen(context, reading.output_bytes);
            // An answer in one piece that is billed by tokens always states them, so one that does not is not understood.
            let may_be_silent = context.stream || !is_billed_by_tokens(context);
            match reading.usage.as_ref().filter(|counts| tells(context, counts)) {
                Some(counts) if !saw_input && counts.input_tokens.is_none() => unknown,
                Some(counts) if !saw_output && counts.output_tokens.is_none() => unknown,
                Some(counts) => report(Outcome::Completed, Some(counted(counts, seen()))),
                None if reading.unreadable || reading.odd => unknown,
                None if reading.complete && !reading.failed && may_be_silent && saw_input && saw_output => {
                    report(Outcome::Completed, Some(seen()))
                }
                None if context.stream && saw_input && saw_output => report(Outcome::Aborted, Some(seen())),
                None if reading.failed && !context.stream => report(Outcome::Failed, None),
                None => unknown,
            }
        }
    }
}

/// Whether to warn about an answer whose usage cannot be read, or lacks a count that Groq bills.
pub(super) fn is_unread(context: &FilterContext, reading: &Reading) -> bool {
    let has = |count: fn(&Counts) -> Option<u64>| reading.usage.as_ref().and_then(count).is_some();
    let has_all = match (context.operation, context.operation.billing()) {
        (Operation::Batch, _) | (_, Billing::Audio | Billing::Characters) => true,
        (_, Billing::Tokens) => has(|counts| counts.input_tokens) && has(|counts| counts.output_tokens),
        (_, Billing::InputTokens) => has(|counts| counts.input_tokens),
    };
    reading.odd || reading.unreadable || (reading.complete && !reading.failed && !has_all)
}

fn is_billed_by_tokens(context: &FilterContext) -> bool {
    matches!(context.operation.billing(), Billing::Tokens | Billing::InputTokens)
}

/// Whether an answer's usage states anything that its operation is billed by.
fn tells(context: &FilterContext, counts: &Counts) -> bool {
    !is_billed_by_tokens(context) || counts.input_tokens.is_some() || counts.output_tokens.is_some()
}

/// The usage that the answer states; a missing count that is billed is replaced by what was sent and seen.
fn counted(counts: &Counts, seen: Usage) -> Usage {
    let input_tokens = counts.input_tokens.unwrap_or(seen.input_tokens);
    let output_tokens = counts.output_tokens.unwrap_or(seen.output_tokens);
    let cached = counts.cached_input_tokens.filter(|_| counts.input_tokens.is_some()).unwrap_or_default();
    Usage {
        input_tokens,
        cached_input_tokens: cached.min(input_tokens),
        output_tokens,
        reasoning_tokens: counts.reasoning_tokens.unwrap_or_default().min(output_tokens),
        audio_ms: counts.audio_ms.unwrap_or(seen.audio_ms),
        ..seen
    }
}

/// The input that was sent, and the output that was seen.
fn seen(context: &FilterContext, output_bytes: u64) -> Usage {
    let writes = context.operation.billing() == Billing::Tokens;
    Usage {
        input_tokens: context.input_tokens,
        output_tokens: if writes { tokens_of_bytes(output_bytes).min(context.max_output_tokens) } else { 0 },
        audio_ms: context.audio_ms,
        characters: context.characters,
        ..Usage::default()
    }
}

/// Whether Envoy's reason for its own answer (`response.code_details`) means that Groq never had the request. Anything not
/// known to mean that may have been billed.
pub(super) fn never_sent(details: &str) -> bool {
    const BEFORE_THE_ROUTER: [&str; 7] = [
        "cluster_not_found",
        "direct_response",
        "maintenance_mode",
        "no_healthy_upstream",
        "request_payload_too_large",
        "route_not_found",
        "tollgate_unreadable_body",
    ];
    let (what, why) = details.split_once('{').unwrap_or((details, ""));
    // No connection could be opened, or no stream on it.
    let not_begun = what == "upstream_reset_before_response_started"
        && ["connection_failure", "overflow", "refused_stream"].iter().any(|reason| why.contains(reason));
    // A filter that changes requests; one that changes answers would come after the meter has seen the answer.
    let request_phase = what.starts_with("ext_proc_error");
    not_begun || request_phase || BEFORE_THE_ROUTER.contains(&what)
}

/// The milliseconds that `retry-after` asks for: whole or fractional seconds, at most a day. Groq does not send dates.
pub(super) fn retry_ms(retry_after: &str) -> u64 {
    const LONGEST_MS: u64 = 24 * 3_600_000;
    scaled(retry_after.trim(), 3).map_or(0, |read| read.units.min(LONGEST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{authorizer::ReservationName, domain::request::ServiceTier, store::ReservationId};

    fn context(operation: Operation, stream: bool) -> FilterContext {
        FilterContext {
            reservation: ReservationName::Stored(ReservationId([1; 16])),
            operation,
            stream,
            hides_reasoning: false,
            choices: 1,
            team: "t".to_owned(),
            model: "m".to_owned(),
            service_tier: ServiceTier::OnDemand,
            upstream_key: String::new(),
            input_tokens: 100,
            max_output_tokens: 50,
            audio_ms: 0,
            characters: 0,
            include_usage: false,
            unseen_input: false,
        }
    }

    fn answered(reading: Reading) -> End {
        End::Answered(reading)
    }

    #[test]
    fn every_ending_has_its_charge() {
        let used = Usage { input_tokens: 9, output_tokens: 8, ..Usage::default() };
        let seen = |output_tokens| Some(Usage { input_tokens: 100, output_tokens, ..Usage::default() });
        let cut = Reading { output_bytes: 31, ..Reading::default() };
        let long = Reading { output_bytes: 3_000, ..Reading::default() };
        let counts = Counts { input_tokens: Some(9), output_tokens: Some(8), ..Counts::default() };
        let told = Reading { usage: Some(counts.clone()), ..cut.clone() };
        let in_part = Counts { input_tokens: None, cached_input_tokens: Some(4), odd: true, ..counts };
        let in_part = Reading { usage: Some(in_part), odd: true, ..cut.clone() };
        let odd = Reading { complete: true, odd: true, ..Reading::default() };
        let silent = Reading { complete: true, output_bytes: 30, ..Reading::default() };
        let failed = Reading { complete: true, failed: true, output_bytes: 30, ..Reading::default() };
        let unreadable = Reading { complete: true, unreadable: true, ..Reading::default() };
        for (stream, end, outcome, usage) in [
            (true, End::NotSent, Outcome::NotSent, None),
            (true, End::NoAnswer, Outcome::Aborted, seen(0)),
            (false, End::NoAnswer, Outcome::Aborted, None),
            (true, End::Refused { status: 500, retry_ms: 0 }, Outcome::Failed, None),
            (true, End::Refused { status: 498, retry_ms: 0 }, Outcome::Failed, None),
            (true, answered(told), Outcome::Completed, Some(used)),
            (true, answered(cut.clone()), Outcome::Aborted, seen(11)),
            (true, answered(long), Outcome::Aborted, seen(50)),
            (true, answered(in_part), Outcome::Completed, seen(8)),
            (true, answered(odd), Outcome::Completed, None),
            (false, answered(cut), Outcome::Completed, None),
            (true, answered(silent), Outcome::Completed, seen(10)),
            (true, answered(failed), Outcome::Aborted, seen(10)),
            (true, answered(unreadable), Outcome::Completed, None),
        ] {
            let report = report_of(&context(Operation::Chat, stream), &end).unwrap();
            assert_eq!((report.outcome, report.usage), (outcome, usage), "{end:?}");
        }
        let limited = End::Refused { status: 429, retry_ms: 2_000 };
        let report = report_of(&context(Operation::Chat, true), &limited).unwrap();
        assert_eq!((report.outcome, report.upstream_delay_ms), (Outcome::RateLimited, 2_000));
    }

    #[test]
    fn input_that_is_not_all_seen_is_not_taken_for_what_was_sent() {
        let unseen = FilterContext { unseen_input: true, ..context(Operation::Chat, false) };
        let silent = Reading { complete: true, output_bytes: 30, ..Reading::default() };
        let cut = Reading { output_bytes: 30, ..Reading::default() };
        for reading in [silent, cut] {
            let report = report_of(&unseen, &answered(reading)).unwrap();
            assert_eq!((report.outcome, report.usage), (Outcome::Completed, None));
        }
    }

    #[test]
    fn output_that_is_not_all_seen_is_not_taken_for_what_was_written() {
        let counts = Counts { input_tokens: Some(9), ..Counts::default() };
        let in_part = Reading { usage: Some(counts), complete: true, output_bytes: 2, ..Reading::default() };
        let silent = Reading { complete: true, output_bytes: 2, ..Reading::default() };
        let cut = Reading { output_bytes: 2, ..Reading::default() };
        let failed = Reading { failed: true, ..cut.clone() };
        for stream in [true, false] {
            let shows = context(Operation::Chat, stream);
            let hides = FilterContext { hides_reasoning: true, ..shows.clone() };
            let too_long = Reading { text_is_missing: true, ..in_part.clone() };
            for (context, reading) in
                [(&hides, &in_part), (&hides, &silent), (&hides, &cut), (&shows, &too_long)]
            {
                let report = report_of(context, &answered(reading.clone())).unwrap();
                assert_eq!((report.outcome, report.usage), (Outcome::Completed, None), "{reading:?}");
            }
            let report = report_of(&shows, &answered(in_part.clone())).unwrap();
            assert_eq!(report.usage.map(|usage| usage.output_tokens), Some(1));
        }
        let hides = FilterContext { hides_reasoning: true, ..context(Operation::Chat, true) };
        assert_eq!(report_of(&hides, &answered(failed)).unwrap().outcome, Outcome::Completed);
        assert_eq!(report_of(&hides, &End::NoAnswer).unwrap().usage, None);
    }

    #[test]
    fn a_complete_answer_of_tokens_that_does_not_tell_is_warned_of() {
        let silent = Reading { complete: true, output_bytes: 30, ..Reading::default() };
        let counts = |input_tokens, output_tokens, audio_ms| {
            let counts = Counts { input_tokens, output_tokens, audio_ms, ..Counts::default() };
            Reading { usage: Some(counts), ..silent.clone() }
        };
        let audio = counts(None, None, Some(5));
        for operation in [Operation::Chat, Operation::Responses, Operation::Embeddings] {
            for reading in [&silent, &audio] {
                let one_piece = context(operation, false);
                assert!(is_unread(&one_piece, reading));
                assert_eq!(report_of(&one_piece, &answered(reading.clone())).unwrap().usage, None);
                let stream = context(operation, true);
                assert!(is_unread(&stream, reading));
                assert!(report_of(&stream, &answered(reading.clone())).unwrap().usage.is_some());
            }
        }
        let chat = context(Operation::Chat, false);
        let embeddings = context(Operation::Embeddings, false);
        assert!(is_unread(&chat, &counts(Some(1), None, None)));
        assert!(!is_unread(&chat, &counts(Some(1), Some(1), None)));
        assert!(!is_unread(&embeddings, &counts(Some(1), None, None)));
        for reading in
            [Reading { failed: true, ..silent.clone() }, Reading { complete: false, ..silent.clone() }]
        {
            assert!(!is_unread(&chat, &reading), "{reading:?}");
        }
        for operation in [Operation::Speech, Operation::Transcription, Operation::Batch] {
            assert!(!is_unread(&context(operation, false), &silent), "{operation}");
        }
    }

    #[test]
    fn audio_that_an_answer_does_not_tell_is_what_was_sent() {
        let counts = Counts { input_tokens: Some(9), output_tokens: Some(8), ..Counts::default() };
        let told = Reading { complete: true, usage: Some(counts), ..Reading::default() };
        let audio = FilterContext { audio_ms: 70_000, ..context(Operation::Transcription, false) };
        assert_eq!(report_of(&audio, &answered(told)).unwrap().usage.unwrap().audio_ms, 70_000);
    }

    #[test]
    fn what_does_not_tell_is_charged_by_what_was_sent() {
        let complete = answered(Reading { complete: true, ..Reading::default() });
        let speech = FilterContext { characters: 12, ..context(Operation::Speech, false) };
        assert_eq!(report_of(&speech, &complete).unwrap().usage.unwrap().characters, 12);
        let audio = FilterContext { audio_ms: 7, ..context(Operation::Transcription, false) };
        assert_eq!(report_of(&audio, &complete).unwrap().usage.unwrap().audio_ms, 7);
        assert_eq!(report_of(&context(Operation::Batch, false), &complete), None);
    }

    #[test]
    fn envoys_own_answers_tell_whether_groq_had_the_request() {
        for details in [
            "no_healthy_upstream",
            "cluster_not_found",
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
            "upstream_reset_before_response_started{connection_failure}",
            "request_payload_too_large",
            "upstream_reset_before_response_started{overflow}",
            "upstream_reset_before_response_started{remote_refused_stream_reset}",
            "ext_proc_error_per-message_timeout_exceeded",
            "ext_proc_error_gRPC_error_2{upstream_reset{via_upstream}}",
        ] {
            assert!(never_sent(details), "{details}");
        }
        for details in [
            "",
            "via_upstream",
            "upstream_reset_before_response_started{connection_termination}",
            "upstream_response_timeout",
            "stream_idle_timeout",
            "downstream_remote_disconnect",
            "response_payload_too_large",
            "filter_removed_required_response_headers",
            "upstream_per_try_idle_timeout",
            "http2.unexpected_underscore",
            "something_new",
        ] {
            assert!(!never_sent(details), "{details}");
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        for (text, ms) in [
            ("2", 2_000),
            (" 7.66 ", 7_660),
            ("0.0005", 0),
            ("", 0),
            ("-1", 0),
            ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
            ("999999999999999999999", 86_400_000),
        ] {
            assert_eq!(retry_ms(text), ms, "{text:?}");
        }
    }
}
