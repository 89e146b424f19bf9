//! The fields of `Authorize`.

use proptest::{prelude::*, sample::select};
use tollgate::rpc::proto::{self, authorize_request};

use super::{
    MODEL, check,
    values::{AUDIO_SECONDS, Judged, TOKENS, bad, count, duration, names_just, text, variant},
};

fn authorize_caller() -> impl Strategy<Value = Judged<Option<authorize_request::Caller>>> {
    use authorize_request::Caller;
    prop_oneof![
        4 => text(1, 64, "team").prop_map(|(team, good)| (Some(Caller::Team(team)), good)),
        1 => select(vec![(String::new(), false), ("k".repeat(512), true), ("k".repeat(513), false), ("\n".into(), true)])
            .prop_map(|(key, good)| (Some(Caller::ApiKey(key)), good)),
        1 => Just((None, false)),
    ]
}

#[test]
fn authorize_names_every_field_that_is_wrong() {
    let names = (authorize_caller(), text(0, 256, "user"), text(0, 128, ""), text(1, 256, MODEL));
    let kinds = (variant(7, false), variant(4, true), variant(3, true));
    let counts = (count(TOKENS), count(1_000_000_000), count(TOKENS), count(TOKENS));
    // Never a wait that is permitted: the clock stands still.
    let durations = (
        duration(AUDIO_SECONDS),
        duration(60).prop_map(|(wait, good)| if good { (None, true) } else { (wait, false) }),
    );
    let label = select(vec![
        ("k".to_owned(), "v".to_owned(), true),
        ("k".repeat(64), "v".repeat(256), true),
        (String::new(), "v".to_owned(), false),
        ("k".repeat(65), String::new(), false),
        ("k".to_owned(), "v".repeat(257), false),
    ]);
    let labels = prop_oneof![
        4 => prop::collection::vec(label, 0..3),
        1 => Just((0..17).map(|n| (n.to_string(), String::new(), false)).collect()),
    ];
    check("authorize", &(names, kinds, counts, durations, labels, any::<bool>()), |service, case| {
        let (
            (caller, user, request_id, model),
            (operation, tier, view),
            (input, bytes, output, characters),
            (audio, wait),
            labels,
            dry,
        ) = case;
        let kept: std::collections::HashMap<String, (String, bool)> =
            labels.into_iter().map(|(key, value, good)| (key, (value, good))).collect();
        let caller_field = match &caller.0 {
            Some(authorize_request::Caller::Team(_)) => "team",
            Some(authorize_request::Caller::ApiKey(_)) => "api_key",
            None => "caller",
        };
        let bad = bad(&[
            (caller_field, caller.1),
            ("user", user.1),
            ("request_id", request_id.1),
            ("model", model.1),
            ("operation", operation.1),
            ("service_tier", tier.1),
            ("limit_view", view.1),
            ("input_tokens", input.1),
            ("input_bytes", bytes.1),
            ("max_output_tokens", output.1),
            ("character_count", characters.1),
            ("audio_duration", audio.1),
            ("max_wait", wait.1),
            ("labels", kept.values().all(|(_, good)| *good)),
        ]);
        let request = proto::AuthorizeRequest {
            caller: caller.0,
            user: user.0,
            request_id: request_id.0,
            model: model.0,
            operation: operation.0,
            service_tier: tier.0,
            input_tokens: input.0,
            input_bytes: bytes.0,
            max_output_tokens: output.0,
            audio_duration: audio.0,
            character_count: characters.0,
            max_wait: wait.0,
            dry_run: dry,
            labels: kept.into_iter().map(|(key, (value, _))| (key, value)).collect(),
            batch: None,
            tools: Vec::new(),
            limit_view: view.0,
        };
        names_just(service.answer(service.client().authorize(request))?, &bad)
    });
}
