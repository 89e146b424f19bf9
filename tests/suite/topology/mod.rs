//! Redis as companies run it: Sentinel and Cluster with real processes, faults under load, and a client's ledger beside the books.

mod cluster;
pub(crate) mod nodes;
mod replay;
mod sentinel;
mod tls;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::task::JoinSet;
use tollgate::rpc::proto::{self, policy_service_client::PolicyServiceClient};
use tonic::{Code, Status, transport::Channel};

use crate::harness::{Process, chat, eventually, nanos, used};

type Client = PolicyServiceClient<Channel>;

const MODEL: &str = "m/test";
/// What each settlement costs, at a nano-dollar for each token.
const COST: u64 = 150;
/// Callers at once.
const CALLERS: u64 = 4;
/// How long the service waits for the store: three of them are silence. Longer than by default, as the machine is busy.
const STORE_TIMEOUT: &str = "--store-timeout=500ms";

fn policy(organization: &str) -> String {
    format!(
        "[organization]\nid = \"{organization}\"\n[[prices]]\nmodel = \"{MODEL}\"\n\
         input_usd_per_million_tokens = \"0.001\"\noutput_usd_per_million_tokens = \"0.001\"\n\
         [teams.a]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\n\
         budget = {{ monthly_usd = \"1000\" }}\ntokens_per_minute = 1000000000\n"
    )
}

/// For how long a service keeps what was acknowledged: longer than by default, as the machine is busy.
const KEPT: &str = "30s";

/// A service on `store`.
async fn serve(directory: &TempDir, organization: &str, store: &str) -> Process {
    serve_keeping(directory, organization, store, KEPT).await
}

/// The same with its `redis_replay_window`.
async fn serve_keeping(directory: &TempDir, organization: &str, store: &str, window: &str) -> Process {
    // A server that wants no password gets none: the file is of those that do.
    let password = directory.path().join("password");
    let password = password.exists().then(|| format!("--redis-password-file={}", password.display()));
    let (store, window) = (format!("--store={store}"), format!("--redis-replay-window={window}"));
    let mut arguments = vec![&*store, &*window, STORE_TIMEOUT, "--admin-enabled=false"];
    arguments.extend(password.as_deref());
    Process::start_arguments(directory.path(), &policy(organization), &arguments).await
}

/// Clients that authorize and report without end, and a ledger of when what they reported was acknowledged.
struct Fleet {
    callers: JoinSet<()>,
    ledger: Arc<Ledger>,
}

#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<Vec<Instant>>,
    /// Reservations that the store had forgotten when their usage was reported.
    forgotten: Mutex<Vec<Instant>>,
    is_over: AtomicBool,
}

impl Fleet {
    async fn start(process: &Process) -> Self {
        // Each caller has request ids of its own.
        static CALLER: AtomicU64 = AtomicU64::new(0);
        let ledger = Arc::<Ledger>::default();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let caller = CALLER.fetch_add(1, Ordering::Relaxed);
            let (client, ledger) = (process.client().await, Arc::clone(&ledger));
            callers.spawn(async move { call(client, caller, &ledger).await });
        }
        Self { callers, ledger }
    }

    fn acknowledged(&self) -> usize {
        self.ledger.acknowledged.lock().unwrap().len()
    }

    /// Waits until it has made some progress from now on.
    async fn progress(&self, what: &str) {
        let before = self.acknowledged();
        eventually(what, async || self.acknowledged() > before + 20).await;
    }

    /// Ends when all that is in flight has been acknowledged or is forgotten.
    async fn stop(mut self) -> Arc<Ledger> {
        self.ledger.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
        self.ledger
    }
}

/// Authorizes and reports until it is over; what is `UNAVAILABLE` is repeated as it is.
async fn call(mut client: Client, caller: u64, ledger: &Ledger) {
    let mut number = 0_u64;
    while !ledger.is_over.load(Ordering::Relaxed) {
        number += 1;
        let request =
            proto::AuthorizeRequest { request_id: format!("{caller}-{number}"), ..chat("a", MODEL, 100, 50) };
        let id = loop {
            match client.authorize(request.clone()).await {
                Ok(answer) => break answer.into_inner().reservation_id,
                Err(status) => assert!(is_to_be_repeated(&status), "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        loop {
            match client.record_usage(used(&id, 100, 50)).await {
                Ok(answer) => {
                    assert_eq!(nanos(answer.into_inner().cost), COST);
                    ledger.acknowledged.lock().unwrap().push(Instant::now());
                    break;
                }
                Err(status) if status.code() == Code::NotFound => {
                    ledger.forgotten.lock().unwrap().push(Instant::now());
                    break;
                }
                Err(status) => assert!(is_to_be_repeated(&status), "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Whether a gateway repeats a call: it was not answered, or its connection broke. What is repeated counts once.
fn is_to_be_repeated(status: &Status) -> bool {
    let is_broken = status.code() == Code::Unknown && status.message() == "transport error";
    if is_broken {
        println!("a connection to the service broke: {status:?}");
    }
    is_broken || status.code() == Code::Unavailable
}

impl Ledger {
    /// Compares with the books: nothing is booked twice, and what was acknowledged is there, but for what was acknowledged between
    /// these two instants. Returns how many of those are not.
    async fn compare(&self, process: &Process, at_risk: Option<(Instant, Instant)>) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let spent = spent(process).await;
        let expected = COST * acknowledged.len() as u64;
        assert_eq!(spent % COST, 0, "nothing is booked in part");
        assert!(spent <= expected, "{spent} are booked, {expected} were acknowledged");
        let lost = (expected - spent) / COST;
        let may_be_lost =
            acknowledged.iter().filter(|at| at_risk.is_some_and(|(from, to)| from <= **at && **at <= to));
        let may_be_lost = may_be_lost.count() as u64;
        assert!(lost <= may_be_lost, "{lost} are lost, of {may_be_lost} that may be");
        let forgotten = self.forgotten.lock().unwrap().len();
        println!(
            "{} acknowledged, {lost} lost of {may_be_lost} at risk, {forgotten} forgotten",
            acknowledged.len()
        );
        if at_risk.is_none() {
            assert_eq!(forgotten, 0, "nothing is forgotten");
        }
        lost
    }
}

/// What the books say that the team has spent.
async fn spent(process: &Process) -> u64 {
    let mut client = process.client().await;
    let mut report = None;
    // Reports have a connection of their own, which may find the new server a little later.
    eventually("the books are read", async || {
        let request = proto::GetSpendRequest { team: "a".to_owned(), ..Default::default() };
        let answer = client.get_spend(request).await;
        report = answer.ok().and_then(|answer| answer.into_inner().teams.pop());
        report.is_some()
    })
    .await;
    nanos(report.unwrap_or_default().spend.unwrap_or_default().spent)
}
