//! Whatever is sent, the server answers it cleanly: a decision, or a status that names what is wrong; and goes on serving.

mod authorize;
pub(crate) mod raw;
mod record_usage;
mod spend;
mod values;

use std::{collections::BTreeSet, time::Duration};

use proptest::{prelude::*, sample::select, test_runner::TestRunner};
use prost_types::Duration as WireDuration;
use raw::Raw;
use tollgate::rpc::{
    ERROR_DOMAIN,
    proto::{self, policy_service_client::PolicyServiceClient, record_usage_request},
};
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    differential::config,
    harness::{START, Server, StoreKind, chat, connect, errors::is_of},
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
    prop_assert!(clean || too_large, "{:?}", status);
    let domain = status.get_error_details().error_info().map(|info| info.domain.clone());
    prop_assert_eq!(domain.as_deref(), Some(ERROR_DOMAIN), "{:?}", status);
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
    is_of(&status, "MESSAGE_TOO_LARGE");
    service.still_serves();
}
