//! Virtual keys, from the one who makes them to the one who is refused: on both stores, over real gRPC.

mod processes;

use tollgate::{
    domain::Timestamp,
    rpc::{
        google_type::Money,
        proto::{
            self, AuthorizeResponse, CreateKeyRequest, KeyLimits, Reason, VirtualKey,
            key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
        },
    },
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::harness::{START, Server, StoreKind, chat, connect, errors::is_of};

const MODEL: &str = "m/text";
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "Asia/Kathmandu"
[teams.bot]
models = ["m/*"]
operations = ["chat_completion", "embedding"]
max_output_tokens = 4000
requests_per_minute = 60
tokens_per_minute = 100_000
budget = { monthly_usd = "10.00" }
[teams.bot.keys.bot-declared-one]
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[teams.other]
models = ["m/text"]
[teams.any]
models = ["*"]
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
[[prices]]
model = "m/other"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
"#;

/// Declares tests that run on both stores.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name(super::Service::start(super::StoreKind::Embedded).await).await; })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if !super::StoreKind::Redis.is_available() { return }
                super::$name(super::Service::start(super::StoreKind::Redis).await).await;
            })*
        }
    };
}

// After the macro, which they use.
mod contract;
mod declared;
mod limits;
mod secrets;

on_both! {
    only_the_version_that_was_read_is_changed
    names_are_given_once
    keys_come_in_pages_with_their_use
    the_day_of_uses_begins_where_the_organizations_does
}

struct Service {
    server: Server,
    keys: KeyServiceClient<Channel>,
    calls: PolicyServiceClient<Channel>,
}

impl Service {
    async fn start(store: StoreKind) -> Self {
        let server = Server::start(store, POLICY, START).await;
        let keys = KeyServiceClient::new(connect(server.address()).await);
        let calls = server.client().await;
        Self { server, keys, calls }
    }

    fn at(&self, ms: u64) {
        self.server.clock.set(START.plus(ms));
    }

    async fn create(&mut self, request: CreateKeyRequest) -> (VirtualKey, String) {
        let answer = self.keys.create_key(request).await.unwrap().into_inner();
        (answer.key.unwrap(), answer.secret)
    }

    async fn rotate(
        &mut self,
        name: &str,
        overlap_s: i64,
        force: bool,
    ) -> Result<(VirtualKey, String), Status> {
        let overlap = Some(prost_types::Duration { seconds: overlap_s, nanos: 0 });
        let request = proto::RotateKeyRequest { name: name.to_owned(), overlap, force };
        self.keys.rotate_key(request).await.map(|answer| {
            let answer = answer.into_inner();
            (answer.key.unwrap(), answer.secret)
        })
    }

    async fn revoke(&mut self, name: &str) -> Result<VirtualKey, Status> {
        let request = proto::RevokeKeyRequest { name: name.to_owned() };
        self.keys.revoke_key(request).await.map(|answer| answer.into_inner().key.unwrap())
    }

    async fn revoke_secret(
        &mut self,
        name: &str,
        secret_id: &str,
        force: bool,
    ) -> Result<VirtualKey, Status> {
        let (name, secret_id) = (name.to_owned(), secret_id.to_owned());
        let request = proto::RevokeKeySecretRequest { name, secret_id, force };
        self.keys.revoke_key_secret(request).await.map(|answer| answer.into_inner().key.unwrap())
    }

    async fn get(&mut self, name: &str) -> VirtualKey {
        let request = proto::GetKeyRequest { name: name.to_owned(), ..Default::default() };
        self.keys.get_key(request).await.unwrap().into_inner().key.unwrap()
    }

    async fn update(&mut self, key: VirtualKey, paths: &[&str]) -> Result<VirtualKey, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = proto::UpdateKeyRequest { key: Some(key), update_mask, ..Default::default() };
        self.keys.update_key(request).await.map(|answer| answer.into_inner().key.unwrap())
    }

    async fn ask(&mut self, secret: &str) -> AuthorizeResponse {
        self.calls.authorize(by_key(secret)).await.unwrap().into_inner()
    }

    /// Why the key is refused; empty: it is not.
    async fn reasons(&mut self, secret: &str) -> Vec<Reason> {
        self.ask(secret).await.violations.iter().map(proto::Violation::reason).collect()
    }
}

fn by_key(secret: &str) -> proto::AuthorizeRequest {
    let caller = Some(proto::authorize_request::Caller::ApiKey(secret.to_owned()));
    proto::AuthorizeRequest { caller, ..chat("", MODEL, 100, 100) }
}

fn key(name: &str, limits: KeyLimits) -> CreateKeyRequest {
    let team = name.split('-').next().unwrap().to_owned();
    let key = VirtualKey { name: name.to_owned(), team, limits: Some(limits), ..Default::default() };
    CreateKeyRequest { key: Some(key), ..Default::default() }
}

/// The request to create another key than `request`'s.
fn altered(mut request: CreateKeyRequest, change: impl FnOnce(&mut VirtualKey)) -> CreateKeyRequest {
    change(request.key.as_mut().unwrap());
    request
}

fn instant(at: Timestamp) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(at.0 % 1000).unwrap() * 1_000_000;
    Some(prost_types::Timestamp { seconds: i64::try_from(at.0 / 1000).unwrap(), nanos })
}

fn dollars(units: i64) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), units, nanos: 0 })
}

/// The fields that an error names.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    details.bad_request().unwrap().field_violations.iter().map(|violation| violation.field.clone()).collect()
}

fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    is_of(&status, reason);
}

async fn only_the_version_that_was_read_is_changed(mut s: Service) {
    let (made, _) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let limits = Some(KeyLimits { requests_per_minute: Some(5), ..Default::default() });
    let changed =
        s.update(VirtualKey { limits, ..made.clone() }, &["limits.requests_per_minute"]).await.unwrap();
    assert_ne!(changed.etag, made.etag);
    is_refused(s.update(made.clone(), &["labels"]).await, Code::Aborted, "KEY_CHANGED");
    // What no answer said is as good as an old one.
    for etag in ["7", "AQAAAAAAAAA", "ÄÄÄÄÄÄ"] {
        let key = VirtualKey { etag: etag.to_owned(), ..made.clone() };
        is_refused(s.update(key, &["labels"]).await, Code::Aborted, "KEY_CHANGED");
    }
    let same = s.update(VirtualKey { etag: String::new(), ..made.clone() }, &["labels"]).await.unwrap();
    assert_eq!(same.limits.unwrap().requests_per_minute, Some(5));
    for paths in [&[][..], &["name"], &["limits.requests_per_week"], &["labels"; 33]] {
        let key = VirtualKey { etag: String::new(), ..made.clone() };
        assert_eq!(fields(&s.update(key, paths).await.unwrap_err()), ["update_mask"]);
    }
    let named = VirtualKey { name: "bot-prod-none".to_owned(), ..Default::default() };
    is_refused(s.update(named, &["labels"]).await, Code::NotFound, "UNKNOWN_KEY");
}

async fn names_are_given_once(mut s: Service) {
    s.create(key("bot-prod-web", KeyLimits::default())).await;
    for name in ["bot-prod-web", "bot-declared-one"] {
        let again = s.keys.create_key(key(name, KeyLimits::default())).await;
        is_refused(again, Code::AlreadyExists, "KEY_EXISTS");
    }
    is_refused(s.rotate("bot-prod-none", 1, false).await, Code::NotFound, "UNKNOWN_KEY");
    is_refused(s.revoke("bot-prod-none").await, Code::NotFound, "UNKNOWN_KEY");
    // All at once: one of them gets it.
    let create = || {
        let mut keys = s.keys.clone();
        async move { keys.create_key(key("bot-prod-once", KeyLimits::default())).await }
    };
    let answers = crate::conformance::join_all((0..8).map(|_| create())).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
}

async fn keys_come_in_pages_with_their_use(mut s: Service) {
    for name in ["bot-prod-c", "bot-prod-a", "other-prod-b", "bot-prod-d"] {
        s.create(key(name, KeyLimits::default())).await;
    }
    let ask = |team: &str, page_size, page_token: &str| proto::ListKeysRequest {
        team: team.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let names = |page: &proto::ListKeysResponse| {
        page.keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let first = s.keys.list_keys(ask("bot", 3, "")).await.unwrap().into_inner();
    assert_eq!(names(&first), "bot-declared-one bot-prod-a bot-prod-c");
    let second = s.keys.list_keys(ask("bot", 3, &first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((names(&second).as_str(), second.next_page_token.as_str()), ("bot-prod-d", ""));
    let all = s.keys.list_keys(ask("", 0, "")).await.unwrap().into_inner();
    assert_eq!(names(&all), "bot-declared-one bot-prod-a bot-prod-c bot-prod-d other-prod-b");
    assert_eq!(fields(&s.keys.list_keys(ask("", -1, "")).await.unwrap_err()), ["page_size"]);
    // A token of this list, and of this day.
    let token = first.next_page_token.as_str();
    for (after, team, token, words) in [
        (0, "", "x", "`page_token`: malformed: "),
        (0, "bot", &token[1..], "`page_token`: malformed: "),
        (0, "", token, "`page_token`: of another request: "),
        (DAY + 1, "bot", token, "`page_token`: expired: "),
    ] {
        s.at(after);
        let status = s.keys.list_keys(ask(team, 0, token)).await.unwrap_err();
        assert_eq!(fields(&status), ["page_token"]);
        assert!(status.message().starts_with(words), "{status:?}");
        is_refused::<()>(Err(status), Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    }
    // Where something else is wrong as well, all of it is named.
    let status = s.keys.list_keys(ask("bot", -1, "x")).await.unwrap_err();
    assert_eq!(fields(&status), ["page_size", "page_token"]);
    is_refused::<()>(Err(status), Code::InvalidArgument, "INVALID_REQUEST");
    s.at(DAY);
    let last = s.keys.list_keys(ask("bot", 1, token)).await.unwrap().into_inner();
    assert_eq!(names(&last), "bot-prod-d");
}

/// In Nepal a day begins a quarter of an hour before a full hour of UTC.
async fn the_day_of_uses_begins_where_the_organizations_does(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    // 18:14:59.999 and 18:15 UTC; the test begins at 10:00.
    let midnight = 8 * HOUR + HOUR / 4;
    s.at(midnight - 1);
    s.ask(&secret).await;
    s.ask(&secret).await;
    let shown = s.get("bot-prod-web").await;
    assert_eq!((shown.secrets[0].requests_today, shown.secrets[0].requests_last_24_hours), (2, 2));
    s.at(midnight);
    let shown = s.get("bot-prod-web").await;
    assert_eq!((shown.secrets[0].requests_today, shown.secrets[0].requests_last_24_hours), (0, 2));
    s.ask(&secret).await;
    s.at(midnight + DAY);
    let shown = s.get("bot-prod-web").await;
    assert_eq!((shown.secrets[0].requests_today, shown.secrets[0].requests_last_24_hours), (0, 1));
    assert_eq!(shown.secrets[0].last_use_time, instant(START.plus(midnight)));
}
