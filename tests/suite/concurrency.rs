//! Hundreds of calls at once against one process on the embedded store, and against three on one Redis: no limit is passed
//! by one unit at any time that anybody can see, nothing leaks, and what is to happen once happens once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use tempfile::TempDir;
use tollgate::rpc::proto::{
    self, AuthorizeResponse, Decision, RecordUsageResponse, policy_service_client::PolicyServiceClient,
};
use tonic::transport::Channel;

use crate::harness::{Process, StoreKind, chat, eventually, nanos, organization, team_spend, used};

type Client = PolicyServiceClient<Channel>;

const MODEL: &str = "m/text";
/// A nano-dollar for each token, so that sums are read at a glance.
const INPUT: i64 = 1_000;
const OUTPUT: i64 = 4_000;
const WORST_CASE: u64 = 5_000;
const BUDGET: u64 = 1_000_000;
const REQUESTS: usize = 300;
const IN_FLIGHT: usize = 7;
/// Callers at once, over all replicas.
const CALLERS: u64 = 240;

fn policy(organization: &str) -> String {
    format!(
        r#"
[organization]
id = "{organization}"
budget = {{ monthly_usd = "0.1", alerts = ["$0.0001", "$0.0005", "$0.0012"] }}
[teams.paid]
models = ["m/text"]
max_output_tokens = 4000
budget = {{ monthly_usd = "0.001", on_shortfall = "deny", alerts = ["10%", "25%", "50%", "75%", "95%"] }}
[teams.rated]
models = ["m/text"]
max_output_tokens = 4000
requests_per_day = {REQUESTS}
[teams.flying]
models = ["m/text"]
max_output_tokens = 4000
max_in_flight = {IN_FLIGHT}
[[prices]]
model = "m/text"
input_usd_per_million_tokens = "0.001"
output_usd_per_million_tokens = "0.001"
"#
    )
}

/// The replicas under test, and what keeps them alive.
struct Replicas {
    processes: Vec<Process>,
    _directory: TempDir,
}

impl Replicas {
    /// One on the embedded store or three on Redis; `None` where there is no Redis.
    async fn start(store: StoreKind) -> Option<Self> {
        if !store.is_available() {
            return None;
        }
        let directory = TempDir::new().unwrap();
        let policy = policy(&organization());
        let mut processes = Vec::new();
        let (count, url) = match store {
            StoreKind::Embedded => (1, "embedded:data".to_owned()),
            StoreKind::Redis => (3, crate::redis_server::shared()?.url()),
        };
        for _ in 0..count {
            processes.push(Process::start(directory.path(), &policy, &url).await);
        }
        Some(Self { processes, _directory: directory })
    }

    /// Three clients, each on a connection of its own, spread over the replicas.
    async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for number in 0..3 {
            clients.push(self.processes[number % self.processes.len()].client().await);
        }
        clients
    }
}

/// What one seed makes of a caller: cheap, and the same in every run.
fn scatter(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

async fn authorize(client: &mut Client, team: &str) -> AuthorizeResponse {
    client.authorize(chat(team, MODEL, INPUT, OUTPUT)).await.unwrap().into_inner()
}

/// No limit of a decision is passed.
fn keeps_to_its_limits(answer: &AuthorizeResponse) {
    for limit in &answer.limits {
        assert!(limit.used <= limit.limit && limit.remaining >= 0, "{limit:?}");
    }
}

/// Records the same usage through every client at once; the one answer that was not there before.
async fn record_everywhere(clients: &[Client], request: &proto::RecordUsageRequest) -> RecordUsageResponse {
    let calls: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut client, request) = (client.clone(), request.clone());
            tokio::spawn(async move { client.record_usage(request).await.unwrap().into_inner() })
        })
        .collect();
    let (mut first, mut repeats) = (None, Vec::new());
    for call in calls {
        let answer = call.await.unwrap();
        if answer.already_recorded {
            repeats.push(answer);
        } else {
            assert_eq!(first.replace(answer), None, "recorded twice");
        }
    }
    let first = first.expect("recorded by somebody");
    for repeat in repeats {
        assert_eq!(repeat, RecordUsageResponse { already_recorded: true, ..first.clone() });
    }
    first
}

/// Runs `caller` so many times at once, and waits for all.
async fn all_at_once<T: Send + 'static, F>(count: u64, caller: impl Fn(u64) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(caller(number))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

async fn nothing_is_left_open(client: &mut Client, team: &str) -> u64 {
    let report = team_spend(client, team).await;
    let spend = report.spend.unwrap();
    assert_eq!((nanos(spend.reserved), report.unsettled_requests), (0, 0), "{team} leaks");
    nanos(spend.spent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_never_exceeded_by_one_process() {
    a_budget_is_never_exceeded(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_never_exceeded_by_three_on_redis() {
    a_budget_is_never_exceeded(StoreKind::Redis).await;
}

async fn a_budget_is_never_exceeded(store: StoreKind) {
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let over = Arc::new(AtomicBool::new(false));
    let observers: Vec<_> = clients
        .iter()
        .map(|client| {
            let (mut client, over) = (client.clone(), over.clone());
            tokio::spawn(async move {
                let mut looks = 0;
                while !over.load(Ordering::Relaxed) {
                    let spend = team_spend(&mut client, "paid").await.spend.unwrap();
                    let (spent, reserved) = (nanos(spend.spent), nanos(spend.reserved));
                    assert!(spent + reserved <= BUDGET, "{spent} + {reserved}");
                    looks += 1;
                }
                looks
            })
        })
        .collect();
    let alerts: Arc<Mutex<BTreeMap<(String, String), u32>>> = Arc::default();
    let spent = Arc::new(AtomicI64::new(0));
    all_at_once(CALLERS, |number| {
        let (clients, alerts, spent) = (clients.clone(), alerts.clone(), spent.clone());
        async move {
            for round in 0.. {
                let seed = scatter(number * 1_000 + round);
                let mut client = clients[usize::try_from(seed % 3).unwrap()].clone();
                let answer = authorize(&mut client, "paid").await;
                keeps_to_its_limits(&answer);
                if answer.decision() == Decision::Denied {
                    assert_eq!(answer.violations[0].reason(), proto::Reason::TeamBudgetExhausted);
                    return;
                }
                // Some use all that they reserved, most less.
                let output =
                    if seed.is_multiple_of(4) { OUTPUT } else { i64::try_from(seed).unwrap() % OUTPUT };
                let request = used(&answer.reservation_id, INPUT, output);
                let first = match seed % 5 {
                    0 => record_everywhere(&clients, &request).await,
                    _ => client.record_usage(request).await.unwrap().into_inner(),
                };
                spent.fetch_add(INPUT + output, Ordering::Relaxed);
                for alert in first.alerts {
                    *alerts.lock().unwrap().entry((alert.limit_id, alert.threshold)).or_default() += 1;
                }
            }
        }
    })
    .await;
    over.store(true, Ordering::Relaxed);
    for observer in observers {
        assert!(observer.await.unwrap() > 0);
    }
    let mut client = clients[0].clone();
    let booked = nothing_is_left_open(&mut client, "paid").await;
    assert_eq!(booked, u64::try_from(spent.load(Ordering::Relaxed)).unwrap());
    // Full: the last caller was denied with nothing else in flight but what the others had not yet given back.
    while authorize(&mut client, "paid").await.decision() == Decision::Allowed {}
    let report = team_spend(&mut client, "paid").await.spend.unwrap();
    let total = nanos(report.spent) + nanos(report.reserved);
    assert!(total <= BUDGET && total + WORST_CASE > BUDGET, "{total}");
    let alerts = alerts.lock().unwrap();
    assert!(alerts.values().all(|times| *times == 1), "{alerts:?}");
    let crossed = |(share, text): (u64, &str)| (booked * 100 >= share * BUDGET).then(|| text.to_owned());
    let expected: Vec<String> = [(10, "10%"), (25, "25%"), (50, "50%"), (75, "75%"), (95, "95%")]
        .into_iter()
        .filter_map(crossed)
        .collect();
    let reported = |limit: &str| -> Vec<String> {
        alerts
            .keys()
            .filter(|(id, _)| id.starts_with(limit))
            .map(|(_, threshold)| threshold.clone())
            .collect()
    };
    assert_eq!(reported("teams.paid."), expected);
    assert_eq!(reported("organization."), ["$0.0001", "$0.0005"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_to_the_last_by_one_process() {
    requests_are_counted_to_the_last(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_to_the_last_by_three_on_redis() {
    requests_are_counted_to_the_last(StoreKind::Redis).await;
}

async fn requests_are_counted_to_the_last(store: StoreKind) {
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let granted = all_at_once(CALLERS, |number| {
        let mut client = clients[usize::try_from(number % 3).unwrap()].clone();
        async move {
            let mut granted = Vec::new();
            loop {
                let answer = authorize(&mut client, "rated").await;
                keeps_to_its_limits(&answer);
                if answer.decision() == Decision::Denied {
                    assert_eq!(answer.violations[0].reason(), proto::Reason::RequestRateExceeded);
                    return granted;
                }
                let request = used(&answer.reservation_id, 1, 1);
                client.record_usage(request).await.unwrap();
                granted.push(answer.reservation_id);
            }
        }
    })
    .await;
    let granted: Vec<String> = granted.into_iter().flatten().collect();
    assert_eq!(granted.len(), REQUESTS);
    assert_eq!(granted.iter().collect::<HashSet<_>>().len(), REQUESTS);
    let mut client = clients[0].clone();
    assert_eq!(nothing_is_left_open(&mut client, "rated").await, 2 * REQUESTS as u64);
    assert_eq!(team_spend(&mut client, "rated").await.requests, i64::try_from(REQUESTS).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_in_flight_are_given_back_by_one_process() {
    places_in_flight_are_given_back(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_in_flight_are_given_back_by_three_on_redis() {
    places_in_flight_are_given_back(StoreKind::Redis).await;
}

async fn places_in_flight_are_given_back(store: StoreKind) {
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let flying = Arc::new(AtomicI64::new(0));
    let most = i64::try_from(IN_FLIGHT).unwrap();
    all_at_once(CALLERS, |number| {
        let (clients, flying) = (clients.clone(), flying.clone());
        async move {
            let mut client = clients[usize::try_from(number % 3).unwrap()].clone();
            let answer = loop {
                let answer = authorize(&mut client, "flying").await;
                keeps_to_its_limits(&answer);
                if answer.decision() == Decision::Allowed {
                    break answer;
                }
                assert_eq!(answer.violations[0].reason(), proto::Reason::TooManyInFlight);
                tokio::task::yield_now().await;
            };
            // Between the answer and the report the place is surely taken.
            let now = flying.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(now <= most, "{now} in flight");
            tokio::task::yield_now().await;
            flying.fetch_sub(1, Ordering::SeqCst);
            let mut other = clients[usize::try_from((number + 1) % 3).unwrap()].clone();
            let request = match number % 3 {
                0 => used(&answer.reservation_id, 1, 1),
                1 => proto::RecordUsageRequest {
                    outcome: proto::Outcome::NotSent.into(),
                    usage: None,
                    ..used(&answer.reservation_id, 0, 0)
                },
                _ => proto::RecordUsageRequest {
                    outcome: proto::Outcome::Failed.into(),
                    usage: None,
                    ..used(&answer.reservation_id, 0, 0)
                },
            };
            other.record_usage(request).await.unwrap();
        }
    })
    .await;
    let mut client = clients[0].clone();
    nothing_is_left_open(&mut client, "flying").await;
    for place in 1..=IN_FLIGHT {
        assert_eq!(authorize(&mut client, "flying").await.decision(), Decision::Allowed, "place {place}");
    }
    assert_eq!(authorize(&mut client, "flying").await.decision(), Decision::Denied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_is_one_reservation_in_one_process() {
    one_request_id_is_one_reservation(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_is_one_reservation_in_three_on_redis() {
    one_request_id_is_one_reservation(StoreKind::Redis).await;
}

async fn one_request_id_is_one_reservation(store: StoreKind) {
    const IDS: u64 = 40;
    let Some(replicas) = Replicas::start(store).await else { return };
    let clients = replicas.clients().await;
    let answers = all_at_once(IDS * 6, |number| {
        let mut client = clients[usize::try_from(number % 3).unwrap()].clone();
        let request_id = format!("request {}", number / 6);
        async move {
            let request = proto::AuthorizeRequest {
                request_id: request_id.clone(),
                ..chat("rated", MODEL, INPUT, OUTPUT)
            };
            (request_id, client.authorize(request).await.unwrap().into_inner())
        }
    })
    .await;
    let mut reservations: BTreeMap<String, HashSet<_>> = BTreeMap::new();
    for (request_id, answer) in answers {
        assert_eq!(answer.decision(), Decision::Allowed);
        let expires = answer.expire_time.unwrap();
        reservations.entry(request_id).or_default().insert((
            answer.reservation_id,
            expires.seconds,
            expires.nanos,
            answer.max_output_tokens,
        ));
    }
    assert_eq!(reservations.len(), usize::try_from(IDS).unwrap());
    assert!(reservations.values().all(|answers| answers.len() == 1), "{reservations:?}");
    let mut client = clients[0].clone();
    let report = team_spend(&mut client, "rated").await;
    assert_eq!(report.unsettled_requests, i64::try_from(IDS).unwrap());
    assert_eq!(nanos(report.spend.unwrap().reserved), IDS * WORST_CASE);
    // The same id for another request is refused by whatever replica is asked.
    for client in &mut clients.clone() {
        let request = proto::AuthorizeRequest {
            request_id: "request 7".to_owned(),
            ..chat("rated", MODEL, INPUT + 1, OUTPUT)
        };
        assert_eq!(client.authorize(request).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    }
    for answers in reservations.into_values() {
        let (reservation, ..) = answers.into_iter().next().unwrap();
        record_everywhere(&clients, &used(&reservation, INPUT, 5)).await;
    }
    assert_eq!(nothing_is_left_open(&mut client, "rated").await, IDS * 1_005);
}

/// Usage that nobody asked for before, reported by all at once under one id, is booked once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreserved_usage_is_booked_once_over_three_on_redis() {
    let Some(replicas) = Replicas::start(StoreKind::Redis).await else { return };
    let clients = replicas.clients().await;
    for number in 0..20 {
        let request = proto::RecordUsageRequest {
            caller: Some(proto::record_usage_request::Caller::Team("rated".to_owned())),
            request_id: format!("lost {number}"),
            model: MODEL.to_owned(),
            operation: proto::Operation::ChatCompletion.into(),
            ..used("", 10, 10)
        };
        record_everywhere(&clients, &request).await;
    }
    let mut client = clients[2].clone();
    eventually("every replica sees the same", || {
        let mut client = client.clone();
        async move { team_spend(&mut client, "rated").await.requests == 20 }
    })
    .await;
    assert_eq!(nothing_is_left_open(&mut client, "rated").await, 400);
}
