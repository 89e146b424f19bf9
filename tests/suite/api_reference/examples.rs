//! One request and its answer for each RPC, in `examples.json`, played in their order against a server.

use std::{
    collections::HashMap,
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};

use tollgate::{
    domain::Timestamp,
    settings::{ReceiverKind, ReceiverSettings, ReceiverUrl},
    store::{OUTBOX_KEPT, Outbox as _, OutboxEntry, PolicyRecord, PolicyRecords as _},
};

use crate::{
    alerts::receiver::{Answer, Receiver},
    bad_input::raw::Raw,
    harness::{Fixture, Server, Ways, connect},
    reference::WRITE,
};

/// When a list shows what was done before, at the latest, and the time between two looks at it.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// One RPC, asked once.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Example {
    /// `Service/Method`.
    pub(super) rpc: String,
    pub(super) request: Value,
    /// As the server answered when the example was written.
    pub(super) answer: Value,
    /// The names of fields in the answer that differ from one run to the next. What a later request repeats of them is
    /// replaced by what this run was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) varies: Vec<String>,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/api_reference/examples.json")
}

pub(super) fn read() -> Vec<Example> {
    serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap()
}

/// `value` with each text that `given` has replaced.
fn replaced(value: &Value, given: &HashMap<String, String>) -> Value {
    match value {
        Value::String(text) => Value::String(given.get(text).unwrap_or(text).clone()),
        Value::Array(items) => items.iter().map(|item| replaced(item, given)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), replaced(value, given))).collect())
        }
        other => other.clone(),
    }
}

/// Whether `found` is what `written` shows. What `varies` is only of the same kind, and is kept in `given` by what was written.
fn is_as_written(
    written: &Value,
    found: &Value,
    varies: &[String],
    is_varying: bool,
    given: &mut HashMap<String, String>,
) -> bool {
    match (written, found) {
        (Value::String(written), Value::String(found)) if is_varying => {
            given.insert(written.clone(), found.clone());
            true
        }
        (Value::Array(_), Value::Array(_)) if is_varying => true,
        (Value::Number(_), Value::Number(_)) if is_varying => true,
        (Value::Array(left), Value::Array(right)) => {
            let mut pairs = left.iter().zip(right);
            left.len() == right.len()
                && pairs.all(|(left, right)| is_as_written(left, right, varies, false, given))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| {
                    let is_varying = is_varying || varies.contains(name);
                    right.get(name).is_some_and(|right| is_as_written(left, right, varies, is_varying, given))
                })
        }
        (left, right) => left == right,
    }
}

/// Asks; of a stream, for its first message, which `then` is asked for to bring about.
async fn ask(
    channel: &Channel,
    pool: &DescriptorPool,
    (rpc, request): (&str, &Value),
    then: Option<(&str, &Value)>,
) -> Result<Value, Status> {
    let (service, method) = rpc.split_once('/').unwrap();
    let service = pool.get_service_by_name(&format!("tollgate.v1.{service}")).unwrap();
    let method = service.methods().find(|known| known.name() == method).unwrap();
    let message = DynamicMessage::deserialize(method.input(), request).unwrap();
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/tollgate.v1.{rpc}")).unwrap();
    let request = Request::new(message.encode_to_vec());
    let answer = match method.is_server_streaming() {
        false => grpc.unary(request, path, Raw).await?.into_inner(),
        true => {
            let mut messages = grpc.server_streaming(request, path, Raw).await?.into_inner();
            Box::pin(ask(channel, pool, then.unwrap(), None)).await?;
            messages.message().await?.unwrap()
        }
    };
    let answer = DynamicMessage::decode(method.output(), answer.as_slice()).unwrap();
    let options = SerializeOptions::new().skip_default_fields(true);
    Ok(answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
}

/// The RPC whose decisions a stream shows.
const AUTHORIZE: &str = "PolicyService/Authorize";

/// An alert, and its delivery to the one receiver, as they are kept.
const KEPT: [(&str, u8, &str); 2] = [
    (
        "01a207d836a00b0c0d0e0f100000_open",
        2,
        r#"{"alert":{"id":"01a207d836a00b0c0d0e0f100000","kind":"ALERT_KIND_BUDGET_THRESHOLD","severity":"SEVERITY_WARNING","state":"ALERT_STATE_OPEN","team":"chatbot","limitId":"teams.chatbot.budget.monthly_usd","createTime":"2026-11-23T09:59:00Z","summary":"chatbot has spent 80% of its monthly budget: $160.00 of $200.00","budget":{"threshold":"80%","amount":{"currencyCode":"USD","units":"160"},"spent":{"currencyCode":"USD","units":"160"},"budget":{"currencyCode":"USD","units":"200"}},"organization":"acme"}}"#,
    ),
    (
        "01a207d836a00b0c0d0e0f100000_open/ops",
        3,
        r#"{"state":"failing","since":1795427940000,"attempts":3,"sends":3,"last_attempt":1795427947000,"next_attempt":1795427955000,"error":"answered 503"}"#,
    ),
];

/// A policy that was in force, as it is recorded.
const RECORDED: &str = r#"{"v":1,"source":"file change","previous":"91b1bb17a1d20f33","changes":[{"path":"teams.chatbot.requests_per_minute","before":60,"after":90}],"left_out":0,"format":"toml","document":true}"#;

/// A server with an alert, a policy on record, and with a receiver that takes tests.
async fn start() -> Server {
    let policy = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/policy.toml");
    let policy = fs::read_to_string(policy).unwrap();
    let fixture = Fixture::embedded();
    let entries = KEPT.map(|(id, version, json)| {
        let payload = [&[version], json.as_bytes()].concat().into();
        OutboxEntry { id: id.parse().unwrap(), payload }
    });
    fixture.store.outbox_append(entries.to_vec(), OUTBOX_KEPT).await.unwrap();
    let record = PolicyRecord {
        revision: "5e9fedb300e80eb4".into(),
        at: Timestamp(1_795_427_940_000),
        replica: "gate-1:4242:9f3a01bc".into(),
        value: RECORDED.into(),
        document: Some("[organization]\nid = \"acme\"\n\n[teams.chatbot]\nrequests_per_minute = 90\n".into()),
    };
    fixture.store.record_policy(record).await.unwrap();
    let receiver = Receiver::start(Answer::Status(200)).await;
    let receiver = ReceiverSettings {
        name: "ops".to_owned(),
        kind: ReceiverKind::Webhook,
        url: ReceiverUrl::Here(format!("http://{}/in", receiver.address)),
        secret_files: Vec::new(),
        tls_ca_file: None,
        timeout: Duration::from_secs(10),
        retry_for: Duration::from_secs(86_400),
        allow_private: true,
    };
    Server::start_in(fixture, &policy, Ways { receivers: vec![receiver], ..Ways::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_example_is_answered_as_it_says() {
    let server = start().await;
    let channel = connect(server.address()).await;
    let pool = DescriptorPool::decode(tollgate::rpc::DESCRIPTORS).unwrap();
    let (mut examples, mut given, mut stale) = (read(), HashMap::new(), Vec::new());
    // What is denied may be asked for any number of times.
    let mut denied = None;
    for example in &mut examples {
        let request = replaced(&example.request, &given);
        if example.rpc == AUTHORIZE && example.answer["decision"] == "DECISION_DENIED" {
            denied = Some(request.clone());
        }
        let until = Instant::now() + SHOWN_WITHIN;
        let answer = loop {
            let then = denied.as_ref().map(|request| (AUTHORIZE, request));
            let answer = match ask(&channel, &pool, (&example.rpc, &request), then).await {
                Ok(answer) => answer,
                Err(status) => {
                    stale.push(format!("{}: {status:?}", example.rpc));
                    break None;
                }
            };
            let is_right = is_as_written(&example.answer, &answer, &example.varies, false, &mut given);
            // What was just done is in a list a moment later: the audit log is written behind the answer, and denials every 5 seconds.
            let comes_later = ["/List", "/QueryDenials"].iter().any(|name| example.rpc.contains(name));
            let may_come = comes_later && Instant::now() < until;
            if is_right || !may_come {
                break (!is_right).then_some(answer);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        if let Some(answer) = answer {
            stale.push(format!("{}: {answer:#}", example.rpc));
            example.answer = answer;
        }
    }
    if env::var_os(WRITE).is_some() {
        fs::write(path(), serde_json::to_string_pretty(&examples).unwrap() + "\n").unwrap();
    }
    assert!(
        stale.is_empty(),
        "examples.json is not what is answered; run with {WRITE}=1\n{}",
        stale.join("\n")
    );
}
