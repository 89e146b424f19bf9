//! The metrics and traces of `serve`: where they are read, and where they are pushed.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::{
    domain::key::MAX_KEYS,
    settings::{OtlpHeaders, OtlpSignal, Settings},
    store::embedded::EmbeddedStore,
    telemetry::{Family, Meters, MetersError, Metric, Push, PushTls, RowBounds, trace::Tracing},
};

/// How long the end of the service waits for the collector, for traces and metrics together.
const LAST_PUSH: Duration = Duration::from_secs(2);

/// The metrics and traces of so many organizations that `settings` ask for: none where nothing could read them.
///
/// # Errors
/// The collector's address or a file for it is not usable.
pub(super) fn start(settings: &Settings, organizations: usize) -> Result<(Meters, Tracing), MetersError> {
    let push = push(settings);
    if let Some(push) = &push {
        info!(address = push.endpoint, "metrics and traces are pushed");
    }
    let meters = match settings.admin_enabled || push.is_some() {
        true => Meters::start(push.as_ref(), bounds(settings, organizations))?,
        false => Meters::default(),
    };
    Ok((meters, Tracing::start(push.as_ref(), settings.trace_sample)?))
}

fn bounds(settings: &Settings, organizations: usize) -> RowBounds {
    let keys = if settings.metrics_by_key { MAX_KEYS } else { 0 };
    let of = |rows: usize| rows.saturating_mul(organizations);
    RowBounds { teams: of(settings.metrics_max_teams), keys: of(keys), organizations }
}

fn push(settings: &Settings) -> Option<Push> {
    let pushes = |signal| settings.otlp_signals.contains(&signal);
    Some(Push {
        endpoint: settings.collector()?,
        metrics: pushes(OtlpSignal::Metrics),
        traces: pushes(OtlpSignal::Traces),
        interval: settings.otlp_interval,
        timeout: settings.otlp_timeout,
        headers: settings.otlp_headers.as_ref().map(OtlpHeaders::text).map(str::to_owned),
        headers_file: settings.otlp_headers_file.clone(),
        tls: PushTls {
            ca_file: settings.otlp_tls_ca_file.clone(),
            cert_file: settings.otlp_tls_cert_file.clone(),
            key_file: settings.otlp_tls_key_file.clone(),
        },
    })
}

/// Where the transactions of embedded stores are timed.
pub(super) struct Transactions {
    commits: Family,
    syncs: Family,
}

impl Transactions {
    pub(super) fn new(meters: &Meters) -> Self {
        let family = |metric| meters.family(metric, 1, |_| Vec::new());
        Self { commits: family(Metric::CommitDuration), syncs: family(Metric::SyncDuration) }
    }

    /// The store, with its transactions timed.
    pub(super) fn timed(&self, store: EmbeddedStore) -> EmbeddedStore {
        store.timed(self.commits.clone(), self.syncs.clone())
    }
}

/// Pushes what is left.
pub(super) async fn end(meters: Meters, tracing: Tracing) {
    // On a thread of its own, as this one drives the connection to the collector.
    let last = tokio::task::spawn_blocking(move || {
        let until = Instant::now() + LAST_PUSH;
        tracing.end(LAST_PUSH);
        meters.end(until.saturating_duration_since(Instant::now()));
    });
    if last.await.is_err() {
        warn!("the last push to the collector panicked");
    }
}
