//! Alerts and receivers as `AlertService` lists them, on both stores, from entries of the outbox as releases write them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tollgate::{
    rpc::proto::{
        Alert, AlertKind, AlertState, DeliveryState, ListAlertsRequest, ListReceiversRequest, ReceiverKind,
        Severity, alert::Detail, alert_service_client::AlertServiceClient,
    },
    store::{OUTBOX_KEPT, OutboxEntry, Store},
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    access::{by, digest, reason},
    harness::{Fixture, START, Server, StoreKind, Ways, connect, organization, settings},
    redis_server,
};

const AUDITOR: &str = "tgs_secret_of_the_auditor";
const VIEWER: &str = "tgs_secret_of_the_viewer_of_bot";

const POLICY: &str = r#"
[teams.bot]
models = ["*"]
[teams.lab]
models = ["*"]
[[alerts]]
receiver = "everything"
[[alerts]]
receiver = "of-bot"
teams = ["bot"]
[[alerts]]
receiver = "of-lab"
teams = ["lab"]
"#;

fn policy(organization: &str) -> String {
    let mut text = format!("[organization]\nid = \"{organization}\"\n{POLICY}");
    for (name, secret, role, teams) in
        [("audit", AUDITOR, "auditor", ""), ("view", VIEWER, "viewer", "teams = [\"bot\"]\n")]
    {
        let digest = digest(secret);
        text += &format!("[access.tokens.{name}]\nsha256 = \"{digest}\"\nroles = [\"{role}\"]\n{teams}");
    }
    text
}

/// The id of the alert of `seconds` after the start.
fn id(seconds: u64) -> String {
    format!("{:012x}0b0c0d0e0f100000", START.plus(seconds * 1_000).0)
}

fn entry(id: &str, version: u8, json: &Value) -> OutboxEntry {
    let payload = [&[version], json.to_string().as_bytes()].concat().into();
    OutboxEntry { id: id.parse().unwrap(), payload }
}

/// So many seconds after the start, as JSON has it.
fn instant(seconds: u64) -> String {
    let at = i64::try_from(START.plus(seconds * 1_000).0).unwrap();
    jiff::Timestamp::from_millisecond(at).unwrap().to_string()
}

/// An alert as it is kept; `more` is put into it.
fn alert(seconds: u64, more: &Value) -> Value {
    let mut alert = json!({
        "id": id(seconds), "kind": "ALERT_KIND_BUDGET_THRESHOLD", "severity": "SEVERITY_WARNING",
        "state": "ALERT_STATE_OPEN", "createTime": instant(seconds), "summary": "s", "organization": "acme",
    });
    alert.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "alert": alert })
}

fn delivery(alert: &Value, more: &Value) -> Value {
    let mut delivery = json!({ "state": "pending", "since": START.0, "attempts": 0 });
    delivery.as_object_mut().unwrap().extend(alert.as_object().unwrap().clone());
    delivery.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    delivery
}

/// What the tests list, the oldest first.
fn entries() -> Vec<OutboxEntry> {
    let usd = |units: &str| json!({ "currencyCode": "USD", "units": units });
    let crossing =
        json!({ "threshold": "80%", "amount": usd("160"), "spent": usd("160"), "budget": usd("200") });
    let first =
        alert(1, &json!({ "team": "bot", "limitId": "teams.bot.budget.monthly_usd", "budget": crossing }));
    let (tried, due) = (START.plus(2_000).0, START.plus(9_000).0);
    let failing = json!({ "state": "failing", "sends": 3, "last_attempt": tried, "next_attempt": due, "error": "answered 500" });
    let sent = json!({ "state": "sent", "sends": 1, "last_attempt": tried });
    let cooldown = json!({ "project": "main", "model": "m", "serviceTier": "SERVICE_TIER_FLEX" });
    let begun = json!({ "kind": "ALERT_KIND_UPSTREAM_COOLDOWN", "cooldown": cooldown });
    let mut ended = begun.clone();
    ended["state"] = "ALERT_STATE_RESOLVED".into();
    ended["resolveTime"] = instant(302).into();
    let (begun, ended) = (alert(2, &begun), alert(2, &ended));
    let later = json!({
        "team": "lab", "kind": "ALERT_KIND_OF_LATER", "severity": "SEVERITY_OF_LATER", "newField": { "a": [1] },
        "facts": { "since": "noon" },
    });
    let of_id = |seconds: u64, rest: &str| format!("{}_{rest}", id(seconds));
    vec![
        entry(&of_id(1, "open"), 2, &first),
        entry(&of_id(1, "open/everything"), 3, &delivery(&first, &failing)),
        entry(&of_id(1, "open/of-bot"), 3, &delivery(&first, &sent)),
        entry(&of_id(2, "open"), 2, &begun),
        entry(&of_id(2, "open/everything"), 3, &delivery(&begun, &json!({ "state": "expired", "sends": 9 }))),
        entry(&of_id(2, "open/gone"), 3, &delivery(&begun, &json!({ "state": "of_later" }))),
        entry(&of_id(2, "resolved"), 2, &ended),
        entry(&of_id(2, "resolved/everything"), 3, &delivery(&ended, &json!({}))),
        entry(&of_id(3, "open"), 2, &alert(3, &later)),
        // Of no type that this release knows, so not as a whole.
        entry(&of_id(4, "open"), 2, &alert(4, &json!({ "team": "lab", "budget": "80%", "summary": "much" }))),
        // As a settlement leaves it, not routed yet; and of a version that this release does not know.
        entry(&of_id(5, "open"), 1, &json!({})),
        entry(&of_id(6, "open"), 9, &alert(6, &json!({}))),
    ]
}

async fn append<S: Store>(store: &S, entries: Vec<OutboxEntry>) {
    for entries in entries.chunks(64) {
        store.outbox_append(entries.to_vec(), OUTBOX_KEPT).await.unwrap();
    }
}

type Client = AlertServiceClient<Channel>;

/// A service on a store with these entries.
async fn start(kind: StoreKind, entries: Vec<OutboxEntry>) -> Option<(Server, Client)> {
    let organization = organization();
    let server = match kind {
        StoreKind::Embedded => {
            let fixture = Fixture::embedded();
            append(&fixture.store, entries).await;
            Server::start_in(fixture, &policy(&organization), Ways::default())
        }
        StoreKind::Redis => {
            let redis = redis_server::shared()?;
            let fixture = Fixture::of_redis(settings(redis, &organization));
            append(&fixture.store, entries).await;
            Server::start_on_redis(redis, &organization, &policy(&organization), fixture.clock)
        }
    };
    let client = AlertServiceClient::new(connect(server.address()).await);
    Some((server, client))
}

const STORES: [StoreKind; 2] = [StoreKind::Embedded, StoreKind::Redis];

async fn list(client: &mut Client, token: &str, request: ListAlertsRequest) -> Result<Vec<Alert>, Status> {
    Ok(client.list_alerts(by(token, request)).await?.into_inner().alerts)
}

/// The seconds in the ids of alerts.
fn seconds(alerts: &[Alert]) -> Vec<u64> {
    let second = |alert: &Alert| (0..100_000).find(|seconds| id(*seconds) == alert.id).unwrap();
    alerts.iter().map(second).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_are_listed_with_their_deliveries_and_all_that_they_say() {
    for kind in STORES {
        let Some((server, mut client)) = start(kind, entries()).await else { continue };
        let alerts = list(&mut client, AUDITOR, ListAlertsRequest::default()).await.unwrap();
        assert_eq!(seconds(&alerts), [4, 3, 2, 1]);
        let [unreadable, later, ended, first] = &alerts[..] else { panic!("{alerts:?}") };
        assert_eq!(
            (&*unreadable.team, &*unreadable.summary, unreadable.detail.clone()),
            ("lab", "much", None)
        );
        assert_eq!((later.kind(), later.severity()), (AlertKind::Unspecified, Severity::Unspecified));
        assert_eq!((&*later.team, &*later.facts["since"]), ("lab", "noon"));
        assert_eq!((ended.kind(), ended.state()), (AlertKind::UpstreamCooldown, AlertState::Resolved));
        assert!(matches!(&ended.detail, Some(Detail::Cooldown(cooldown)) if cooldown.project == "main"));
        assert_eq!(
            ended.resolve_time.as_ref().unwrap().seconds - ended.create_time.as_ref().unwrap().seconds,
            300
        );
        // Of both messages the later one counts, for receivers that get both.
        let deliveries: Vec<_> = ended.deliveries.iter().map(|d| (&*d.receiver, d.state())).collect();
        assert_eq!(
            deliveries,
            [("everything", DeliveryState::Pending), ("gone", DeliveryState::Unspecified)]
        );
        let Some(Detail::Budget(crossing)) = &first.detail else { panic!("{first:?}") };
        assert_eq!((&*crossing.threshold, crossing.budget.as_ref().unwrap().units), ("80%", 200));
        assert_eq!((&*first.team, &*first.limit_id), ("bot", "teams.bot.budget.monthly_usd"));
        let [failing, sent] = &first.deliveries[..] else { panic!("{first:?}") };
        assert_eq!(
            (failing.state(), failing.attempt_count, &*failing.error),
            (DeliveryState::Failing, 3, "answered 500")
        );
        let at = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| time.seconds * 1_000);
        let start = i64::try_from(START.0).unwrap();
        assert_eq!(
            (at(&failing.last_attempt_time), at(&failing.next_attempt_time)),
            (Some(start + 2_000), Some(start + 9_000))
        );
        assert_eq!(
            (sent.state(), sent.attempt_count, sent.next_attempt_time),
            (DeliveryState::Sent, 1, None)
        );
        assert!(server.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_hold_together_and_a_caller_of_teams_sees_theirs() {
    for kind in STORES {
        let Some((server, mut client)) = start(kind, entries()).await else { continue };
        let all = ListAlertsRequest::default;
        let teams = |teams: &[&str]| teams.iter().map(|team| (*team).to_owned()).collect();
        let since = |seconds: u64| prost_types::Timestamp {
            seconds: i64::try_from(START.plus(seconds * 1_000).0 / 1_000).unwrap(),
            nanos: 0,
        };
        let (threshold, cooldown) = (AlertKind::BudgetThreshold.into(), AlertKind::UpstreamCooldown.into());
        for (token, request, expected) in [
            (AUDITOR, ListAlertsRequest { teams: teams(&["bot"]), ..all() }, &[1][..]),
            (AUDITOR, ListAlertsRequest { teams: teams(&["bot", "lab", "none"]), ..all() }, &[4, 3, 1]),
            (AUDITOR, ListAlertsRequest { kinds: vec![cooldown], ..all() }, &[2]),
            (AUDITOR, ListAlertsRequest { kinds: vec![cooldown, threshold], ..all() }, &[2, 1]),
            (AUDITOR, ListAlertsRequest { kinds: vec![cooldown], teams: teams(&["bot"]), ..all() }, &[]),
            (AUDITOR, ListAlertsRequest { states: vec![AlertState::Resolved.into()], ..all() }, &[2]),
            (AUDITOR, ListAlertsRequest { since_time: Some(since(2)), ..all() }, &[4, 3, 2]),
            (AUDITOR, ListAlertsRequest { since_time: Some(since(99)), ..all() }, &[]),
            // What cannot be compared is shown.
            (AUDITOR, ListAlertsRequest { min_severity: Severity::Critical.into(), ..all() }, &[4, 3]),
            (VIEWER, all(), &[1]),
            (VIEWER, ListAlertsRequest { teams: teams(&["bot"]), ..all() }, &[1]),
        ] {
            let alerts = list(&mut client, token, request.clone()).await.unwrap();
            assert_eq!(seconds(&alerts), expected, "{request:?}");
        }
        // Whether there is such a team or not.
        for other in ["lab", "none"] {
            let request = ListAlertsRequest { teams: teams(&["bot", other]), ..all() };
            let refused = list(&mut client, VIEWER, request).await.unwrap_err();
            assert_eq!(reason(&refused), (Code::PermissionDenied, "TEAM_NOT_PERMITTED".to_owned()));
        }
        for request in [
            ListAlertsRequest { teams: teams(&["a\u{1b}[31m"]), ..all() },
            ListAlertsRequest { teams: teams(&[""]), ..all() },
            ListAlertsRequest { teams: teams(&["x".repeat(65).as_str()]), ..all() },
            ListAlertsRequest { teams: vec!["bot".to_owned(); 101], ..all() },
            ListAlertsRequest { kinds: vec![0], ..all() },
            ListAlertsRequest { kinds: vec![99], ..all() },
            ListAlertsRequest { states: vec![-1], ..all() },
            ListAlertsRequest { min_severity: 9, ..all() },
            ListAlertsRequest { page_size: -1, ..all() },
            ListAlertsRequest {
                since_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
                ..all()
            },
        ] {
            let refused = list(&mut client, AUDITOR, request.clone()).await.unwrap_err();
            assert_eq!(
                reason(&refused),
                (Code::InvalidArgument, "INVALID_REQUEST".to_owned()),
                "{request:?}"
            );
        }
        let token = ListAlertsRequest { page_token: "x".to_owned(), ..all() };
        let refused = list(&mut client, AUDITOR, token).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::InvalidArgument, "PAGE_TOKEN_INVALID".to_owned()));
        assert!(server.stop().await);
    }
}

/// What all replicas are to call by one name has an id of the start of the day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_created_since_then_is_listed_wherever_it_stands() {
    let day = |number: u64| format!("{:012x}0b0c0d0e0f10000{number}", START.0 / 86_400_000 * 86_400_000);
    let rejected = |number: u64, seconds| {
        let more = json!({ "id": day(number), "kind": "ALERT_KIND_POLICY_REJECTED" });
        entry(&format!("{}_open", day(number)), 2, &alert(seconds, &more))
    };
    for kind in STORES {
        let entries = entries().into_iter().chain([rejected(1, 8), rejected(2, 0)]).collect();
        let Some((server, mut client)) = start(kind, entries).await else { continue };
        let since = |seconds: u64| {
            let seconds = i64::try_from(START.plus(seconds * 1_000).0 / 1_000).unwrap();
            let since_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            ListAlertsRequest { since_time, page_size: 1_000, ..Default::default() }
        };
        for (seconds, expected) in
            [(4, vec![id(4), day(1)]), (5, vec![day(1)]), (8, vec![day(1)]), (9, Vec::new())]
        {
            let alerts = list(&mut client, AUDITOR, since(seconds)).await.unwrap();
            assert_eq!(alerts.into_iter().map(|alert| alert.id).collect::<Vec<_>>(), expected, "{seconds}");
        }
        assert!(server.stop().await);
    }
}

/// More entries than one call reads, so that a filter gets pages with nothing on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_have_each_alert_once_however_few_match() {
    const ALERTS: u64 = 2_100;
    for kind in STORES {
        let entries = (0..ALERTS).flat_map(|second| {
            let team = if second == 7 { "lab" } else { "bot" };
            let alert = alert(second, &json!({ "team": team, "summary": "s".repeat(600) }));
            let of_id = |rest: &str| format!("{}_{rest}", id(second));
            let delivery = delivery(&alert, &json!({ "state": "sent" }));
            [entry(&of_id("open"), 2, &alert), entry(&of_id("open/everything"), 3, &delivery)]
        });
        let Some((server, mut client)) = start(kind, entries.collect()).await else { continue };
        let pages = async |client: &mut Client, teams: Vec<String>, page_size| {
            let (mut found, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
            loop {
                let request =
                    ListAlertsRequest { teams: teams.clone(), page_size, page_token, ..Default::default() };
                let page = client.list_alerts(by(AUDITOR, request)).await.unwrap().into_inner();
                sizes.push(page.alerts.len());
                assert!(page.alerts.iter().all(|alert| alert.deliveries.len() == 1), "one was cut");
                found.extend(page.alerts.into_iter().map(|alert| alert.id));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    return (found, sizes);
                }
            }
        };
        let all: Vec<_> = (0..ALERTS).rev().map(id).collect();
        for (page_size, most) in [(0, 100), (601, 601), (10_000, 1_000)] {
            let (found, sizes) = pages(&mut client, Vec::new(), page_size).await;
            assert_eq!(found, all, "{page_size}");
            assert!(sizes.iter().all(|size| *size <= most), "{sizes:?}");
        }
        let (found, sizes) = pages(&mut client, vec!["lab".to_owned()], 5).await;
        assert_eq!((found, sizes), (vec![id(7)], vec![0, 1]), "4,096 entries are read at once");
        assert!(server.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_that_only_the_policy_names_are_told_apart() {
    for kind in STORES {
        let Some((server, mut client)) = start(kind, entries()).await else { continue };
        for (token, expected) in
            [(AUDITOR, &["everything", "of-bot", "of-lab"][..]), (VIEWER, &["everything", "of-bot"])]
        {
            let answer = client.list_receivers(by(token, ListReceiversRequest {})).await.unwrap();
            let receivers = answer.into_inner().receivers;
            let names: Vec<_> = receivers.iter().map(|receiver| receiver.name.as_str()).collect();
            assert_eq!(names, expected);
            assert!(receivers.iter().all(|r| r.kind() == ReceiverKind::Unspecified && r.host.is_empty()));
            // One of its deliveries fails, whatever came of later ones.
            let [everything, of_bot, ..] = &receivers[..] else { panic!("{receivers:?}") };
            assert_eq!((everything.state(), everything.pending_count), (DeliveryState::Failing, 3));
            assert_eq!((of_bot.state(), of_bot.pending_count), (DeliveryState::Sent, 1));
            let states: BTreeSet<_> =
                receivers.iter().skip(2).map(|r| (r.state(), r.pending_count)).collect();
            assert!(states.iter().all(|state| *state == (DeliveryState::Unspecified, 0)), "{states:?}");
        }
        assert!(server.stop().await);
    }
}
