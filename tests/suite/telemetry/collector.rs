//! A real collector receives metrics and spans.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;
use tonic::Request;

use super::{MODEL, POLICY, start};
use crate::{
    clients::{Missing, install_once, installed, run, skip, sources},
    guard::Guarded,
    harness::{StoreKind, chat, eventually, used},
    redis_server::{RedisServer, free_port},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// Where rotel's own binary is, installed from PyPI once.
fn install_rotel() -> Result<PathBuf, Missing> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // A test that has failed leaves nothing worse than a directory to be made again.
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let venv = installed("rotel");
    let requirements = sources().join("rotel/requirements.txt");
    install_once(&venv, &requirements, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "-r",
        ];
        run(Command::new(venv.join("bin/python")).args(pip).arg(&requirements))
    })?;
    let find = "import os, rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
    let found =
        Command::new(venv.join("bin/python")).args(["-c", find]).output().map_err(|e| e.to_string())?;
    let path = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    if path.is_file() { Ok(path) } else { Err(format!("{}: not there", path.display())) }
}

/// A request with a trace.
fn traced<T>(message: T, trace: &str, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{trace}-{SPAN}-{flags}").parse().unwrap();
    request.metadata_mut().insert("traceparent", header);
    request
}

/// rotel, which notes what it receives.
struct Collector {
    directory: TempDir,
    endpoint: String,
    _running: Guarded,
}

impl Collector {
    async fn start(rotel: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let own = directory.path();
        let (grpc, http) = (free_port().to_string(), free_port().to_string());
        let pid = own.join("pid");
        let collector = [
            &["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http][..],
            &["--pid-file", pid.to_str().unwrap(), "--exporter", "blackhole"],
            &["--debug-log", "traces", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"],
        ]
        .concat();
        let running = Guarded::start(own, rotel, &collector);
        eventually("rotel listens", async || tokio::net::TcpStream::connect(&grpc).await.is_ok()).await;
        Self { endpoint: format!("--otlp-endpoint=http://{grpc}"), directory, _running: running }
    }

    fn received(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

/// A report that is spooled says so in its span.
#[tokio::test(flavor = "multi_thread")]
async fn a_span_says_that_a_report_is_spooled() {
    if !StoreKind::Redis.is_available() {
        return;
    }
    let rotel = match tokio::task::spawn_blocking(install_rotel).await.unwrap() {
        Ok(rotel) => rotel,
        Err(missing) => return skip("rotel", &missing),
    };
    let (collector, directory, mut redis) =
        (Collector::start(&rotel).await, TempDir::new().unwrap(), RedisServer::start());
    let spool = format!("--spool-directory={}", directory.path().join("spool").display());
    let store = format!("--store={}", redis.url());
    let arguments = [&*store, &spool, &collector.endpoint, "--otlp-interval=1s"];
    let (process, _) = start(&directory, POLICY, &arguments).await;
    let mut client = process.client().await;
    let mut id = String::new();
    eventually("it serves", async || {
        let answer = client.authorize(chat("chatbot", MODEL, 100, 100)).await;
        id = answer.map(|answer| answer.into_inner().reservation_id).unwrap_or_default();
        !id.is_empty()
    })
    .await;
    redis.kill();
    let answer = client.record_usage(traced(used(&id, 100, 50), TRACE, "01")).await.unwrap();
    assert!(answer.into_inner().spooled);
    eventually("its span has arrived", async || {
        let received = collector.received();
        received.contains(TRACE) && received.contains("tollgate.spooled") && received.contains(&id)
    })
    .await;
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_receives_metrics_and_the_spans_of_traced_calls() {
    let rotel = match tokio::task::spawn_blocking(install_rotel).await.unwrap() {
        Ok(rotel) => rotel,
        Err(missing) => return skip("rotel", &missing),
    };
    let directory = TempDir::new().unwrap();
    let collector = Collector::start(&rotel).await;
    let log = "--decision-log-allowed=100%";
    let arguments = [&*collector.endpoint, "--otlp-interval=1s", "--log-format=json", log];
    let (process, _) = start(&directory, POLICY, &arguments).await;
    let mut client = process.client().await;
    let request = || chat("chatbot", MODEL, 100, 100);
    let unsampled = "11111111111111111111111111111111";
    client.authorize(traced(request(), unsampled, "00")).await.unwrap();
    client.authorize(request()).await.unwrap();
    let allowed = client.authorize(traced(request(), TRACE, "01")).await.unwrap().into_inner();
    let other = "22222222222222222222222222222222";
    client.record_usage(traced(used(&allowed.reservation_id, 100, 50), other, "01")).await.unwrap();
    eventually("metrics and spans have arrived", async || {
        let received = collector.received();
        [
            "tollgate.decisions",
            "tollgate.decision.duration",
            "gen_ai.client.inference.usage.output_tokens",
            TRACE,
            other,
        ]
        .iter()
        .all(|part| received.contains(part))
    })
    .await;
    let received = collector.received();
    for part in [
        "tollgate.v1.PolicyService/Authorize",
        "tollgate.v1.PolicyService/RecordUsage",
        "store reserve",
        "decide",
        SPAN,
        "tollgate.reservation_id",
        &allowed.reservation_id,
        "gen_ai.usage.output_tokens",
        "service.name",
    ] {
        assert!(received.contains(part), "no `{part}`:\n{received}");
    }
    assert!(!received.contains(unsampled), "its caller does not record it");
    // The settlement is linked to the decision: its trace stands with the settlement's span as well.
    let (_, settlement) = received.split_once("tollgate.v1.PolicyService/RecordUsage").unwrap();
    assert!(settlement.contains(TRACE), "{settlement}");
    let log = process.log();
    let line = log.lines().find(|line| line.contains("request allowed") && line.contains(TRACE));
    assert!(line.is_some_and(|line| line.contains(&allowed.reservation_id)), "{log}");
    process.stop().await;
    drop(collector);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_delays_nothing() {
    let directory = TempDir::new().unwrap();
    let endpoint = format!("--otlp-endpoint=http://{}", free_port());
    let arguments = [&*endpoint, "--otlp-interval=1s", "--trace-sample=100%"];
    let (process, _) = start(&directory, POLICY, &arguments).await;
    let mut client = process.client().await;
    let started = std::time::Instant::now();
    for _ in 0..50 {
        client.authorize(chat("research", MODEL, 1, 1)).await.unwrap();
    }
    assert!(started.elapsed() < crate::harness::PATIENCE, "{:?}", started.elapsed());
    process.stop().await;
}
