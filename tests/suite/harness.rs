//! What tests run: stores, a service in this process under a clock that they move, and real server processes.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tempfile::TempDir;
use tollgate::{
    access::Guard,
    audit::{Audit, Target},
    authorizer::Shared,
    domain::{Timestamp, policy::Policy},
    live::Live,
    policy_file::parse_policy_at,
    rpc::{
        google_type::Money,
        proto::{self, policy_service_client::PolicyServiceClient},
    },
    server::{self, Connections, ListenerTls, Options},
    settings::ConnectionLimits,
    store::{
        Store,
        clock::{Clock, ManualClock},
        embedded::EmbeddedStore,
        redis::{RedisSettings, RedisStore},
    },
    upstream::UpstreamKeys,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    model::Model,
    redis_server::{self, RedisServer, free_port},
};

/// 2026-11-23T10:00:00Z, a whole hour: every slot length in use begins anew there.
pub(crate) const START: Timestamp = Timestamp(1_795_428_000_000);

/// The Groq key that the service sends on.
pub(crate) const UPSTREAM_KEY: &str = "gsk_mock_upstream_key";

/// The bound on every wait for a condition. A test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a store on Redis waits for its answer in these tests: long enough for a machine that builds meanwhile.
const REDIS_DEADLINE: Duration = Duration::from_secs(5);

/// The stores that the service runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Embedded,
    Redis,
}

impl StoreKind {
    /// Whether tests can run on it here. Where not, a line on the standard error says so; with `CI=true` it fails.
    pub(crate) fn is_available(self) -> bool {
        self == Self::Embedded || redis_server::is_installed()
    }
}

/// An organization that no other test uses.
pub(crate) fn organization() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("org-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory in memory where there is one: most tests open a store for each case, and few are about the disk.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// A store under a clock that the test moves.
#[derive(Debug)]
pub(crate) struct Fixture<S> {
    pub(crate) store: S,
    pub(crate) clock: ManualClock,
    /// Holds the embedded store's directory.
    _directory: Option<TempDir>,
}

impl Fixture<Model> {
    pub(crate) fn model() -> Self {
        let clock = ManualClock::new(START);
        Self { store: Model::new(clock.clone()), clock, _directory: None }
    }
}

impl Fixture<EmbeddedStore> {
    pub(crate) fn embedded() -> Self {
        let clock = ManualClock::new(START);
        let directory = scratch();
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        Self { store, clock, _directory: Some(directory) }
    }
}

/// The store of a fixture's directory, opened anew.
pub(crate) fn connect_again(fixture: Fixture<EmbeddedStore>) -> Fixture<EmbeddedStore> {
    connect_again_at(fixture, 0)
}

/// The clock is set by `by_ms` while the store is closed, backwards where that is negative.
pub(crate) fn connect_again_at(fixture: Fixture<EmbeddedStore>, by_ms: i64) -> Fixture<EmbeddedStore> {
    let Fixture { store, clock, _directory: directory } = fixture;
    drop(store);
    clock.step(Timestamp(clock.now().0.saturating_add_signed(by_ms)));
    let path = directory.as_ref().expect("an embedded store has a directory").path();
    let store = EmbeddedStore::open(path, Clock::Manual(clock.clone())).unwrap();
    Fixture { store, clock, _directory: directory }
}

impl Fixture<RedisStore> {
    /// `None` where Redis is not installed.
    pub(crate) fn redis() -> Option<Self> {
        Some(Self::of_redis(settings(redis_server::shared()?, &organization())))
    }

    pub(crate) fn of_redis(settings: RedisSettings) -> Self {
        let clock = ManualClock::new(START);
        let store = RedisStore::connect(settings, Clock::Manual(clock.clone())).unwrap();
        Self { store, clock, _directory: None }
    }
}

impl<S: Store> Fixture<S> {
    /// Moves the clock to `ms` after [`START`].
    pub(crate) fn at(&self, ms: u64) {
        self.clock.set(START.plus(ms));
    }
}

/// Settings for a store of `organization` on `redis`.
pub(crate) fn settings(redis: &RedisServer, organization: &str) -> RedisSettings {
    RedisSettings {
        url: redis.url(),
        password: None,
        organization: organization.to_owned(),
        deadline: REDIS_DEADLINE,
    }
}

/// The policy in `text`, or a panic with everything that is wrong with it.
pub(crate) fn policy(text: &str, now: Timestamp) -> Policy {
    let report = parse_policy_at(text, "policy.toml", now);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    report.policy.unwrap_or_else(|| panic!("the policy does not load:\n{}\n{text}", findings.join("\n")))
}

/// The service in this process, over real gRPC, under a clock that the test moves.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) clock: ManualClock,
    declared: Arc<ArcSwap<Policy>>,
    shared: Arc<Shared>,
    server: server::Server,
    /// Holds the embedded store's directory.
    _directory: TempDir,
}

impl Server {
    /// Starts with `policy_text` at `start` on an empty store.
    pub(crate) async fn start(store: StoreKind, policy_text: &str, start: Timestamp) -> Self {
        let clock = ManualClock::new(start);
        match store {
            StoreKind::Embedded => {
                let directory = scratch();
                let opened = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
                Self::start_with(clock, policy_text, directory, None, move || Ok(opened.clone()))
            }
            StoreKind::Redis => {
                let redis = redis_server::shared().expect("ask `StoreKind::is_available` before");
                Self::start_on_redis(redis, &organization(), policy_text, clock)
            }
        }
    }

    /// Starts for `organization` on `redis`: another replica, where one with the same clock runs there.
    pub(crate) fn start_on_redis(
        redis: &RedisServer,
        organization: &str,
        policy_text: &str,
        clock: ManualClock,
    ) -> Self {
        let (settings, of_store) = (settings(redis, organization), Clock::Manual(clock.clone()));
        Self::start_with(clock, policy_text, scratch(), None, move || {
            RedisStore::connect(settings.clone(), of_store.clone())
                .map_err(|error| server::StartError::Store(error.to_string()))
        })
    }

    /// Starts on the embedded store behind TLS.
    pub(crate) fn start_tls(policy_text: &str, tls: ListenerTls) -> Self {
        let (clock, directory) = (ManualClock::new(START), scratch());
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        Self::start_with(clock, policy_text, directory, Some(tls), move || Ok(store.clone()))
    }

    /// Starts on the embedded store with bounds on its connections.
    pub(crate) fn start_bounded(policy_text: &str, limits: ConnectionLimits) -> Self {
        let (clock, directory) = (ManualClock::new(START), scratch());
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        let connections = Connections::new(limits);
        Self::start_within(connections, clock, policy_text, directory, None, move || Ok(store.clone()))
    }

    fn start_with<S: Store + Clone>(
        clock: ManualClock,
        policy_text: &str,
        directory: TempDir,
        tls: Option<ListenerTls>,
        make_store: impl Fn() -> Result<S, server::StartError> + Clone + Send + 'static,
    ) -> Self {
        Self::start_within(Connections::default(), clock, policy_text, directory, tls, make_store)
    }

    fn start_within<S: Store + Clone>(
        connections: Connections,
        clock: ManualClock,
        policy_text: &str,
        directory: TempDir,
        tls: Option<ListenerTls>,
        make_store: impl Fn() -> Result<S, server::StartError> + Clone + Send + 'static,
    ) -> Self {
        let declared = Arc::new(ArcSwap::from_pointee(policy(policy_text, clock.now())));
        let shared = Arc::new(Shared::new(Arc::new(Live::new(Arc::clone(&declared)))));
        let target = Target::File(directory.path().join("audit.jsonl"));
        let audit = Audit::open(&target).unwrap();
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            threads: 2,
            drain: Duration::from_secs(5),
            tls,
            guard: Guard::new(Arc::clone(&shared.live.policy), Clock::Manual(clock.clone()), false, audit),
            connections,
        };
        let keys = Arc::new(UpstreamKeys::fixed(&[("default", &[UPSTREAM_KEY])]).unwrap());
        let server =
            server::Server::start(&options, Clock::Manual(clock.clone()), shared.clone(), keys, make_store);
        Self { clock, declared, shared, server: server.unwrap(), _directory: directory }
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(connect(self.address()).await)
    }

    /// Puts another policy in force.
    pub(crate) async fn set_policy(&self, policy_text: &str) {
        self.declared.store(Arc::new(policy(policy_text, self.clock.now())));
        self.shared.live.document_changed();
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops it; whether all calls under way ended by themselves.
    pub(crate) async fn stop(self) -> bool {
        self.server.stop().await
    }
}

/// A connection, as soon as there is somebody to talk to.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    let started = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(started.elapsed() < PATIENCE, "cannot connect to {address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks until `condition` holds; a panic that names `what` when it does not within [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Money as the integer it is.
pub(crate) fn nanos(money: Option<Money>) -> u64 {
    let money = money.expect("an amount of money");
    assert_eq!(money.currency_code, "USD");
    u64::try_from(i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos)).expect("not negative")
}

/// A chat request of `team`.
pub(crate) fn chat(
    team: &str,
    model: &str,
    input_tokens: i64,
    max_output_tokens: i64,
) -> proto::AuthorizeRequest {
    proto::AuthorizeRequest {
        caller: Some(proto::authorize_request::Caller::Team(team.to_owned())),
        model: model.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        input_tokens,
        max_output_tokens,
        ..Default::default()
    }
}

/// What a chat request used.
pub(crate) fn used(reservation_id: &str, input_tokens: i64, output_tokens: i64) -> proto::RecordUsageRequest {
    proto::RecordUsageRequest {
        reservation_id: reservation_id.to_owned(),
        usage: Some(proto::Usage { input_tokens, output_tokens, ..Default::default() }),
        outcome: proto::Outcome::Completed.into(),
        ..Default::default()
    }
}

/// The spend of one team this month.
pub(crate) async fn team_spend(client: &mut PolicyServiceClient<Channel>, team: &str) -> proto::SpendReport {
    let request = proto::GetSpendRequest { team: team.to_owned(), ..Default::default() };
    let mut answer = client.get_spend(request).await.unwrap().into_inner();
    answer.teams.pop().expect("the team's report")
}

/// A `tollgate serve` process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Process {
    /// Starts the server on a port of its own; answers once it accepts connections. A store has a long deadline, since a
    /// busy machine is not an outage.
    pub(crate) async fn start(directory: &Path, policy_text: &str, store: &str) -> Self {
        Self::start_with(directory, policy_text, store, Duration::from_secs(20)).await
    }

    /// The same with the deadline of the store.
    pub(crate) async fn start_with(
        directory: &Path,
        policy_text: &str,
        store: &str,
        deadline: Duration,
    ) -> Self {
        // Another process may take a port in between; then the server ends at once and other ports are tried.
        for _ in 0..5 {
            let deadline = format!("--store-deadline-ms={}", deadline.as_millis());
            let admin = format!("--admin={}", free_port());
            let store = format!("--store={store}");
            let arguments = [&*store, &deadline, &admin];
            if let Some(process) = Self::spawn(directory, policy_text, &arguments, &[]).await {
                return process;
            }
        }
        panic!("no free port");
    }

    /// Starts the server on the embedded store with more arguments.
    pub(crate) async fn start_arguments(directory: &Path, policy_text: &str, arguments: &[&str]) -> Self {
        Self::start_environment(directory, policy_text, arguments, &[]).await
    }

    /// The same with more in its environment.
    pub(crate) async fn start_environment(
        directory: &Path,
        policy_text: &str,
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Self {
        for _ in 0..5 {
            if let Some(process) = Self::spawn(directory, policy_text, arguments, variables).await {
                return process;
            }
        }
        panic!("no free port");
    }

    /// `None` where another process has the port.
    async fn spawn(
        directory: &Path,
        policy_text: &str,
        arguments: &[&str],
        variables: &[(&str, &Path)],
    ) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let policy = directory.join("policy.toml");
        std::fs::write(&policy, policy_text).unwrap();
        let log = directory.join(format!("log-{number}"));
        let to_log = std::fs::File::create(&log).unwrap();
        let address = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["serve", "--listen", &address.to_string(), "--threads", "2"])
            .args(["--policy", policy.to_str().unwrap()])
            .args(arguments)
            // All that is written about requests, so that tests see what is not to be in it.
            .args(["--log", "info,tollgate=debug"])
            .env_remove("TOLLGATE_CONFIG")
            // Whom this machine trusts is no part of a test.
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .envs(variables.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(to_log.try_clone().unwrap())
            .stderr(to_log)
            .spawn()
            .unwrap();
        let mut process = Self { child, address, log };
        if process.is_up().await {
            return Some(process);
        }
        let log = process.log();
        assert!(log.contains("listen"), "`tollgate serve` ended:\n{log}");
        None
    }

    async fn is_up(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(_ended) = self.child.try_wait().unwrap() {
                return false;
            }
            if tokio::net::TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not up within {PATIENCE:?}:\n{}", self.log());
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn client(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(connect(self.address).await)
    }

    /// Whether `grpc.health.v1` says that it serves; `None` where it does not answer.
    pub(crate) async fn is_serving(&self) -> Option<bool> {
        let mut health = tonic_health::pb::health_client::HealthClient::new(connect(self.address).await);
        let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await.ok()?;
        Some(answer.into_inner().status() == tonic_health::pb::health_check_response::ServingStatus::Serving)
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops the process where it stands: connections stay, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success(), "kill {signal} {pid}");
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.signal("-TERM");
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "did not end within {PATIENCE:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}
