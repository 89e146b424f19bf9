//! What metrics say of this process: counted as it happens, or looked at when a reader asks.

mod forecast;
mod rows;
mod sample;
mod usage;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;

use self::sample::Seen;
use super::Connections;
use crate::telemetry::CODES;
use crate::{
    access::Guard,
    alerts::Receivers,
    authorizer::Timing,
    domain::rbac::RPCS,
    reports::PastDays,
    rpc::StatusFacts,
    store::{Calls, Store},
    telemetry::{KeyValue, Meters, Metric},
    upstream::UpstreamKeys,
};

/// How changes of the policy's file went.
#[derive(Debug, Default)]
pub struct Reloads([AtomicU64; 2]);

impl Reloads {
    /// The results, in the order of their places.
    const RESULTS: [&'static str; 2] = ["loaded", "rejected"];

    /// One more was loaded, or rejected.
    pub fn add(&self, is_loaded: bool) {
        let [loaded, rejected] = &self.0;
        let count = if is_loaded { loaded } else { rejected };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where the values of metrics come from. Clones share it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What is in force, and the calls to stores.
    pub status: StatusFacts,
    /// Refusals.
    pub guard: Guard,
    /// Groq keys.
    pub upstream: Arc<UpstreamKeys>,
    /// Connections.
    pub connections: Connections,
    /// Where alerts go.
    pub receivers: Arc<Receivers>,
    /// Changes of the policy's file.
    pub reloads: Arc<Reloads>,
    /// Whether budgets of keys are shown.
    pub by_key: bool,
    /// What days cost of months that are over.
    pub past: PastDays,
    seen: Arc<ArcSwap<Seen>>,
}

impl Sources {
    /// The sources of a process.
    #[must_use]
    pub fn new(
        status: StatusFacts,
        guard: Guard,
        upstream: Arc<UpstreamKeys>,
        connections: Connections,
        receivers: Arc<Receivers>,
        by_key: bool,
    ) -> Self {
        let (reloads, past, seen) = (Arc::default(), PastDays::default(), Arc::default());
        Self { status, guard, upstream, connections, receivers, reloads, by_key, past, seen }
    }

    /// Reads budgets, limits and cooldowns from `store` again and again, until dropped.
    pub async fn follow<S: Store>(self, store: S) {
        sample::follow(self, store).await;
    }
}

/// Lets readers of `meters` ask `sources`, of each organization its own, for values, and durations be recorded there.
pub fn register(sources: Vec<Sources>, connections: &Connections, meters: &Meters) {
    if !meters.is_on() {
        return;
    }
    connections.measure(rpcs(meters));
    let calls = meters.family(Metric::StoreCallDuration, Calls::KINDS, |number| {
        let kind = Calls::kind(number).map(|(call, outcome)| (call.name(), outcome.name()));
        let (call, outcome) = kind.unwrap_or_default();
        vec![KeyValue::new("operation", call), KeyValue::new("outcome", outcome)]
    });
    for source in &sources {
        source.status.calls.measure(calls.clone());
    }
    meters.observe(move |metric, emit| match &sources[..] {
        [] => {}
        [one] => one.rows(metric, emit),
        [first, ..] if metric.is_of_process() => first.rows(metric, emit),
        several if metric.spec().names_organization() => {
            several.iter().for_each(|source| source.rows(metric, emit));
        }
        several => {
            for source in several {
                let organization = source.organization();
                source.rows(metric, &mut |value, labels| {
                    let labels = std::iter::once(&organization).chain(labels).cloned();
                    emit(value, &labels.collect::<Vec<_>>());
                });
            }
        }
    });
}

/// Where the durations of decisions are recorded.
#[must_use]
pub fn timing(meters: &Meters) -> Timing {
    let decided = |number| vec![KeyValue::new("decision", if number == 0 { "allowed" } else { "denied" })];
    Timing {
        decision: meters.family(Metric::DecisionDuration, 2, decided),
        wait: meters.family(Metric::WaitDuration, 2, decided),
    }
}

/// Where the durations of calls are recorded: by RPC, and behind the last for unknown ones, and code.
fn rpcs(meters: &Meters) -> crate::telemetry::Family {
    meters.family(Metric::RpcDuration, (RPCS.len() + 1) * CODES.len(), |number| {
        let (rpc, code) = (number / CODES.len(), number % CODES.len());
        let method = RPCS.get(rpc).map_or("_OTHER", |(path, _)| path.trim_start_matches('/'));
        vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method),
            KeyValue::new("rpc.response.status_code", CODES.get(code).copied().unwrap_or_default()),
        ]
    })
}
