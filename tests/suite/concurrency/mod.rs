//! Hundreds of calls at once against one process on the embedded store, and against three on one Redis: no limit is passed
//! by one unit at any time that anybody can see, nothing leaks, and what is to happen once happens once.

mod budgets;
mod ids;
mod requests;

use tempfile::TempDir;
use tollgate::rpc::proto::{
    self, AuthorizeResponse, RecordUsageResponse, policy_service_client::PolicyServiceClient,
};
use tonic::transport::Channel;

use crate::harness::{Process, StoreKind, chat, nanos, organization, team_spend};

type Client = PolicyServiceClient<Channel>;

const MODEL: &str = "m/text";
/// A nano-dollar for each token, so that sums are read at a glance.
const INPUT: i64 = 1_000;
const OUTPUT: i64 = 4_000;
const WORST_CASE: u64 = 5_000;
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
