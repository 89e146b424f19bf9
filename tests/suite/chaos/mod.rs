//! Chaos: real processes, faults one after another by a plan that a seed decides, and gateways whose ledger is compared with the books.
//!
//! Each world is a kind of Redis, with three replicas of the service, and gateways that reach them through proxies. After each fault
//! the gateways have to make progress, and at the end: every acknowledged settlement is in the books (beyond what the topology may lose),
//! none is there twice, no budget is exceeded, and nothing is left reserved.

mod alone;
mod cluster;
mod fleet;
mod full_disk;
mod plan;
mod proxy;
mod watched;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tollgate::rpc::proto;

use self::{
    fleet::{COST, Fleet, Ledger, SMALL, TEAMS},
    plan::Dice,
    proxy::Proxy,
};
use crate::harness::{Process, eventually, nanos};

/// How many processes serve.
const REPLICAS: usize = 3;
/// How long the service waits for the store. Longer than by default, as the machine is busy.
const STORE_TIMEOUT: &str = "--store-timeout=500ms";
/// A write is at risk in a failover from so long before it: `min-replicas-max-lag`, the second for which Redis looks at it, and a busy machine.
const LAG: Duration = Duration::from_secs(4);
/// Acknowledged before a server died, and noted a little later.
const NOTED: Duration = Duration::from_millis(300);

/// What can happen to the service and the way to it, whatever the store is.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    Stop,
    Cut,
    Delay,
}

struct Replica {
    process: Option<Process>,
    /// Between it and the gateways.
    proxy: Proxy,
    store: String,
}

/// The processes that serve.
struct Replicas {
    directory: TempDir,
    policy: String,
    all: Vec<Replica>,
    /// Where each process wrote its log, also those that are gone.
    logs: Vec<PathBuf>,
}

impl Replicas {
    /// One for each address of the store. `directory` has the file of a password, if there is one.
    async fn start(directory: TempDir, organization: &str, stores: Vec<String>) -> Self {
        let policy = fleet::policy(organization);
        let (mut all, mut logs) = (Vec::new(), Vec::new());
        for store in stores {
            let process = serve(&directory, &policy, &store).await;
            logs.push(process.log_path().to_owned());
            let proxy = Proxy::start(process.address()).await;
            all.push(Replica { process: Some(process), proxy, store });
        }
        Self { directory, policy, all, logs }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|replica| replica.proxy.address()).collect()
    }

    /// Starts one again, on another port.
    async fn revive(&mut self, index: usize) {
        let process = serve(&self.directory, &self.policy, &self.all[index].store).await;
        self.all[index].proxy.lead_to(process.address());
        self.logs.push(process.log_path().to_owned());
        self.all[index].process = Some(process);
    }

    async fn suffer(&mut self, fault: Fault, dice: &mut Dice, fleet: &mut Fleet) {
        let index = dice.roll(self.all.len());
        println!("{fault:?} of replica {index}");
        let what = "calls are acknowledged beside a replica's fault";
        match fault {
            Fault::Kill => {
                self.all[index].process.take().unwrap().kill();
                fleet.progress(what).await;
                self.revive(index).await;
            }
            Fault::Stop => {
                self.all[index].process.take().unwrap().stop().await;
                fleet.progress(what).await;
                self.revive(index).await;
            }
            Fault::Freeze => {
                self.all[index].process.as_ref().unwrap().freeze();
                fleet.progress(what).await;
                self.all[index].process.as_ref().unwrap().thaw();
            }
            Fault::Cut => self.all[index].proxy.cut(Duration::from_millis(500)).await,
            Fault::Delay => {
                let delay = Duration::from_millis(u64::try_from(20 + dice.roll(300)).unwrap());
                self.all[index].proxy.delay(delay, Duration::from_secs(1)).await;
            }
        }
    }

    /// How much was booked past all limits, by what the replicas say: what a failover forgot, and what was sent although its reservation was
    /// released as its caller had left.
    fn past_limits(&self) -> [u64; 2] {
        let logs: String = self.logs.iter().filter_map(|log| std::fs::read_to_string(log).ok()).collect();
        let number = |line: &str, name: &str| {
            let rest = line.split_once(name)?.1;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse::<u64>().ok()
        };
        let replays = logs.lines().filter(|line| line.contains("redis had forgotten some of what"));
        let replayed = replays.map(|line| {
            let counts = [" reservations=", " settlements="].map(|name| number(line, name));
            counts.map(|count| count.expect("a line of a replay has its counts")).iter().sum::<u64>()
        });
        [replayed.sum(), logs.matches("whose reservation had been released; booking it again").count() as u64]
    }

    /// Compares the ledger with the books: what was acknowledged within `at_risk` may be lost.
    async fn compare(&self, ledger: &Ledger, at_risk: &[(Instant, Instant)]) {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "{} forgotten, {} repeated, {} denied",
            counted(&ledger.forgotten),
            counted(&ledger.repeated),
            counted(&ledger.denied)
        );
        let [replayed, sent] = self.past_limits();
        println!("{replayed} booked again after failovers, {sent} sent after their release");
        let process = self.all[0].process.as_ref().unwrap();
        let mut client = process.client().await;
        for (index, team) in TEAMS.into_iter().enumerate() {
            let acknowledged = ledger.of(index);
            let is_at_risk = |at: &&Instant| at_risk.iter().any(|(from, to)| from <= *at && *at <= to);
            let may_be_lost = acknowledged.iter().filter(is_at_risk).count() as u64;
            let expected = COST * acknowledged.len() as u64;
            // What a failover brings back of what was settled or released holds its reservation until that ends.
            let repeated = if at_risk.is_empty() { 0 } else { counted(&ledger.repeated) };
            let may_be_left = COST * (may_be_lost + repeated);
            let (mut spent, mut reserved) = (0, 0);
            eventually("nothing is left reserved", async || {
                let request = proto::GetSpendRequest { team: team.to_owned(), ..Default::default() };
                let answer = client.get_spend(request).await.ok();
                let report = answer.and_then(|answer| answer.into_inner().teams.pop());
                let Some(found) = report.and_then(|report| report.spend) else { return false };
                (spent, reserved) = (nanos(found.spent), nanos(found.reserved));
                reserved <= may_be_left
            })
            .await;
            let count = acknowledged.len();
            println!(
                "{team}: {count} acknowledged, {spent} booked, {reserved} reserved, {may_be_lost} at risk"
            );
            assert_eq!(spent % COST, 0, "nothing is booked in part");
            assert!(spent <= expected, "{team}: {spent} are booked, {expected} were acknowledged");
            let lost = (expected - spent) / COST;
            assert!(lost <= may_be_lost, "{team}: {lost} are lost, of {may_be_lost} that may be");
            if index == 1 {
                // What was forgotten is booked again beside what was admitted until then. Where nothing may be forgotten, nothing is.
                // Replicas do not say of which team it was; of this one it is no more than was acknowledged while that may have been lost.
                let more = if at_risk.is_empty() { 0 } else { replayed.min(may_be_lost) + sent };
                let bound = (SMALL + more) * COST;
                assert!(spent + reserved <= bound, "{spent} and {reserved}: the budget holds");
            }
        }
        if at_risk.is_empty() {
            assert_eq!(counted(&ledger.forgotten), 0, "nothing is forgotten");
        }
    }
}

async fn serve(directory: &TempDir, policy: &str, store: &str) -> Process {
    let password = directory.path().join("password");
    let password = password.exists().then(|| format!("--redis-password-file={}", password.display()));
    let store = format!("--store={store}");
    let mut arguments = vec![&*store, STORE_TIMEOUT, "--admin-enabled=false"];
    arguments.extend(password.as_deref());
    Process::start_arguments(directory.path(), policy, &arguments).await
}
