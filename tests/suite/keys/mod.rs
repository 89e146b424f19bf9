//! Virtual keys, from the one who makes them to the one who is refused: on both stores, over real gRPC.

mod processes;

use tollgate::{
    domain::Timestamp,
    rpc::{
        google_type::Money,
        proto::{
            self, AuthorizeResponse, CreateKeyRequest, Decision, Key, KeyLimits, KeyOrigin, KeyState, Reason,
            key_service_client::KeyServiceClient, policy_service_client::PolicyServiceClient,
        },
    },
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::harness::{START, Server, StoreKind, chat, connect, nanos, used};

const MODEL: &str = "m/text";
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

const POLICY: &str = r#"
[organization]
id = "acme"
time_zone = "Asia/Kathmandu"
[teams.bot]
models = ["m/*"]
operations = ["chat", "embeddings"]
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

// After the macro, which it uses.
mod declared;

on_both! {
    a_created_key_works_at_once_and_within_its_limits
    a_budget_set_later_knows_what_the_key_has_spent
    an_overlap_ends_at_the_millisecond
    a_revoked_key_is_refused_for_ever
    an_expiry_can_be_moved
    what_would_widen_the_team_is_refused_by_field
    what_is_in_use_ends_only_by_force
    a_change_of_the_policy_holds_for_created_keys
    only_the_version_that_was_read_is_changed
    names_are_given_once
    keys_come_in_pages_with_their_use
    typos_and_guesses_are_refused
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

    async fn create(&mut self, request: CreateKeyRequest) -> (Key, String) {
        let answer = self.keys.create_key(request).await.unwrap().into_inner();
        (answer.key.unwrap(), answer.secret)
    }

    async fn rotate(&mut self, name: &str, overlap_s: i64, force: bool) -> Result<(Key, String), Status> {
        let overlap = Some(prost_types::Duration { seconds: overlap_s, nanos: 0 });
        let request = proto::RotateKeyRequest { name: name.to_owned(), overlap, force };
        self.keys.rotate_key(request).await.map(|answer| {
            let answer = answer.into_inner();
            (answer.key.unwrap(), answer.secret)
        })
    }

    async fn revoke(&mut self, name: &str, secret_id: &str, force: bool) -> Result<Key, Status> {
        let (name, secret_id) = (name.to_owned(), secret_id.to_owned());
        let request = proto::RevokeKeyRequest { name, secret_id, force };
        self.keys.revoke_key(request).await.map(|answer| answer.into_inner().key.unwrap())
    }

    async fn get(&mut self, name: &str) -> Key {
        let request = proto::GetKeyRequest { name: name.to_owned(), ..Default::default() };
        self.keys.get_key(request).await.unwrap().into_inner().key.unwrap()
    }

    async fn update(&mut self, key: Key, paths: &[&str]) -> Result<Key, Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = proto::UpdateKeyRequest { key: Some(key), update_mask };
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
    CreateKeyRequest { name: name.to_owned(), team, limits: Some(limits), ..Default::default() }
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
    let details = status.get_error_details();
    let given = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    assert_eq!((status.code(), given.as_str()), (code, reason), "{status:?}");
}

async fn a_created_key_works_at_once_and_within_its_limits(mut s: Service) {
    let limits = KeyLimits {
        models: vec![MODEL.to_owned()],
        requests_per_minute: Some(2),
        max_output_tokens: Some(500),
        monthly_budget: dollars(1),
        ..Default::default()
    };
    let (made, secret) = s.create(key("bot-prod-web", limits.clone())).await;
    assert_eq!((made.state(), made.limits), (KeyState::Active, Some(limits)));
    assert!(secret.starts_with("tgk_") && secret.len() == 53);
    let answer = s.ask(&secret).await;
    assert_eq!(answer.decision(), Decision::Allowed);
    let ids: Vec<&str> = answer.limits.iter().map(|limit| limit.limit_id.as_str()).collect();
    for id in ["requests_per_minute", "budget.monthly_usd"] {
        assert!(ids.contains(&format!("teams.bot.keys.bot-prod-web.{id}").as_str()), "{ids:?}");
    }
    s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap();
    // The team may use it, the key may not.
    let other = proto::AuthorizeRequest { model: "m/other".to_owned(), ..by_key(&secret) };
    let answer = s.calls.authorize(other).await.unwrap().into_inner();
    assert_eq!(answer.violations[0].reason(), Reason::ModelNotAllowed);
    assert_eq!(answer.violations[0].limit_id, "teams.bot.keys.bot-prod-web.models");
    let more = proto::AuthorizeRequest { max_output_tokens: 501, ..by_key(&secret) };
    let answer = s.calls.authorize(more).await.unwrap().into_inner();
    assert_eq!(answer.violations[0].reason(), Reason::MaxOutputTokensExceeded);
    assert_eq!(s.reasons(&secret).await, []);
    let answer = s.ask(&secret).await;
    assert_eq!(answer.violations[0].reason(), Reason::RequestRateExceeded);
    assert_eq!(answer.violations[0].limit_id, "teams.bot.keys.bot-prod-web.requests_per_minute");
    // Declared keys go on beside it, whatever their secrets look like.
    assert_eq!(s.reasons("abc").await, []);
    let shown = s.get("bot-prod-web").await;
    assert_eq!(shown.secrets[0].requests_today, 5);
    assert_eq!(shown.secrets[0].last_use_time, instant(START));
    let usage = shown.usage.unwrap();
    assert_eq!((usage.requests_today, usage.tokens_today, usage.top_model.as_str()), (1, 150, MODEL));
    assert_eq!((nanos(usage.cost_today), nanos(usage.cost_this_month)), (150, 150));
}

async fn a_budget_set_later_knows_what_the_key_has_spent(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let answer = s.ask(&secret).await;
    s.calls.record_usage(used(&answer.reservation_id, 100, 50)).await.unwrap();
    let mut changed = s.get("bot-prod-web").await;
    let budget = Money { currency_code: "USD".to_owned(), units: 0, nanos: 300 };
    changed.limits.get_or_insert_default().monthly_budget = Some(budget);
    let changed = s.update(changed, &["limits"]).await.unwrap();
    assert_eq!(nanos(changed.usage.unwrap().cost_this_month), 150);
    let answer = s.ask(&secret).await;
    assert_eq!(answer.violations[0].reason(), Reason::KeyBudgetExhausted, "{answer:?}");
    assert_eq!((answer.violations[0].used, answer.violations[0].limit), (150, 300));
}

async fn an_overlap_ends_at_the_millisecond(mut s: Service) {
    let (_, old) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let (rotated, new) = s.rotate("bot-prod-web", 3600, false).await.unwrap();
    assert_ne!(old, new);
    let live: Vec<bool> = rotated.secrets.iter().map(|secret| secret.live).collect();
    assert_eq!(live, [true, true]);
    assert_eq!(rotated.secrets[0].end_time, instant(START.plus(HOUR)));
    for at in [0, 1, HOUR - 1] {
        s.at(at);
        assert_eq!((s.reasons(&old).await, s.reasons(&new).await), (vec![], vec![]), "{at}");
    }
    s.at(HOUR);
    assert_eq!((s.reasons(&old).await, s.reasons(&new).await), (vec![Reason::KeyExpired], vec![]));
    assert!(s.ask(&old).await.violations[0].message.contains("has ended; use the newer one"));
    s.at(HOUR - 1);
    assert_eq!(s.reasons(&old).await, []);
}

async fn a_revoked_key_is_refused_for_ever(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let held = s.ask(&secret).await;
    let revoked = s.revoke("bot-prod-web", "", false).await.unwrap();
    assert_eq!((revoked.state(), revoked.revoke_time), (KeyState::Revoked, instant(START)));
    assert_eq!(s.reasons(&secret).await, [Reason::KeyRevoked]);
    // What it was permitted before is still booked.
    s.calls.record_usage(used(&held.reservation_id, 10, 10)).await.unwrap();
    let unreserved = proto::RecordUsageRequest {
        reservation_id: String::new(),
        caller: Some(proto::record_usage_request::Caller::ApiKey(secret.clone())),
        request_id: "late".to_owned(),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        ..used("", 10, 10)
    };
    s.calls.record_usage(unreserved).await.unwrap();
    assert_eq!(s.get("bot-prod-web").await.usage.unwrap().requests_today, 2);
    // Again changes nothing, and nothing brings it back.
    s.at(5);
    assert_eq!(s.revoke("bot-prod-web", "", false).await.unwrap().revoke_time, instant(START));
    is_refused(s.rotate("bot-prod-web", 0, true).await, Code::FailedPrecondition, "KEY_REVOKED");
    let late = Key { name: "bot-prod-web".to_owned(), ..Default::default() };
    is_refused(s.update(late, &["expire_time"]).await, Code::FailedPrecondition, "KEY_REVOKED");
    is_refused(
        s.keys.create_key(key("bot-prod-web", KeyLimits::default())).await,
        Code::AlreadyExists,
        "KEY_EXISTS",
    );
    assert_eq!(s.reasons(&secret).await, [Reason::KeyRevoked]);
}

async fn an_expiry_can_be_moved(mut s: Service) {
    let expire_time = instant(START.plus(HOUR));
    let (made, secret) =
        s.create(CreateKeyRequest { expire_time, ..key("bot-prod-web", KeyLimits::default()) }).await;
    s.at(HOUR - 1);
    assert_eq!(s.reasons(&secret).await, []);
    s.at(HOUR);
    assert_eq!(s.reasons(&secret).await, [Reason::KeyExpired]);
    assert_eq!(s.get("bot-prod-web").await.state(), KeyState::Expired);
    let status = s.update(made.clone(), &["expire_time"]).await.unwrap_err();
    assert_eq!(fields(&status), ["expire_time"]);
    let later = Key { expire_time: instant(START.plus(2 * HOUR)), ..made.clone() };
    s.update(later, &["expire_time"]).await.unwrap();
    assert_eq!(s.reasons(&secret).await, []);
    let never = Key { expire_time: None, etag: String::new(), ..made };
    assert_eq!(s.update(never, &["expire_time"]).await.unwrap().expire_time, None);
    s.at(40 * DAY);
    assert_eq!(s.reasons(&secret).await, []);
}

async fn what_would_widen_the_team_is_refused_by_field(mut s: Service) {
    let limits = || KeyLimits::default();
    let wide = [
        (KeyLimits { models: vec!["*".to_owned()], ..limits() }, "limits.models"),
        (KeyLimits { models: vec!["not a model".to_owned()], ..limits() }, "limits.models"),
        (KeyLimits { operations: vec![proto::Operation::Speech.into()], ..limits() }, "limits.operations"),
        (KeyLimits { operations: vec![0], ..limits() }, "limits.operations"),
        (KeyLimits { requests_per_minute: Some(61), ..limits() }, "limits.requests_per_minute"),
        (KeyLimits { requests_per_minute: Some(-1), ..limits() }, "limits.requests_per_minute"),
        (KeyLimits { tokens_per_minute: Some(100_001), ..limits() }, "limits.tokens_per_minute"),
        (KeyLimits { max_output_tokens: Some(4_001), ..limits() }, "limits.max_output_tokens"),
        (KeyLimits { monthly_budget: dollars(11), ..limits() }, "limits.monthly_budget"),
        (KeyLimits { monthly_budget: dollars(-1), ..limits() }, "limits.monthly_budget"),
        (KeyLimits { monthly_budget: dollars(i64::MAX), ..limits() }, "limits.monthly_budget"),
    ];
    let (made, _) = s.create(key("bot-test-one", limits())).await;
    for (limits, field) in wide {
        let status = s.keys.create_key(key("bot-prod-web", limits.clone())).await.unwrap_err();
        assert_eq!(fields(&status), [field], "{limits:?}");
        let changed = Key { limits: Some(limits.clone()), ..made.clone() };
        assert_eq!(fields(&s.update(changed, &[field]).await.unwrap_err()), [field], "{limits:?}");
    }
    for (request, field) in [
        (CreateKeyRequest { team: "nobody".to_owned(), ..key("nobody-prod-web", limits()) }, "team"),
        (CreateKeyRequest { team: "other".to_owned(), ..key("bot-prod-web", limits()) }, "name"),
        (key("bot-prod", limits()), "name"),
        (CreateKeyRequest { expire_time: instant(START), ..key("bot-prod-web", limits()) }, "expire_time"),
        (
            CreateKeyRequest {
                labels: [(String::new(), String::new())].into(),
                ..key("bot-prod-web", limits())
            },
            "labels",
        ),
    ] {
        assert_eq!(fields(&s.keys.create_key(request).await.unwrap_err()), [field]);
    }
    // A team that may use every model may name none that is not there but for its case.
    let of_any = |name: &str, limits| CreateKeyRequest { team: "any".to_owned(), ..key(name, limits) };
    let (made, _) = s.create(of_any("any-test-one", limits())).await;
    for (model, fix) in [("M/text", "write `m/text`"), ("M/*", "write `m/*`")] {
        let limits = KeyLimits { models: vec![model.to_owned()], ..limits() };
        let status = s.keys.create_key(of_any("any-prod-web", limits.clone())).await.unwrap_err();
        assert_eq!(fields(&status), ["limits.models"]);
        assert!(status.message().contains(fix), "{}", status.message());
        let changed = Key { limits: Some(limits), ..made.clone() };
        let status = s.update(changed, &["limits.models"]).await.unwrap_err();
        assert_eq!(fields(&status), ["limits.models"]);
    }
    let list = s.keys.list_keys(proto::ListKeysRequest::default()).await.unwrap().into_inner();
    let created = list.keys.iter().filter(|key| key.origin() == KeyOrigin::Created);
    assert_eq!(created.count(), 2);
}

async fn what_is_in_use_ends_only_by_force(mut s: Service) {
    let (_, first) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    // Never used: it ends without more.
    let (_, second) = s.rotate("bot-prod-web", 0, false).await.unwrap();
    assert_eq!(s.reasons(&first).await, [Reason::KeyExpired]);
    assert_eq!(s.reasons(&second).await, []);
    is_refused(s.rotate("bot-prod-web", 0, false).await, Code::FailedPrecondition, "SECRET_IN_USE");
    let (rotated, third) = s.rotate("bot-prod-web", 3600, false).await.unwrap();
    let id = |key: &Key, at: usize| key.secrets[at].secret_id.clone();
    let (of_second, of_third) = (id(&rotated, 1), id(&rotated, 2));
    // A third live one would end the second now.
    is_refused(s.rotate("bot-prod-web", 3600, false).await, Code::FailedPrecondition, "SECRET_IN_USE");
    is_refused(s.revoke("bot-prod-web", &of_second, false).await, Code::FailedPrecondition, "SECRET_IN_USE");
    is_refused(s.revoke("bot-prod-web", "0123456789abcdef", true).await, Code::NotFound, "UNKNOWN_SECRET");
    assert_eq!(s.reasons(&second).await, []);
    s.revoke("bot-prod-web", &of_second, true).await.unwrap();
    assert_eq!(s.reasons(&second).await, [Reason::KeyExpired]);
    assert_eq!(s.reasons(&third).await, []);
    is_refused(s.revoke("bot-prod-web", &of_third, true).await, Code::FailedPrecondition, "ONLY_SECRET");
    // A day without a use, and nobody has to be forced.
    s.at(DAY);
    let (_, fourth) = s.rotate("bot-prod-web", 0, false).await.unwrap();
    assert_eq!((s.reasons(&third).await, s.reasons(&fourth).await), (vec![Reason::KeyExpired], vec![]));
}

async fn a_change_of_the_policy_holds_for_created_keys(mut s: Service) {
    let limits = KeyLimits { models: vec![MODEL.to_owned()], ..Default::default() };
    let (_, secret) = s.create(key("bot-prod-web", limits)).await;
    assert_eq!(s.reasons(&secret).await, []);
    s.server.set_policy(&POLICY.replace("models = [\"m/*\"]", "models = [\"m/other\"]")).await;
    assert_eq!(s.reasons(&secret).await, [Reason::ModelNotAllowed]);
    // Labels of a key that is wider than its team by now can still be changed.
    let labels = [("owner".to_owned(), "ann".to_owned())].into();
    let labelled = Key { name: "bot-prod-web".to_owned(), labels, ..Default::default() };
    s.update(labelled.clone(), &["labels"]).await.unwrap();
    let without =
        POLICY.replace("[teams.bot]", "[teams.gone]").replace("[teams.bot.keys", "[teams.gone.keys");
    s.server.set_policy(&without).await;
    assert_eq!(s.reasons(&secret).await, [Reason::UnknownTeam]);
    assert_eq!(fields(&s.update(labelled, &["labels", "limits"]).await.unwrap_err()), ["team"]);
    s.server.set_policy(POLICY).await;
    assert_eq!(s.reasons(&secret).await, []);
    assert_eq!(s.get("bot-prod-web").await.labels["owner"], "ann");
}

async fn only_the_version_that_was_read_is_changed(mut s: Service) {
    let (made, _) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let limits = Some(KeyLimits { requests_per_minute: Some(5), ..Default::default() });
    let changed = s.update(Key { limits, ..made.clone() }, &["limits.requests_per_minute"]).await.unwrap();
    assert_ne!(changed.etag, made.etag);
    is_refused(s.update(made.clone(), &["labels"]).await, Code::Aborted, "KEY_CHANGED");
    let same = s.update(Key { etag: String::new(), ..made.clone() }, &["labels"]).await.unwrap();
    assert_eq!(same.limits.unwrap().requests_per_minute, Some(5));
    for paths in [&[][..], &["name"], &["limits.requests_per_day"], &["labels"; 17]] {
        let key = Key { etag: String::new(), ..made.clone() };
        assert_eq!(fields(&s.update(key, paths).await.unwrap_err()), ["update_mask"]);
    }
    let named = Key { name: "bot-prod-none".to_owned(), ..Default::default() };
    is_refused(s.update(named, &["labels"]).await, Code::NotFound, "UNKNOWN_KEY");
}

async fn names_are_given_once(mut s: Service) {
    s.create(key("bot-prod-web", KeyLimits::default())).await;
    for name in ["bot-prod-web", "bot-declared-one"] {
        let again = s.keys.create_key(key(name, KeyLimits::default())).await;
        is_refused(again, Code::AlreadyExists, "KEY_EXISTS");
    }
    is_refused(s.rotate("bot-prod-none", 1, false).await, Code::NotFound, "UNKNOWN_KEY");
    is_refused(s.revoke("bot-prod-none", "", false).await, Code::NotFound, "UNKNOWN_KEY");
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
    for token in ["x", "after:", "after:bot-prod-a", "after:bot-prod-a/bot", "after:bot-prod-a/bot/maybe"] {
        assert_eq!(
            fields(&s.keys.list_keys(ask("", 0, token)).await.unwrap_err()),
            ["page_token"],
            "{token}"
        );
    }
}

async fn typos_and_guesses_are_refused(mut s: Service) {
    let (_, secret) = s.create(key("bot-prod-web", KeyLimits::default())).await;
    let (start, last) = secret.split_at(secret.len() - 1);
    let typo = format!("{start}{}", if last == "a" { "b" } else { "a" });
    let answer = s.ask(&typo).await;
    assert_eq!(answer.violations[0].reason(), Reason::InvalidKey);
    assert!(answer.violations[0].message.contains("mistyped"), "{}", answer.violations[0].message);
    // Everything that shares a beginning with it, and whole secrets of nobody.
    for length in [1, 4, 20, 47, 52] {
        assert_eq!(s.reasons(&secret[..length]).await, [Reason::InvalidKey], "{length}");
    }
    for guess in [format!("{secret}a"), secret.to_uppercase(), secret.to_lowercase(), format!(" {secret}")] {
        assert_eq!(s.reasons(&guess).await, [Reason::InvalidKey], "{guess}");
    }
    for byte in 0..64 {
        let guess = tollgate::domain::keys::Secret::from_random([byte; 32]);
        let answer = s.ask(guess.expose()).await;
        assert_eq!(answer.violations[0].reason(), Reason::InvalidKey);
        assert!(!answer.violations[0].message.contains("mistyped"));
    }
    assert_eq!(s.reasons(&secret).await, []);
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
