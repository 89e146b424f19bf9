//! `tollgate simulate`: synthetic traffic through the real gRPC API, and the invariants checked from outside.

mod ledger;
mod play;
mod rng;
mod traffic;
mod verdict;
mod window;

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::net::TcpListener;

use self::{
    ledger::Ledger,
    play::{Event, Stage, Time},
    traffic::Traffic,
    verdict::Evidence,
};
use super::{
    client::{self, CallArgs, Client},
    screen::{Exit, Failure, Screen, progress_is_seen},
    spend,
};
use crate::{
    app::{App, Listen, Parts},
    domain::{Timestamp, policy::Policy, snapshot::document_revision},
    policy_file::{EXAMPLE_POLICY, load_policy, parse_policy},
    runtime::{
        Entropy, TemporaryDirectory,
        clock::{Clock, ManualClock},
    },
    store::embedded::EmbeddedStore,
};

/// Connections; each lands on one core of the service.
const CONNECTIONS: usize = 4;
/// How long a single call to the server of this process may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(100);
/// The simulated run begins this long after the month does: past midnight in every time zone.
const MORNING_MS: u64 = 36 * 3600 * 1000;
/// The part of a window, in thousandths, by which the clocks of two machines may differ.
const CLOCK_SLACK: u64 = 10;

/// Plays synthetic traffic of all teams through the real gRPC API, and checks that the books hold.
///
/// By default it starts a server of its own, on a free port and with an empty embedded store in a temporary directory,
/// and moves that server's clock itself: hours of traffic take seconds. Requests come in bursts, many at once; some are
/// aborted, fail, are repeated, are reported twice, or were never authorized.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 every invariant holds, 1 one is broken, 2 failed to run.

Examples:
  tollgate simulate
  tollgate simulate --policy policy.toml --requests 50000 --seed 7
  tollgate simulate --keep
  tollgate simulate --policy policy.toml --address 127.0.0.1:50051

With --keep the console shows the simulated days. With --address a running service is played to, in real time; it must
run the same policy and serve no one else during the run.")]
pub(super) struct Simulate {
    /// The policy whose teams, models and limits are played [default: the built-in example]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How many requests
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    requests: u64,
    /// The most requests that come at the same instant
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    concurrency: u64,
    /// Repeats a run's traffic [default: a new one, which is printed]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Use a running service instead, which then books the synthetic traffic
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    #[command(flatten)]
    call: CallArgs,
    /// Leave the server and its console running afterwards, until Ctrl-C
    #[arg(long, conflicts_with = "address")]
    keep: bool,
    /// Print the figures and the verdict as JSON
    #[arg(long)]
    json: bool,
}

/// A clock that the simulation moves, and the server reads.
struct Simulated(ManualClock);

impl Time for Simulated {
    fn now(&self) -> u64 {
        self.0.now().0
    }

    fn set(&self, at: u64) {
        self.0.set(Timestamp(at));
    }
}

/// Real time. Events are played one after the other, whatever time they were planned for.
struct Measured(Instant);

impl Time for Measured {
    fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn set(&self, _: u64) {}
}

/// Where and when to play.
struct Scene<T> {
    seed: u64,
    address: String,
    time: Arc<T>,
    /// When the first requests come.
    start: u64,
    /// Whether the clock is the store's own.
    simulated: bool,
}

impl Simulate {
    pub(super) fn run(self, screen: &mut Screen) -> Result<Exit, Failure> {
        let report = match &self.policy {
            Some(path) => load_policy(path),
            None => parse_policy(EXAMPLE_POLICY, "the built-in example"),
        };
        let text = report.to_string();
        let policy =
            report.policy.ok_or_else(|| Failure::new(format!("the policy does not load:\n{text}")))?;
        client::block_on(self.simulate(Arc::new(policy), screen))
    }

    async fn simulate(&self, policy: Arc<Policy>, screen: &mut Screen) -> Result<Exit, Failure> {
        let run = random()?;
        let seed = self.seed.unwrap_or(run.into());
        if !self.json {
            writeln!(screen, "seed {seed}, {} requests, policy {}", self.requests, policy.revision)?;
            screen.flush()?;
        }
        let start = morning(&policy)?;
        let traffic = Traffic::new(&policy, start, seed, run).ok_or_else(|| {
            Failure::new("the policy lets no team use a model that has a price; there is nothing to play")
        })?;
        if let Some(address) = self.address.clone() {
            let time = Arc::new(Measured(Instant::now()));
            let scene = Scene { seed, address, time, start: 0, simulated: false };
            return unless_interrupted(self.play(policy, traffic, scene, screen)).await;
        }
        let directory = TemporaryDirectory::new("simulate");
        let directory = directory.map_err(|error| Failure::new(error.to_string()))?;
        let clock = ManualClock::new(start);
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone()))
            .map_err(|error| Failure::new(error.to_string()))?;
        // The service lives in this process alone: there is no other caller to tell apart.
        let own = Policy { access: None, ..(*policy).clone() };
        let parts = Parts { runtime: Clock::Manual(clock.clone()).into(), ..Parts::new(Arc::new(own)) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = Listen { address, threads: 2, drain: TIMEOUT, tls: None };
        let (app, pages) = (App::new(parts), store.clone());
        let server =
            app.serve(listen, move || Ok(store.clone())).map_err(|error| Failure::new(error.to_string()))?;
        let (address, time) = (server.address().to_string(), Arc::new(Simulated(clock)));
        let scene = Scene { seed, address, time, start: start.0, simulated: true };
        let organization = Arc::clone(&policy.organization.id);
        let ended = unless_interrupted(self.play(policy, traffic, scene, screen)).await;
        if self.keep && ended.is_ok() {
            keep(&app, pages, &organization, server.address(), screen).await?;
        }
        server.stop().await;
        ended
    }

    async fn play<T: Time>(
        &self,
        policy: Arc<Policy>,
        mut traffic: Traffic,
        scene: Scene<T>,
        screen: &mut Screen,
    ) -> Result<Exit, Failure> {
        let Scene { seed, address, time, start, simulated } = scene;
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            clients.push(self.connect(&address).await?);
        }
        let mut client = self.connect(&address).await?;
        let before = spend_of(&mut client, "").await?;
        let running = document_revision(&before.policy_revision);
        if *running != *policy.revision {
            return Err(Failure::new(format!(
                "the service runs policy {running}, not {}; give its own with --policy",
                policy.revision
            )));
        }
        let (mut stage, mut ledger) = (Stage::new(clients), Ledger::new(Arc::clone(&policy)));
        let (mut made, mut next, mut progress) = (0, start, Progress::new(self.requests));
        while made < self.requests || stage.next_at().is_some() {
            if made < self.requests && stage.next_at().is_none_or(|at| next <= at) {
                let (jobs, gap) = traffic.burst(self.concurrency.min(self.requests - made));
                for job in jobs {
                    made += 1;
                    stage.plan(next, Event::Arrives(Box::new(job)));
                }
                next += gap;
            }
            stage.step(&time, &mut ledger).await?;
            progress.show(&ledger);
        }
        progress.clear();
        let after = spend_of(&mut client, &before.month).await?;
        let took = progress.started.elapsed();
        let span = next.saturating_sub(start);
        let span = simulated.then_some(span);
        if !self.json {
            print_traffic(screen, &ledger, took, span)?;
            spend::print(screen, &after)?;
            writeln!(screen)?;
        }
        if spend_of(&mut client, "").await?.month != before.month {
            return Err(Failure::new(
                "the month ended during the run, so its books cannot be compared; run it again",
            ));
        }
        let slack_thousandths = if simulated { 0 } else { CLOCK_SLACK };
        let evidence = Evidence {
            policy: &policy,
            ledger: &mut ledger,
            before: &before,
            after: &after,
            slack_thousandths,
        };
        let invariants = evidence.judge();
        match self.json {
            true => screen.json(&verdict::to_json(&ledger, seed, &policy, &invariants))?,
            false => verdict::print(screen, &invariants)?,
        }
        let holds = invariants.iter().all(|invariant| invariant.broken.is_empty());
        Ok(if holds { Exit::Done } else { Exit::Denied })
    }

    /// Connects to the running service that was named, or to the one of this process.
    async fn connect(&self, address: &str) -> Result<Client, Failure> {
        match self.address {
            Some(_) => self.call.channel(address).await.map(Client::new),
            None => client::connect(address, TIMEOUT).await,
        }
    }
}

/// Does `work`, unless the terminal interrupts it.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        ended = work => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
    }
}

/// Serves the console of `app`, whose clock stands still, until the terminal interrupts it.
async fn keep(
    app: &App,
    store: EmbeddedStore,
    organization: &str,
    grpc: SocketAddr,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let failure = |error: &dyn std::fmt::Display| Failure::new(format!("cannot serve the console: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| failure(&error))?;
    let address = listener.local_addr().map_err(|error| failure(&error))?;
    let door = app.open_door().map_err(|error| failure(&error))?;
    // On the standard error: what is printed on the other may be JSON.
    screen.flush()?;
    let _ = writeln!(
        io::stderr(),
        "\nconsole http://{address}/console/{organization}/\ngRPC    {grpc}\nCtrl-C ends both."
    );
    tokio::select! {
        () = app.serve_pages(listener, None, Some(door), store) => {}
        _ = tokio::signal::ctrl_c() => app.end_streams().await,
    }
    Ok(())
}

async fn spend_of(client: &mut Client, month: &str) -> Result<crate::rpc::proto::GetSpendResponse, Failure> {
    spend::fetch(client, String::new(), month.to_owned()).await
}

/// The simulated run begins at the start of the current month, which then lasts long enough for a million requests.
fn morning(policy: &Policy) -> Result<Timestamp, Failure> {
    let month = policy.calendar.today(Clock::System.now()).month;
    Ok(month.start.plus(MORNING_MS))
}

fn random() -> Result<u32, Failure> {
    Entropy::System.bytes().map(u32::from_le_bytes).map_err(|error| Failure::new(error.to_string()))
}

fn print_traffic(
    screen: &mut Screen,
    ledger: &Ledger,
    took: Duration,
    simulated: Option<u64>,
) -> io::Result<()> {
    let denied = ledger.requests - ledger.allowed;
    let span = simulated.map(|ms| format!(", over {} simulated minutes", ms / 60_000)).unwrap_or_default();
    writeln!(screen, "{} allowed, {denied} denied in {:.1} s{span}", ledger.allowed, took.as_secs_f64())?;
    for (reason, count) in &ledger.denied {
        writeln!(screen, "  {count:>8} times {reason}")?;
    }
    writeln!(screen)
}

/// A line on a terminal that says how far the run is.
struct Progress {
    of: u64,
    started: Instant,
    shown: Option<Instant>,
    seen: bool,
}

impl Progress {
    fn new(of: u64) -> Self {
        Self { of, started: Instant::now(), shown: None, seen: progress_is_seen() }
    }

    fn show(&mut self, ledger: &Ledger) {
        if !self.seen || self.shown.is_some_and(|shown| shown.elapsed() < PROGRESS) {
            return;
        }
        self.shown = Some(Instant::now());
        let done = usize::try_from(ledger.requests * 30 / self.of.max(1)).unwrap_or(0).min(30);
        let (bar, rest) = ("█".repeat(done), "·".repeat(30 - done));
        // Nothing depends on it being read.
        let _ = write!(
            io::stderr(),
            "\r{bar}{rest} {}/{} requests, {} allowed",
            ledger.requests,
            self.of,
            ledger.allowed
        );
    }

    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
