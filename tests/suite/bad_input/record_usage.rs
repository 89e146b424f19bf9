//! The fields of `RecordUsage`.

use proptest::{prelude::*, sample::select};
use tollgate::rpc::proto::{self, record_usage_request};

use super::{
    MODEL, check,
    values::{AUDIO_SECONDS, Judged, TOKENS, bad, count, duration, names_just, text, variant},
};

/// The most of the largest batch.
const BATCH_TOKENS: i64 = 100_000_000_000;
const BATCH_AUDIO_SECONDS: i64 = 1_000_000 * 3600;

fn usage(
    tokens: i64,
    audio_seconds: i64,
) -> impl Strategy<Value = (proto::Usage, Vec<(&'static str, bool)>)> {
    let counts = (count(tokens), count(tokens), count(tokens), count(tokens), count(tokens));
    (counts, duration(audio_seconds)).prop_map(|((input, cached, output, reasoning, characters), audio)| {
        // What is wrong by itself is taken as nothing when it is compared.
        let plain = |(value, good): Judged<i64>| if good { value } else { 0 };
        let judged = vec![
            ("usage.input_tokens", input.1),
            ("usage.cached_input_tokens", cached.1 && plain(cached) <= plain(input)),
            ("usage.output_tokens", output.1),
            ("usage.reasoning_tokens", reasoning.1 && plain(reasoning) <= plain(output)),
            ("usage.character_count", characters.1),
            ("usage.audio_duration", audio.1),
        ];
        let usage = proto::Usage {
            input_tokens: input.0,
            cached_input_tokens: cached.0,
            output_tokens: output.0,
            reasoning_tokens: reasoning.0,
            audio_duration: audio.0,
            character_count: characters.0,
            tool_calls: Vec::new(),
            request_count: 0,
        };
        (usage, judged)
    })
}

/// Who reports, and for what: the fields of usage that has no reservation.
fn unreserved() -> impl Strategy<Value = (proto::RecordUsageRequest, Vec<(&'static str, bool)>)> {
    use record_usage_request::Caller;
    let caller = prop_oneof![
        4 => text(1, 64, "team").prop_map(|(team, good)| (Some(Caller::Team(team)), "team", good)),
        1 => Just((Some(Caller::ApiKey(String::new())), "api_key", false)),
        1 => Just((None, "reservation_id", false)),
    ];
    let names = (caller, text(0, 256, "user"), text(1, 128, "id"), text(1, 256, MODEL));
    let label = select(vec![
        ("k".to_owned(), "v".repeat(256), true),
        (String::new(), "v".to_owned(), false),
        ("k".repeat(65), String::new(), false),
        ("k".to_owned(), "v".repeat(257), false),
        ("k".to_owned(), "a\nb".to_owned(), false),
    ]);
    (names, variant(7, false), variant(4, true), prop::option::of(label)).prop_map(
        |((caller, user, request_id, model), operation, tier, label)| {
            let judged = vec![
                (caller.1, caller.2),
                ("user", user.1),
                ("request_id", request_id.1),
                ("model", model.1),
                ("operation", operation.1),
                ("service_tier", tier.1),
                ("labels", label.as_ref().is_none_or(|(.., good)| *good)),
            ];
            let request = proto::RecordUsageRequest {
                caller: caller.0,
                user: user.0,
                request_id: request_id.0,
                model: model.0,
                operation: operation.0,
                service_tier: tier.0,
                labels: label.into_iter().map(|(key, value, _)| (key, value)).collect(),
                ..Default::default()
            };
            (request, judged)
        },
    )
}

#[test]
fn record_usage_names_every_field_that_is_wrong() {
    let reservation = select(vec![
        ("01".repeat(16), true),
        ("01".to_owned() + &"f".repeat(30), true),
        ("01".to_owned() + &"F".repeat(30), false),
        ("0".repeat(32), false),
        ("f".repeat(32), false),
        ("01".to_owned() + &"0".repeat(29), false),
        ("01".to_owned() + &"0".repeat(31), false),
        ("x".to_owned(), false),
        ("\0".repeat(32), false),
        ("é".repeat(16), false),
        ("+".to_owned() + &"0".repeat(31), false),
        ("0".repeat(9_000), false),
    ]);
    let with_reservation = reservation.prop_map(|(reservation_id, good)| {
        (proto::RecordUsageRequest { reservation_id, ..Default::default() }, vec![("reservation_id", good)])
    });
    let used = |tokens, audio_seconds| prop::option::weighted(0.8, usage(tokens, audio_seconds));
    // What a reservation is of is known once it is found: until then it may be the largest batch.
    let of_reservation = (with_reservation, used(BATCH_TOKENS, BATCH_AUDIO_SECONDS));
    let subject = prop_oneof![of_reservation.boxed(), (unreserved(), used(TOKENS, AUDIO_SECONDS)).boxed()];
    let strategy = (subject, variant(5, false), duration(24 * 3600));
    check("record", &strategy, |service, (((request, mut judged), usage), outcome, delay)| {
        const COMPLETED: i32 = proto::Outcome::Completed as i32;
        const RATE_LIMITED: i32 = proto::Outcome::RateLimited as i32;
        let waits = delay.1 && delay.0.is_some_and(|delay| delay.seconds > 0 || delay.nanos > 0);
        judged.push(("outcome", outcome.1));
        judged.push(("usage", usage.is_some() || outcome.0 != COMPLETED));
        judged.push(("upstream_retry_delay", delay.1 && (!waits || !outcome.1 || outcome.0 == RATE_LIMITED)));
        let (usage, of_usage) = usage.unzip();
        judged.extend(of_usage.into_iter().flatten());
        let request =
            proto::RecordUsageRequest { usage, outcome: outcome.0, upstream_retry_delay: delay.0, ..request };
        names_just(service.answer(service.client().record_usage(request))?, &bad(&judged))
    });
}
