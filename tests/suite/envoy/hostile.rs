//! Requests that nobody sends in good faith: each gets an answer, and what is let through is what another reader of the same
//! bytes would take it for.

use std::time::Duration;

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};
use prost_types::value::Kind;
use serde_json::Value;
use tollgate::rpc::envoy::service::{
    auth::v3::{
        CheckRequest, CheckResponse,
        attribute_context::{HttpRequest, http_request::HeadersEntry},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
    ext_proc::v3::{
        HttpBody, HttpHeaders, ProcessingRequest, external_processor_client::ExternalProcessorClient,
        processing_request::Request,
    },
};
use tonic::{Code, transport::Channel};

use super::{
    checks::{check, http},
    edge::{KEY, policy},
};
use crate::{
    differential::config,
    harness::{START, Server, StoreKind, connect},
};

/// How long a call may take on a busy machine.
const BOUND: Duration = Duration::from_secs(20);
/// Cases where the number is not given in the environment.
const CASES: u32 = 256;

struct Service {
    runtime: tokio::runtime::Runtime,
    server: Server,
    channel: Channel,
}

impl Service {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(StoreKind::Embedded, &policy(&[]), START));
        let channel = runtime.block_on(connect(server.address()));
        Self { runtime, server, channel }
    }

    fn check(&self, request: CheckRequest) -> Result<CheckResponse, tonic::Status> {
        let mut client = AuthorizationClient::new(self.channel.clone());
        let call = async { tokio::time::timeout(BOUND, client.check(request)).await };
        self.runtime.block_on(call).expect("no answer").map(tonic::Response::into_inner)
    }

    fn still_serves(self) {
        let bearer = format!("Bearer {KEY}");
        let body = serde_json::json!({"model": "openai/gpt-oss-20b", "max_tokens": 3});
        let answer = self.check(check("last", &[("authorization", &bearer)], &body)).unwrap();
        assert!(matches!(answer.http_response, Some(HttpResponse::OkResponse(_))), "{answer:?}");
        assert!(self.runtime.block_on(self.server.stop()));
    }
}

fn run<S: Strategy>(
    name: &str,
    strategy: &S,
    mut test: impl FnMut(&Service, S::Value) -> Result<(), TestCaseError>,
) {
    let service = Service::start();
    let tested = std::cell::RefCell::new(&mut test);
    let result = TestRunner::new(config(CASES, &format!("envoy-{name}.txt")))
        .run(strategy, |value| (tested.borrow_mut())(&service, value));
    if let Err(error) = result {
        panic!("{error}");
    }
    service.still_serves();
}

/// A piece of a body that another reader may take otherwise.
fn member() -> impl Strategy<Value = String> {
    let name = select(vec![
        "model",
        "Model",
        "mod\\u0065l",
        "max_tokens",
        "max_completion_tokens",
        "MAX_TOKENS",
        "n",
        "stream",
        "x",
    ]);
    let value = select(vec![
        "\"openai/gpt-oss-20b\"",
        "\"openai/gpt-oss-120b\"",
        "\"none\"",
        "5",
        "5000",
        "5.0",
        "5e3",
        "-1",
        "null",
        "true",
        "\"5\"",
        "[]",
        "{\"model\":\"openai/gpt-oss-120b\"}",
        "\"\\ud800\"",
    ]);
    (name, value).prop_map(|(name, value)| format!("\"{name}\":{value}"))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let object = prop::collection::vec(member(), 0..6).prop_map(|members| {
        format!("{{\"model\":\"openai/gpt-oss-20b\",{}}}", members.join(",")).replace(",}", "}").into_bytes()
    });
    let damage = prop::collection::vec((any::<Index>(), any::<u8>()), 0..3);
    (object, damage).prop_map(|(mut body, damage)| {
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body
    })
}

/// Of a name that comes twice, the last one counts.
fn set(http: &mut HttpRequest, name: &'static str, value: String) {
    http.headers.push(HeadersEntry { key: name.into(), value: value.into() });
}

/// What is let through is a document that every reader takes for the same: its model, and no more output than was granted.
#[test]
fn what_is_let_through_is_what_it_was_taken_for() {
    let mut id = 0;
    let mut let_through = 0;
    run("bodies", &body(), |service, body| {
        id += 1;
        let bearer = format!("Bearer {KEY}");
        let mut request = check(&id.to_string(), &[("authorization", &bearer)], &Value::Null);
        let http = http(&mut request);
        set(http, "content-length", body.len().to_string());
        set(http, "content-type", "application/json".to_owned());
        http.raw_body = body.clone().into();
        let answer = service.check(request).map_err(|status| TestCaseError::fail(format!("{status:?}")))?;
        let status = answer.status.as_ref().expect("a status").code;
        match answer.http_response.as_ref().expect("an answer") {
            HttpResponse::DeniedResponse(denied) => {
                prop_assert_ne!(status, 0);
                let code = denied.status.as_ref().expect("an HTTP status").code;
                prop_assert!((400..500).contains(&code), "{}: {}", code, denied.body);
                let told: Value = serde_json::from_str(&denied.body).expect("JSON");
                prop_assert!(told["error"]["message"].is_string());
            }
            HttpResponse::OkResponse(_) => {
                let_through += 1;
                prop_assert_eq!(status, 0);
                let read: Value = match serde_json::from_slice(&body) {
                    Ok(read) => read,
                    // Half a surrogate pair is valid JSON, and this reader takes none.
                    Err(error) if error.to_string().contains("hex escape") => return Ok(()),
                    Err(error) => panic!("what is let through is JSON: {error}"),
                };
                let told = answer.dynamic_metadata.expect("an admission");
                let Some(Kind::StringValue(told)) = &told.fields["tollgate"].kind else { panic!("{told:?}") };
                let told: Value = serde_json::from_str(told).expect("JSON");
                prop_assert_eq!(&read["model"], &told["model"]);
                let asked = ["max_tokens", "max_completion_tokens"].map(|name| read[name].as_u64());
                let asked = asked.into_iter().flatten().max().unwrap_or(2048).min(2048);
                let choices = read["n"].as_u64().unwrap_or(1);
                prop_assert_eq!(told["max_output_tokens"].as_u64(), Some(asked * choices));
            }
        }
        Ok(())
    });
    assert!(let_through > 0, "nothing was let through");
}

/// Any method, path and headers get an answer that says something.
#[test]
fn any_request_is_answered() {
    let paths = select(vec![
        "/openai/v1/chat/completions",
        "/openai/v1/audio/transcriptions",
        "/openai/v1/audio/speech",
        "/openai/v1/batches",
        "/openai/v1/models",
        "/openai/v1/files/x",
        "/",
        "",
        "*",
        "\u{0}",
    ]);
    let methods = select(vec!["POST", "GET", "DELETE", "CONNECT", "", "POST\n"]);
    let kinds = select(vec![
        "application/json",
        "multipart/form-data; boundary=X",
        "multipart/form-data; boundary=",
        "",
    ]);
    let strategy = (paths, methods, kinds, prop::collection::vec(any::<u8>(), 0..300), any::<bool>());
    let mut id = 0;
    run("requests", &strategy, |service, (path, method, kind, body, named)| {
        id += 1;
        let bearer = format!("Bearer {KEY}");
        let headers: &[(&str, &str)] = if named { &[("authorization", &bearer)] } else { &[] };
        let mut request = check(&format!("r{id}"), headers, &Value::Null);
        let http = http(&mut request);
        http.headers.retain(|header| header.key != "content-length");
        set(http, "content-type", kind.to_owned());
        (http.path, http.method) = (path.to_owned(), method.to_owned());
        http.raw_body = body.into();
        match service.check(request) {
            Ok(answer) => {
                let allowed = matches!(answer.http_response, Some(HttpResponse::OkResponse(_)));
                prop_assert_eq!(answer.status.expect("a status").code == 0, allowed);
                prop_assert!(!allowed || (named && path == "/openai/v1/models" && method == "GET"));
            }
            Err(status) => prop_assert_eq!(status.code(), Code::InvalidArgument),
        }
        Ok(())
    });
}

/// Any steps in any order end without harm.
#[test]
fn any_steps_are_followed() {
    let step = (0..6_u8, prop::collection::vec(any::<u8>(), 0..60), any::<bool>(), any::<bool>());
    run("steps", &prop::collection::vec(step, 0..8), |service, steps| {
        let messages: Vec<_> = steps
            .into_iter()
            .map(|(kind, bytes, end_of_stream, observability_mode)| {
                let body = HttpBody { body: bytes.into(), end_of_stream };
                let headers = HttpHeaders { end_of_stream, ..HttpHeaders::default() };
                let request = match kind {
                    0 => Some(Request::RequestHeaders(headers)),
                    1 => Some(Request::ResponseHeaders(headers)),
                    2 => Some(Request::RequestBody(body)),
                    3 => Some(Request::ResponseBody(body)),
                    4 => Some(Request::ResponseTrailers(Default::default())),
                    _ => None,
                };
                ProcessingRequest { request, observability_mode, ..ProcessingRequest::default() }
            })
            .collect();
        let waits = messages.iter().filter(|m| !m.observability_mode && m.request.is_some()).count();
        let mut client = ExternalProcessorClient::new(service.channel.clone());
        let call = async {
            let mut replies = client.process(tokio_stream::iter(messages)).await?.into_inner();
            let mut count = 0;
            while replies.message().await?.is_some() {
                count += 1;
            }
            Ok::<_, tonic::Status>(count)
        };
        let answered = service.runtime.block_on(async { tokio::time::timeout(BOUND, call).await });
        prop_assert_eq!(answered.expect("no end").expect("an error"), waits);
        Ok(())
    });
}
