//! `Check` as Envoy sends it for a chat request of an official SDK.

use prost::Message as _;
use tollgate::rpc::envoy::{
    config::core::v3::{Address, SocketAddress},
    service::auth::v3::{
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Peer, Request, http_request::HeadersEntry},
    },
};

use crate::support::{
    chat::chat_body,
    teams::{secret, team_name},
};

/// Placeholders in the template for the call's own values, with as many bytes.
const ID: &str = "################";
/// The same for a team.
const TEAM: &str = "team-%%%%%%";

/// Writes one call after another into the same message: only the team's key and the request's id differ.
pub(crate) struct Checks {
    message: Vec<u8>,
    /// Where the ids and the team are in it.
    ids: Vec<usize>,
    team: usize,
    next_id: u64,
}

impl Checks {
    /// `index` distinguishes connections.
    pub(crate) fn new(index: usize) -> Self {
        let message = template();
        let ids = places(&message, ID.as_bytes());
        let [team] = places(&message, TEAM.as_bytes())[..] else { panic!("one team in a request") };
        assert_eq!(ids.len(), 2, "Envoy's own id, and `x-request-id`");
        // Far more calls than any connection makes.
        Self { message, ids, team, next_id: u64::try_from(index).unwrap() << 40 }
    }

    /// The next call, for a team.
    pub(crate) fn next(&mut self, team: usize) -> &[u8] {
        let id = format!("{:016x}", self.next_id);
        self.next_id += 1;
        for place in &self.ids {
            self.message[*place..place + ID.len()].copy_from_slice(id.as_bytes());
        }
        let name = team_name(team);
        self.message[self.team..self.team + TEAM.len()].copy_from_slice(name.as_bytes());
        &self.message
    }
}

fn places(message: &[u8], text: &[u8]) -> Vec<usize> {
    let windows = message.windows(text.len()).enumerate();
    windows.filter(|(_, window)| *window == text).map(|(place, _)| place).collect()
}

fn template() -> Vec<u8> {
    let body = chat_body(false);
    let (length, authorization) = (body.len().to_string(), format!("Bearer {}", secret(TEAM)));
    // As long as the UUID that Envoy makes.
    let id = format!("3f0c1d52-7a77-4e4b-a{ID}");
    let headers = [
        (":authority", "127.0.0.1:10000"),
        (":method", "POST"),
        (":path", "/openai/v1/chat/completions"),
        (":scheme", "http"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("authorization", &authorization),
        ("content-length", &length),
        ("content-type", "application/json"),
        ("user-agent", "Groq/Python 1.7.0"),
        ("x-envoy-internal", "true"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", &id),
        ("x-stainless-arch", "x64"),
        ("x-stainless-async", "false"),
        ("x-stainless-lang", "python"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-package-version", "1.7.0"),
        ("x-stainless-read-timeout", "60"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.11.2"),
    ];
    let socket = SocketAddress { address: "127.0.0.1".into(), port_value: 41_234 };
    let http = HttpRequest {
        id: ID.into(),
        method: "POST".into(),
        path: "/openai/v1/chat/completions".into(),
        headers: headers
            .map(|(name, value)| HeadersEntry { key: name.into(), value: value.to_owned().into() })
            .into(),
        raw_body: body.into(),
        ..HttpRequest::default()
    };
    let check = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(Address { socket_address: Some(socket) }), ..Peer::default() }),
            request: Some(Request {
                time: Some(prost_types::Timestamp { seconds: 1_795_428_000, nanos: 123_456_789 }),
                http: Some(http),
            }),
            ..AttributeContext::default()
        }),
    };
    [check.encode_to_vec(), unread()].concat()
}

/// The other things that Envoy sends, which the service does not know: where the request arrived, and its size, host, scheme and
/// protocol once more. If a message comes twice, its fields are merged.
fn unread() -> Vec<u8> {
    let socket = [text(2, "127.0.0.1"), vec![3 << 3, 0x90, 0x4e]].concat();
    let destination = nested(2, nested(1, nested(1, socket)));
    let http = [text(5, "127.0.0.1:10000"), text(6, "http"), vec![9 << 3, 0xd8, 4], text(10, "HTTP/1.1")];
    let request = nested(4, nested(2, http.concat()));
    nested(1, [destination, request].concat())
}

fn text(field: u8, value: &str) -> Vec<u8> {
    nested(field, value.as_bytes().to_vec())
}

/// A field of bytes, fewer than 128.
fn nested(field: u8, bytes: Vec<u8>) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 128 && field < 16, "needs a second byte");
    [vec![field << 3 | 2, length], bytes].concat()
}
