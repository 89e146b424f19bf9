//! Whatever is sent, the server answers it cleanly: a decision, or a status that names what is wrong; and goes on serving.

use std::{collections::BTreeSet, time::Duration};

use bytes::{Buf as _, BufMut as _};
use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use prost_types::Duration as WireDuration;
use tollgate::rpc::proto::{
    self, authorize_request, policy_service_client::PolicyServiceClient, record_usage_request,
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_types::StatusExt as _;

use crate::{
    differential::config,
    harness::{START, Server, StoreKind, chat, connect},
};

const CASES: u32 = 1_000;
/// A call that takes longer hangs.
const BOUND: Duration = Duration::from_secs(20);
const MODEL: &str = "openai/gpt-oss-20b";
/// A report that Groq asked to wait is well-formed, and closes [`MODEL`]; nothing is reported of this one.
const OTHER_MODEL: &str = "openai/gpt-oss-120b";
const METHODS: [&str; 3] = ["Authorize", "RecordUsage", "GetSpend"];

const POLICY: &str = r#"
[organization]
id = "acme"
[teams.team]
models = ["openai/*"]
on_exceed = "clamp"
budget = { monthly_usd = "9000000", on_shortfall = "warn" }
requests_per_minute = 1000000000
tokens_per_minute = 9000000000000000
max_in_flight = 1000000000
[teams.team.per_user]
requests_per_day = 1000000000
"#;

/// Sends bytes as they are, and answers the bytes that came.
#[derive(Clone, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// A server, the runtime that talks to it, and a connection.
struct Service {
    runtime: tokio::runtime::Runtime,
    server: Server,
    channel: Channel,
}

impl Service {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(StoreKind::Embedded, POLICY, START));
        let channel = runtime.block_on(connect(server.address()));
        Self { runtime, server, channel }
    }

    fn client(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone())
    }

    /// Waits for an answer, but not for ever.
    fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<Result<T, Status>, TestCaseError> {
        let bounded = self.runtime.block_on(async { tokio::time::timeout(BOUND, call).await });
        let answer = bounded.map_err(|_| TestCaseError::fail(format!("no answer within {BOUND:?}")))?;
        Ok(answer.map(tonic::Response::into_inner))
    }

    fn send(&self, method: &str, bytes: Vec<u8>) -> Result<Result<Vec<u8>, Status>, TestCaseError> {
        let mut grpc = Grpc::new(self.channel.clone());
        let path = PathAndQuery::try_from(format!("/tollgate.v1.PolicyService/{method}")).unwrap();
        self.answer(async move {
            grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            grpc.unary(Request::new(bytes), path, Raw).await
        })
    }

    /// It still decides, on this connection and on a new one.
    fn still_serves(self) {
        let mut old = self.client();
        let decided = self.answer(old.authorize(chat("team", OTHER_MODEL, 1, 1))).unwrap().unwrap();
        assert_eq!(decided.decision(), proto::Decision::Allowed, "{:?}", decided.violations);
        let mut new = self.runtime.block_on(self.server.client());
        self.answer(new.get_spend(proto::GetSpendRequest::default())).unwrap().unwrap();
    }
}

/// The codes with which a request may be turned away. All others mean that something broke.
fn is_clean(status: &Status) -> Result<(), TestCaseError> {
    let of_undecodable = status.code() == Code::Internal && status.message().contains("failed to decode");
    let clean = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    );
    let too_large = status.code() == Code::ResourceExhausted
        && status.message().contains("larger than this service takes");
    let clean = clean || too_large;
    prop_assert!(clean || of_undecodable, "{:?}", status);
    for detail in ["panicked", "src/", ".rs:", "sqlite", "SQL"] {
        prop_assert!(!status.message().contains(detail), "shows internals: {:?}", status);
    }
    if status.code() == Code::InvalidArgument {
        prop_assert!(!fields_of(status).is_empty(), "names no field: {:?}", status);
    }
    Ok(())
}

fn fields_of(status: &Status) -> BTreeSet<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

fn check<S: Strategy>(
    name: &str,
    strategy: &S,
    mut test: impl FnMut(&Service, S::Value) -> Result<(), TestCaseError>,
) {
    let service = Service::start();
    let tested = std::cell::RefCell::new(&mut test);
    let result = TestRunner::new(config(CASES, &format!("bad-input-{name}.txt")))
        .run(strategy, |value| (tested.borrow_mut())(&service, value));
    if let Err(error) = result {
        panic!("{error}");
    }
    service.still_serves();
}

#[test]
fn any_bytes_are_answered() {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        // Tags of fields that exist, with whatever behind them.
        prop::collection::vec((1..=16_u8, 0..=5_u8, prop::collection::vec(any::<u8>(), 0..12)), 0..12)
            .prop_map(|fields| {
                fields
                    .into_iter()
                    .flat_map(|(field, kind, rest)| [vec![field << 3 | kind], rest].concat())
                    .collect()
            }),
        Just(vec![b'\x08'; 60_000]),
        Just(vec![b'\n'; 100_000]),
    ];
    check("bytes", &(select(&METHODS[..]), bytes), |service, (method, bytes)| {
        match service.send(method, bytes)? {
            Ok(_) => Ok(()),
            Err(status) => is_clean(&status),
        }
    });
}

#[test]
fn a_damaged_request_is_answered() {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    check("damaged", &(select(&METHODS[..]), damage, any::<bool>()), |service, (method, damage, cut)| {
        let mut bytes = sound(method);
        for (at, byte) in &damage {
            let at = at.index(bytes.len());
            if cut && byte % 2 == 0 {
                bytes.truncate(at.max(1));
            } else {
                bytes[at] = *byte;
            }
        }
        match service.send(method, bytes)? {
            Ok(_) => Ok(()),
            Err(status) => is_clean(&status),
        }
    });
}

/// A request that is answered with OK, as bytes.
fn sound(method: &str) -> Vec<u8> {
    use prost::Message as _;
    match method {
        "Authorize" => {
            let labels = [("trace".to_owned(), "abc".to_owned())].into();
            proto::AuthorizeRequest { user: "u".into(), labels, ..chat("team", MODEL, 100, 100) }
                .encode_to_vec()
        }
        "RecordUsage" => proto::RecordUsageRequest {
            caller: Some(record_usage_request::Caller::Team("team".into())),
            request_id: "some request".into(),
            model: MODEL.into(),
            operation: proto::Operation::ChatCompletion.into(),
            usage: Some(proto::Usage { input_tokens: 3, output_tokens: 4, ..Default::default() }),
            outcome: proto::Outcome::Completed.into(),
            ..Default::default()
        }
        .encode_to_vec(),
        _ => proto::GetSpendRequest { month: "2026-11".into(), page_size: 5, ..Default::default() }
            .encode_to_vec(),
    }
}

#[test]
fn what_is_damaged_was_sound() {
    let service = Service::start();
    for method in METHODS {
        assert!(service.send(method, sound(method)).unwrap().is_ok(), "{method}");
    }
}

/// A value and whether the contract permits it.
type Judged<T> = (T, bool);

fn count(most: i64) -> impl Strategy<Value = Judged<i64>> {
    select(vec![
        (0, true),
        (1, true),
        (most, true),
        (most + 1, false),
        (-1, false),
        (i64::MAX, false),
        (i64::MIN, false),
    ])
}

fn text(least: usize, most: usize, good: &'static str) -> impl Strategy<Value = Judged<String>> {
    let of = |n: usize| "x".repeat(n);
    let mut values = vec![(good.to_owned(), true); 6];
    values.extend([
        (String::new(), least == 0),
        (of(most), true),
        (of(most + 1), false),
        (of(9_000), false),
        ("é".repeat(most / 2), true),
        ("a\0b".to_owned(), false),
        ("a\nb".to_owned(), false),
        ("\u{1b}[31m".to_owned(), false),
        ("\u{85}".to_owned(), false),
        ("🦀 {}%s'\"\\ $(x) ../..".to_owned(), true),
        (format!("{good}*"), true),
    ]);
    select(values)
}

fn duration(most_seconds: i64) -> impl Strategy<Value = Judged<Option<WireDuration>>> {
    let of = |seconds, nanos| Some(WireDuration { seconds, nanos });
    select(vec![
        (None, true),
        (of(0, 0), true),
        (of(0, 1), true),
        (of(most_seconds, 0), true),
        (of(most_seconds, 1), false),
        (of(-1, 0), false),
        (of(0, -1), false),
        (of(i64::MAX, 999_999_999), false),
        (of(i64::MIN, -999_999_999), false),
        (of(i64::MAX, i32::MAX), false),
        (of(i64::MIN, i32::MIN), false),
    ])
}

/// An enum's value: those it has, and those it has not.
fn variant(last: i32, unspecified_is_good: bool) -> impl Strategy<Value = Judged<i32>> {
    prop_oneof![
        6 => (1..=last).prop_map(|value| (value, true)),
        1 => Just((0, unspecified_is_good)),
        1 => select(vec![(last + 1, false), (-1, false), (i32::MAX, false), (i32::MIN, false)]),
    ]
}

/// The fields that are not as the contract permits.
fn bad(judged: &[(&str, bool)]) -> BTreeSet<String> {
    judged.iter().filter(|(_, good)| !good).map(|(field, _)| (*field).to_owned()).collect()
}

/// With bad fields, `INVALID_ARGUMENT` that names just these; without, anything that is clean.
fn names_just<T>(answer: Result<T, Status>, bad: &BTreeSet<String>) -> Result<(), TestCaseError> {
    match answer {
        Ok(_) => prop_assert!(bad.is_empty(), "accepted in spite of {:?}", bad),
        Err(status) => {
            is_clean(&status)?;
            prop_assert_eq!(status.code() == Code::InvalidArgument, !bad.is_empty(), "{:?}", status);
            prop_assert_eq!(&fields_of(&status), bad);
        }
    }
    Ok(())
}

const TOKENS: i64 = 100_000_000;
const AUDIO_SECONDS: i64 = 100 * 3600;
/// The same of the largest batch.
const BATCH_TOKENS: i64 = 100_000_000_000;
const BATCH_AUDIO_SECONDS: i64 = 1_000_000 * 3600;

fn authorize_caller() -> impl Strategy<Value = Judged<Option<authorize_request::Caller>>> {
    use authorize_request::Caller;
    prop_oneof![
        4 => text(1, 128, "team").prop_map(|(team, good)| (Some(Caller::Team(team)), good)),
        1 => select(vec![(String::new(), false), ("k".repeat(512), true), ("k".repeat(513), false), ("\n".into(), true)])
            .prop_map(|(key, good)| (Some(Caller::ApiKey(key)), good)),
        1 => Just((None, false)),
    ]
}

#[test]
fn authorize_names_every_field_that_is_wrong() {
    let names = (authorize_caller(), text(0, 256, "user"), text(0, 128, ""), text(1, 256, MODEL));
    let kinds = (variant(7, false), variant(4, true));
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
            (operation, tier),
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
        };
        names_just(service.answer(service.client().authorize(request))?, &bad)
    });
}

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
        4 => text(1, 128, "team").prop_map(|(team, good)| (Some(Caller::Team(team)), "team", good)),
        1 => Just((Some(Caller::ApiKey(String::new())), "api_key", false)),
        1 => Just((None, "reservation_id", false)),
    ];
    let names = (caller, text(0, 256, "user"), text(1, 128, "id"), text(1, 256, MODEL));
    (names, variant(7, false), variant(4, true)).prop_map(
        |((caller, user, request_id, model), operation, tier)| {
            let judged = vec![
                (caller.1, caller.2),
                ("user", user.1),
                ("request_id", request_id.1),
                ("model", model.1),
                ("operation", operation.1),
                ("service_tier", tier.1),
            ];
            let request = proto::RecordUsageRequest {
                caller: caller.0,
                user: user.0,
                request_id: request_id.0,
                model: model.0,
                operation: operation.0,
                service_tier: tier.0,
                ..Default::default()
            };
            (request, judged)
        },
    )
}

#[test]
fn record_usage_names_every_field_that_is_wrong() {
    let reservation = select(vec![
        ("0".repeat(32), true),
        ("f".repeat(32), true),
        ("F".repeat(32), false),
        ("0".repeat(31), false),
        ("0".repeat(33), false),
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

#[test]
fn get_spend_names_every_field_that_is_wrong() {
    let month = select(vec![
        (String::new(), true),
        ("2026-11".to_owned(), true),
        ("2026-13".to_owned(), false),
        ("2026-00".to_owned(), false),
        ("2026-1".to_owned(), false),
        ("202611".to_owned(), false),
        ("-026-11".to_owned(), false),
        ("+026-11".to_owned(), false),
        ("99999999999-11".to_owned(), false),
        ("2026-11-01".to_owned(), false),
        ("٢٠٢٦-١١".to_owned(), false),
        ("x".repeat(9_000), false),
        ("\0".to_owned(), false),
    ]);
    // Only what an earlier answer gave continues a list.
    let token = select(
        ["", "", "team", "0", "\0", "\n", "🦀", "%"]
            .map(|token| (token.to_owned(), token.is_empty()))
            .to_vec(),
    );
    let page_size = select(vec![
        (0, true),
        (1, true),
        (1_000, true),
        (1_001, false),
        (-1, false),
        (i32::MAX, false),
        (i32::MIN, false),
    ]);
    check(
        "spend",
        &(text(0, 128, "team"), month, page_size, token),
        |service, (team, month, size, token)| {
            let bad =
                bad(&[("team", team.1), ("month", month.1), ("page_size", size.1), ("page_token", token.1)]);
            let request = proto::GetSpendRequest {
                team: team.0,
                month: month.0,
                page_size: size.0,
                page_token: token.0,
            };
            names_just(service.answer(service.client().get_spend(request))?, &bad)
        },
    );
}

/// A status travels in headers, which are small: what is wrong a hundred times is not said a hundred times.
#[test]
fn a_request_that_is_all_wrong_gets_an_answer_that_fits() {
    let service = Service::start();
    let tool = |tool: &str| proto::ToolUsage {
        tool: tool.to_owned(),
        call_count: -1,
        run_duration: Some(WireDuration { seconds: -1, nanos: 0 }),
    };
    for text in ["", "\n", "é\u{85}"] {
        let usage = proto::Usage {
            input_tokens: -1,
            cached_input_tokens: -1,
            output_tokens: -1,
            reasoning_tokens: -1,
            audio_duration: Some(WireDuration { seconds: -1, nanos: 0 }),
            character_count: -1,
            tool_calls: vec![tool(&text.repeat(50)); 100],
            request_count: -1,
        };
        let request = proto::RecordUsageRequest {
            outcome: i32::MIN,
            usage: Some(usage),
            user: text.repeat(3_000),
            operation: i32::MIN,
            service_tier: i32::MIN,
            ..Default::default()
        };
        let status = service.answer(service.client().record_usage(request)).unwrap().unwrap_err();
        is_clean(&status).unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(fields_of(&status).contains("outcome"), "{status:?}");
    }
    let labels = (0..300).map(|n| (format!("{n:065}"), "é".repeat(30))).collect();
    let request = proto::AuthorizeRequest { labels, ..chat("team", MODEL, 1, 1) };
    let status = service.answer(service.client().authorize(request)).unwrap().unwrap_err();
    assert_eq!(fields_of(&status), BTreeSet::from(["labels".to_owned()]));
    for month in ["x".repeat(60_000), "é".repeat(30_000), "`%\"\n".repeat(10_000)] {
        let request = proto::GetSpendRequest { month, ..Default::default() };
        let status = service.answer(service.client().get_spend(request)).unwrap().unwrap_err();
        assert_eq!(fields_of(&status), BTreeSet::from(["month".to_owned()]));
    }
    service.still_serves();
}

#[test]
fn unknown_methods_and_oversized_requests_are_turned_away() {
    let service = Service::start();
    for method in ["Nothing", "", "Authorize/x", "%00"] {
        let status = service.send(method, vec![]).unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");
    }
    let status = service.send("Authorize", vec![0; 5 << 20]).unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "MESSAGE_TOO_LARGE");
    service.still_serves();
}
