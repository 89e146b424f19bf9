//! How much more a cluster of Redis carries with each shard, where several organizations spread over it.
//!
//! `make bench-shards`. Everything runs on this machine, whose cores the load, the service and all nodes share: calls per second say nothing of
//! growth here. What says it is the node that works most: it is the first that is full. The figure is its CPU time for each call of all
//! organizations, beside that of the one node of the same run that has them all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a program for developers: it stops where it cannot measure"
)]

#[path = "../support/process.rs"]
#[allow(dead_code, reason = "not all benchmarks need all of it")]
mod process;

use std::{
    fs,
    net::SocketAddr,
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use process::{Process, free_address};
use tempfile::TempDir;
use tollgate::rpc::proto::{self, policy_service_client::PolicyServiceClient};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;
/// The most shards.
const MAX_SHARDS: u16 = 3;
/// Organizations: as many on each node, whether there are one, two or three.
const ORGANIZATIONS: usize = 6;
/// Calls in flight.
const IN_FLIGHT: usize = 64;
/// How long each part may take to be ready.
const READY: Duration = Duration::from_secs(60);
const MODEL: &str = "openai/gpt-oss-20b";

/// Measures the CPU of the busiest of 1, 2 and 3 nodes of a cluster for each decision, with six organizations.
#[derive(Parser)]
struct Options {
    /// How long each measurement takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often each number of shards is measured, in turn
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Passed by cargo; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was measured with one number of shards.
struct Sample {
    calls: u64,
    elapsed: Duration,
    /// Of the node that worked most.
    busiest: Duration,
    service: Duration,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("redis-server is not installed: NOTHING IS MEASURED");
        return ExitCode::FAILURE;
    }
    let mut samples: Vec<Vec<Sample>> = (0..MAX_SHARDS).map(|_| Vec::new()).collect();
    for turn in 1..=options.turns {
        for shards in 1..=MAX_SHARDS {
            let sample = measure(shards, Duration::from_secs_f64(options.seconds));
            eprintln!("turn {turn}/{}: {shards} shards, {} calls", options.turns, sample.calls);
            samples[usize::from(shards - 1)].push(sample);
        }
    }
    println!(
        "{ORGANIZATIONS} organizations, {IN_FLIGHT} calls in flight, medians of {} turns",
        options.turns
    );
    println!("shards   calls/s   service CPU/call   busiest node's CPU/call   a full node of it carries");
    let mut alone = None;
    for (index, samples) in samples.iter().enumerate() {
        let median = |value: &dyn Fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
        let calls = |sample: &Sample| sample.calls as f64;
        let busiest = median(&|sample| sample.busiest.as_secs_f64() * 1e6 / calls(sample));
        let service = median(&|sample| sample.service.as_secs_f64() * 1e6 / calls(sample));
        let rate = median(&|sample| calls(sample) / sample.elapsed.as_secs_f64());
        let growth = *alone.get_or_insert(busiest) / busiest;
        println!(
            "{:>6}   {rate:>7.0}   {service:>13.1} µs   {busiest:>20.2} µs   {growth:.2} of what one carries",
            index + 1
        );
    }
    ExitCode::SUCCESS
}

/// A cluster without replicas or persistence.
struct Cluster {
    nodes: Vec<(Process, SocketAddr)>,
    _directory: TempDir,
}

impl Cluster {
    fn start(shards: u16) -> Self {
        let directory = TempDir::new().unwrap();
        let nodes: Vec<_> = (0..shards)
            .map(|index| {
                // The bus has a port of its own, 10,000 above.
                let address = loop {
                    let address = free_address();
                    if address.port() < 55_000 {
                        break address;
                    }
                };
                let own = directory.path().join(index.to_string());
                fs::create_dir(&own).unwrap();
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
                command.args(["--cluster-enabled", "yes", "--save", "", "--appendonly", "no"]);
                command.args(["--loglevel", "warning", "--dir"]).arg(&own).stdout(Stdio::null());
                (Process::start(&mut command), address)
            })
            .collect();
        let cluster = Self { nodes, _directory: directory };
        for (index, first) in (0..shards).zip(cluster.ranges(shards)) {
            let last = cluster.ranges(shards).nth(usize::from(index) + 1).unwrap_or(SLOTS) - 1;
            cluster.ask(index, &["ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            cluster.ask(index, &["SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let port = cluster.nodes[0].1.port().to_string();
        for index in 1..shards {
            cluster.ask(index, &["MEET", "127.0.0.1", &port]);
        }
        let started = Instant::now();
        while !(0..shards).all(|index| cluster.ask(index, &["INFO"]).contains("cluster_state:ok")) {
            assert!(started.elapsed() < READY, "the cluster is not up");
            thread::sleep(Duration::from_millis(20));
        }
        cluster
    }

    /// The first slot of each of so many nodes.
    fn ranges(&self, shards: u16) -> impl Iterator<Item = u16> {
        (0..shards).map(move |index| SLOTS / shards * index)
    }

    fn ask(&self, index: u16, words: &[&str]) -> String {
        let address = self.nodes[usize::from(index)].1;
        let client = redis::Client::open(format!("redis://{address}/")).unwrap();
        let started = Instant::now();
        loop {
            let answer = client
                .get_connection()
                .and_then(|mut node| redis::cmd("CLUSTER").arg(words).query::<redis::Value>(&mut node));
            match answer {
                Ok(value) => return redis::from_redis_value(value).unwrap_or_default(),
                Err(error) => assert!(started.elapsed() < READY, "CLUSTER {words:?}: {error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Names of organizations of which each node has as many, however many nodes there are: two in each sixth of the slots.
    fn organizations(&self) -> Vec<String> {
        let mut found: Vec<Option<String>> = vec![None; ORGANIZATIONS];
        for name in (0..).map(|number| format!("org-{number}")) {
            let slot: usize = self.ask(0, &["KEYSLOT", &name]).parse().unwrap();
            let part = slot * ORGANIZATIONS / usize::from(SLOTS);
            found[part].get_or_insert(name);
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.into_iter().flatten().collect()
    }

    fn cpu(&self) -> Vec<Duration> {
        self.nodes.iter().map(|(node, _)| node.cpu()).collect()
    }
}

fn measure(shards: u16, length: Duration) -> Sample {
    let (cluster, directory) = (Cluster::start(shards), TempDir::new().unwrap());
    let organizations = cluster.organizations();
    for organization in &organizations {
        let text = format!(
            "[organization]\nid = \"{organization}\"\nrequests_per_minute = 100000000\n[teams.bot]\nmodels = [\"*\"]\n\
             max_output_tokens = 1000\nmax_unsettled = 10000000\ntokens_per_minute = 1000000000000\nbudget = {{ monthly_usd = \"9000000\" }}\n"
        );
        fs::write(directory.path().join(format!("{organization}.toml")), text).unwrap();
    }
    let seeds: Vec<_> = cluster.nodes.iter().map(|(_, address)| address.to_string()).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args([
        "serve",
        "--listen=127.0.0.1:0",
        "--admin-enabled=false",
        "--log=error",
        "--store-timeout=5s",
    ]);
    command.arg("--policy-directory").arg(directory.path());
    command.arg(format!("--store=redis+cluster://{}", seeds.join(","))).current_dir(directory.path());
    let (service, address) = Process::start_server(&mut command);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let sample = runtime.block_on(load(address, organizations, length, || (cluster.cpu(), service.cpu())));
    let ((nodes, own), (nodes_after, own_after), calls, elapsed) = sample;
    let busiest = nodes.iter().zip(&nodes_after).map(|(before, after)| *after - *before).max().unwrap();
    Sample { calls, elapsed, busiest, service: own_after - own }
}

type Cpu = (Vec<Duration>, Duration);

async fn load(
    address: SocketAddr,
    organizations: Vec<String>,
    length: Duration,
    cpu: impl Fn() -> Cpu,
) -> (Cpu, Cpu, u64, Duration) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().tcp_nodelay(true);
    let channel = endpoint.connect().await.unwrap();
    for organization in &organizations {
        let started = Instant::now();
        while ask(&mut PolicyServiceClient::new(channel.clone()), organization).await.is_err() {
            assert!(started.elapsed() < READY, "{organization} is not decided for");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (calls, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..IN_FLIGHT {
        let (mut client, organizations) = (PolicyServiceClient::new(channel.clone()), organizations.clone());
        let (calls, is_over) = (Arc::clone(&calls), Arc::clone(&is_over));
        callers.spawn(async move {
            for organization in organizations.iter().cycle().skip(number) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let answer = ask(&mut client, organization).await.expect("an answer");
                assert_eq!(answer.decision(), proto::Decision::Allowed);
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Scripts are loaded, and limits compiled.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, first, started) = (cpu(), calls.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(length).await;
    let (after, last, elapsed) = (cpu(), calls.load(Ordering::Relaxed), started.elapsed());
    is_over.store(true, Ordering::Relaxed);
    while callers.join_next().await.is_some() {}
    (before, after, last - first, elapsed)
}

async fn ask(
    client: &mut PolicyServiceClient<Channel>,
    organization: &str,
) -> Result<proto::AuthorizeResponse, tonic::Status> {
    let mut request = Request::new(proto::AuthorizeRequest {
        caller: Some(proto::authorize_request::Caller::Team("bot".to_owned())),
        model: MODEL.to_owned(),
        operation: proto::Operation::ChatCompletion.into(),
        input_tokens: 100,
        max_output_tokens: 100,
        ..Default::default()
    });
    request.metadata_mut().insert("tollgate-organization", organization.parse().unwrap());
    client.authorize(request).await.map(tonic::Response::into_inner)
}
