//! Clients with a ledger of their own.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tollgate::rpc::proto::{self, Decision, Reason, policy_service_client::PolicyServiceClient};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::harness::{chat, eventually_within, nanos, used};

pub(super) const MODEL: &str = "m/test";
/// The team whose budget lasts, and the one whose does not.
pub(super) const TEAMS: [&str; 2] = ["large", "small"];
/// What the smaller budget pays for.
pub(super) const SMALL: u64 = 120;
/// What each settlement costs, and at most is reserved for it, at a nano-dollar for each token.
pub(super) const COST: u64 = 150;
const CALLERS: usize = 6;
/// How long a caller waits for an answer before it asks again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a fault may keep everything from progress: three time-outs, an election, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn policy(organization: &str) -> String {
    // Room for what is in flight beside what is booked.
    let small = format!("0.{:09}", SMALL * COST);
    format!(
        "[organization]\nid = \"{organization}\"\n[[prices]]\nmodel = \"{MODEL}\"\n\
         input_usd_per_million_tokens = \"0.001\"\noutput_usd_per_million_tokens = \"0.001\"\n\
         [teams.large]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\nbudget = {{ monthly_usd = \"1000\" }}\n\
         tokens_per_minute = 1000000000\n\
         [teams.small]\nmodels = [\"{MODEL}\"]\nmax_output_tokens = 100\nbudget = {{ monthly_usd = \"{small}\" }}\n"
    )
}

/// What the clients know.
#[derive(Default)]
pub(super) struct Ledger {
    /// When a settlement of each team was acknowledged.
    acknowledged: [Mutex<Vec<Instant>>; TEAMS.len()],
    /// Reservations that the store had forgotten when their usage was reported, and requests that it took for over.
    pub(super) forgotten: AtomicU64,
    /// Calls that were sent again.
    pub(super) repeated: AtomicU64,
    pub(super) denied: AtomicU64,
    is_over: AtomicBool,
}

impl Ledger {
    pub(super) fn of(&self, team: usize) -> Vec<Instant> {
        self.acknowledged[team].lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.acknowledged.iter().map(|team| team.lock().unwrap().len()).sum()
    }
}

/// Gateways that authorize and report without end, each through any of the replicas.
pub(super) struct Fleet {
    callers: JoinSet<()>,
    pub(super) ledger: Arc<Ledger>,
}

impl Fleet {
    pub(super) fn start(replicas: &[SocketAddr]) -> Self {
        let ledger = Arc::<Ledger>::default();
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            let caller =
                Caller { number, clients: clients(replicas), turn: number, ledger: Arc::clone(&ledger) };
            callers.spawn(caller.run());
        }
        Self { callers, ledger }
    }

    /// Waits until it has made some progress from now on.
    pub(super) async fn progress(&mut self, what: &str) {
        let before = self.ledger.count();
        let (callers, ledger) = (&mut self.callers, &self.ledger);
        eventually_within(PATIENCE, what, async || {
            if let Some(Err(ended)) = callers.try_join_next() {
                std::panic::resume_unwind(ended.into_panic());
            }
            ledger.count() > before + 20
        })
        .await;
    }

    /// Ends when all that is in flight has been acknowledged or is forgotten.
    pub(super) async fn stop(mut self) -> Arc<Ledger> {
        self.ledger.is_over.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = self.callers.join_next().await {
                ended.unwrap()
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("the callers end");
        self.ledger
    }
}

/// Connected when they are first used, and again whenever the connection breaks.
fn clients(replicas: &[SocketAddr]) -> Vec<PolicyServiceClient<Channel>> {
    let client = |address: &SocketAddr| {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
        PolicyServiceClient::new(endpoint.connect_timeout(TIMEOUT).connect_lazy())
    };
    replicas.iter().map(client).collect()
}

struct Caller {
    number: usize,
    clients: Vec<PolicyServiceClient<Channel>>,
    turn: usize,
    ledger: Arc<Ledger>,
}

impl Caller {
    async fn run(mut self) {
        for request in 0_u64.. {
            if self.ledger.is_over.load(Ordering::Relaxed) {
                return;
            }
            // One of four, until its budget is used up: then it is only denied.
            let team = usize::from(request % 4 == 3);
            let request_id = format!("{}-{request}", self.number);
            let Some(id) = self.authorize(team, request_id).await else { continue };
            self.report(team, id).await;
        }
    }

    /// The reservation; `None`: it is denied, or the store took the request for over.
    async fn authorize(&mut self, team: usize, request_id: String) -> Option<String> {
        loop {
            let request = proto::AuthorizeRequest {
                request_id: request_id.clone(),
                ..chat(TEAMS[team], MODEL, 100, 50)
            };
            let mut request = tonic::Request::new(request);
            request.set_timeout(TIMEOUT);
            match self.client().authorize(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    if answer.decision() == Decision::Allowed {
                        return Some(answer.reservation_id);
                    }
                    let reason = answer.violations[0].reason();
                    assert_eq!((team, reason), (1, Reason::TeamBudgetExhausted), "{answer:?}");
                    self.ledger.denied.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                // It was released after its caller had left, or forgotten in part.
                Err(status) if status.code() == Code::AlreadyExists => {
                    self.ledger.forgotten.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                Err(status) => self.repeats(&status).await,
            }
        }
    }

    async fn report(&mut self, team: usize, id: String) {
        loop {
            let mut request = tonic::Request::new(used(&id, 100, 50));
            request.set_timeout(TIMEOUT);
            match self.client().record_usage(request).await {
                Ok(answer) => {
                    assert_eq!(nanos(answer.into_inner().cost), COST);
                    self.ledger.acknowledged[team].lock().unwrap().push(Instant::now());
                    return;
                }
                Err(status) if status.code() == Code::NotFound => {
                    self.ledger.forgotten.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(status) => self.repeats(&status).await,
            }
        }
    }

    fn client(&mut self) -> &mut PolicyServiceClient<Channel> {
        let turn = self.turn % self.clients.len();
        &mut self.clients[turn]
    }

    /// As a gateway does what was not answered, or whose connection broke: through another replica.
    async fn repeats(&mut self, status: &Status) {
        // Errors of the service say more than a code; those of the way to it do not.
        let is_of_the_way = matches!(status.code(), Code::Unknown | Code::Cancelled | Code::Internal);
        let is_of_the_way = is_of_the_way && status.details().is_empty();
        let is_unanswered = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
        assert!(is_of_the_way || is_unanswered, "{status:?}");
        self.ledger.repeated.fetch_add(1, Ordering::Relaxed);
        self.turn += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
