//! The provider of all metrics, and its readers.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter, MeterProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    metrics::{Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream},
};
use prometheus::{Encoder as _, Registry, TextEncoder};
use thiserror::Error;

use super::{
    Family, Kind, METRICS, Metric, Push, Spec,
    family::{Measured, boundaries},
    process,
};

/// The rows that a metric may have for the service as a whole.
const ROWS: usize = 1_000;
/// The rows that a metric may have for each team: a gauge of the team alone, of its budgets or limits, a counter by scope and reason,
/// and one by model.
const OF_TEAM: usize = 1;
const OF_LIMITS: usize = 16;
const OF_REASONS: usize = 64;
const OF_MODELS: usize = 128;
/// The metric whose reading hands on the durations that threads hold back.
const FIRST: Metric = Metric::BuildInfo;
/// Budgets of a key.
const OF_KEY: usize = 3;
/// What the names begin with, as Prometheus' library writes them, of metrics that its page does not have.
const PUSHED_ONLY: &str = "gen_ai_";
/// How long a page is told again, so that several scrapers cost no more than one.
const CACHED: Duration = Duration::from_secs(1);

/// Takes one row: its value and its labels.
pub type Emit<'a> = &'a mut dyn FnMut(f64, &[KeyValue]);

/// How many rows there may be. The library makes room for all of them at once, and cuts off what is past that.
#[derive(Clone, Copy, Debug)]
pub struct RowBounds {
    /// Teams that are shown by name.
    pub teams: usize,
    /// Keys that are shown by name.
    pub keys: usize,
    /// Organizations that are served; 0 is as 1.
    pub organizations: usize,
}

impl RowBounds {
    /// Those of one metric.
    fn of(self, spec: &Spec) -> usize {
        let has = |label| spec.labels.iter().any(|known| known.rsplit('.').next() == Some(label));
        let each = match spec.kind {
            _ if has("model") => OF_MODELS,
            Kind::Counter => OF_REASONS,
            _ if has("scope") => OF_LIMITS,
            _ => OF_TEAM,
        };
        // The others, and callers of no team.
        let teams = if has("team") { self.teams.saturating_add(2).saturating_mul(each) } else { 0 };
        let keys = if has("key") { self.keys.saturating_mul(OF_KEY) } else { 0 };
        ROWS.saturating_mul(self.organizations.max(1)).saturating_add(teams).saturating_add(keys)
    }
}

/// Why metrics cannot be set up.
#[derive(Debug, Error)]
#[error("metrics cannot be set up: {0}")]
pub struct MetersError(pub(super) String);

/// All metrics of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Meters(Option<Arc<Inner>>);

struct Inner {
    provider: SdkMeterProvider,
    /// Whether a collector gets them, too.
    is_pushed: bool,
    meter: Meter,
    registry: Registry,
    /// What holds durations back until a reader asks.
    families: Mutex<Vec<Weak<Measured>>>,
    /// Held while a page is made, so that only one is at a time.
    page: Mutex<Option<(Instant, Arc<str>)>>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meters").field(&self.0.is_some()).finish()
    }
}

impl Meters {
    /// Metrics for Prometheus and, with `push`, for a collector. The latter has to be called within a runtime.
    ///
    /// # Errors
    /// The exporter cannot be set up.
    pub fn start(push: Option<&Push>, bounds: RowBounds) -> Result<Self, MetersError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| MetersError(error.to_string()))?;
        let mut builder = SdkMeterProvider::builder()
            .with_resource(resource())
            .with_view(move |instrument: &Instrument| bounded(instrument, bounds))
            .with_reader(exporter);
        let push = push.filter(|push| push.metrics);
        if let Some(push) = push {
            let reader =
                PeriodicReader::builder(push.metric_exporter()?).with_interval(push.interval).build();
            builder = builder.with_reader(reader);
        }
        let provider = builder.build();
        let meter = provider.meter("tollgate");
        let (families, page) = Default::default();
        let is_pushed = push.is_some();
        Ok(Self(Some(Arc::new(Inner { provider, is_pushed, meter, registry, families, page }))))
    }

    /// Whether there are any.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The histograms of `metric`, `count` of them, with the labels that `labels` says of their numbers.
    #[must_use]
    pub fn family(
        &self,
        metric: Metric,
        count: usize,
        labels: impl Fn(usize) -> Vec<KeyValue> + Send + Sync + 'static,
    ) -> Family {
        let Some(inner) = &self.0 else { return Family::default() };
        let spec = metric.spec();
        let histogram = inner
            .meter
            .f64_histogram(spec.name)
            .with_unit(spec.unit)
            .with_description(spec.help)
            .with_boundaries(boundaries())
            .build();
        let family = Family::new(histogram, count, Box::new(labels));
        inner.families().extend(family.measured().map(Arc::downgrade));
        family
    }

    /// Lets readers ask `rows` for the rows of every metric that is no histogram. It is asked on the readers' own threads.
    pub fn observe(&self, rows: impl Fn(Metric, Emit<'_>) + Send + Sync + 'static) {
        let Some(inner) = &self.0 else { return };
        let rows: Arc<dyn Fn(Metric, Emit<'_>) + Send + Sync> = Arc::new(rows);
        for spec in METRICS.iter().filter(|spec| spec.is_on_page() || inner.is_pushed) {
            let rows = Arc::clone(&rows);
            let metric = spec.metric;
            let durations = (metric == FIRST).then(|| Arc::downgrade(inner));
            let callback = move |instrument: &dyn AsyncInstrument<f64>| {
                // A reader asks these before it looks at the histograms.
                if let Some(inner) = durations.as_ref().and_then(Weak::upgrade) {
                    inner.hand_on();
                }
                match process::value(metric) {
                    Some(value) => instrument.observe(value, &[]),
                    None => rows(metric, &mut |value, labels| instrument.observe(value, labels)),
                }
            };
            match spec.kind {
                Kind::Counter => drop(
                    inner
                        .meter
                        .f64_observable_counter(spec.name)
                        .with_unit(spec.unit)
                        .with_description(spec.help)
                        .with_callback(callback)
                        .build(),
                ),
                Kind::Gauge => drop(
                    inner
                        .meter
                        .f64_observable_gauge(spec.name)
                        .with_unit(spec.unit)
                        .with_description(spec.help)
                        .with_callback(callback)
                        .build(),
                ),
                Kind::Histogram => {}
            }
        }
    }

    /// The page for Prometheus. It takes CPU time in proportion to its rows, so it is not for a thread that serves decisions.
    ///
    /// # Errors
    /// The page cannot be made.
    pub fn page(&self) -> Result<Arc<str>, MetersError> {
        let Some(inner) = &self.0 else { return Ok("".into()) };
        // A panic would leave the last page.
        let mut page = inner.page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, text)) = &*page
            && made.elapsed() < CACHED
        {
            return Ok(Arc::clone(text));
        }
        inner.hand_on();
        let mut bytes = Vec::new();
        let failed = |error: &dyn fmt::Display| MetersError(error.to_string());
        let mut families = inner.registry.gather();
        families.retain(|family| !family.name().starts_with(PUSHED_ONLY));
        TextEncoder::new().encode(&families, &mut bytes).map_err(|error| failed(&error))?;
        let text: Arc<str> = String::from_utf8(bytes).map_err(|error| failed(&error))?.into();
        *page = Some((Instant::now(), Arc::clone(&text)));
        Ok(text)
    }

    /// Sends what was not pushed yet, and ends. It waits for the collector, so it is not for a thread of a runtime.
    pub fn end(&self, patience: Duration) {
        if let Some(inner) = &self.0 {
            // A collector that does not answer loses the last values; the exporter has logged why.
            let _ = inner.provider.shutdown_with_timeout(patience);
        }
    }
}

#[cfg(test)]
impl Meters {
    /// Lets the next page be a new one.
    pub(super) fn forget_page(&self) {
        self.0.as_ref().unwrap().page.lock().unwrap().take();
    }
}

impl Inner {
    fn families(&self) -> MutexGuard<'_, Vec<Weak<Measured>>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what threads hold back.
    fn hand_on(&self) {
        let families: Vec<_> = self.families().iter().filter_map(Weak::upgrade).collect();
        families.iter().for_each(|family| family.hand_on());
    }
}

/// The type of the page.
pub const PAGE_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What OTLP says of this process; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before it.
pub(super) fn resource() -> Resource {
    let from_environment = Resource::builder().build();
    let attribute = |name: &'static str| from_environment.get(&name.into());
    let named = attribute("service.name").filter(|name| !name.as_str().starts_with("unknown_service"));
    let mut builder = Resource::builder();
    if named.is_none() {
        builder = builder.with_service_name("tollgate");
    }
    if attribute("service.version").is_none() {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    builder.build()
}

fn bounded(instrument: &Instrument, bounds: RowBounds) -> Option<Stream> {
    let is_observed =
        matches!(instrument.kind(), InstrumentKind::ObservableCounter | InstrumentKind::ObservableGauge);
    let spec = METRICS.iter().find(|spec| is_observed && spec.name == instrument.name())?;
    Stream::builder().with_cardinality_limit(bounds.of(spec)).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RowBounds = RowBounds { teams: 5_000, keys: 0, organizations: 1 };

    #[test]
    fn there_is_room_for_what_is_shown_and_not_for_much_more() {
        let bounds = RowBounds { teams: 500, keys: 0, organizations: 1 };
        let rows = |metric: Metric| bounds.of(metric.spec());
        assert!((502..2_000).contains(&rows(Metric::Waiting)));
        assert!((502 * 22 * 2..100_000).contains(&rows(Metric::Decisions)));
        assert!(
            METRICS.iter().filter(|spec| spec.kind == Kind::Gauge).map(|spec| bounds.of(spec)).sum::<usize>()
                < 150_000
        );
        assert!(
            RowBounds { teams: usize::MAX, keys: usize::MAX, organizations: usize::MAX }
                .of(Metric::Decisions.spec())
                > 0
        );
    }

    fn emit_all(metric: Metric, emit: Emit<'_>) {
        let spec = metric.spec();
        let labels: Vec<_> = spec.labels.iter().map(|label| KeyValue::new(*label, "x")).collect();
        emit(1.5, &labels);
    }

    #[test]
    fn what_is_only_pushed_has_one_prefix() {
        for spec in METRICS {
            assert_eq!(
                spec.name.replace('.', "_").starts_with(PUSHED_ONLY),
                !spec.is_on_page(),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn every_metric_has_its_name_help_and_labels_on_the_page() {
        let meters = Meters::start(None, BOUNDS).unwrap();
        meters.observe(emit_all);
        for spec in METRICS.iter().filter(|spec| spec.kind == Kind::Histogram) {
            let labels: Vec<_> = spec.labels.iter().map(|label| KeyValue::new(*label, "x")).collect();
            let family = meters.family(spec.metric, 1, move |_| labels.clone());
            family.record(0, Duration::from_millis(3));
            family.record(1, Duration::from_millis(3));
        }
        let page = meters.page().unwrap();
        for spec in METRICS.iter().filter(|spec| spec.is_on_page()) {
            let name = spec.prometheus;
            assert!(page.contains(&format!("# HELP {name} {}\n", spec.help)), "{name}\n{page}");
            assert!(page.contains(&format!("# TYPE {name} {}\n", spec.kind.name())), "{name}\n{page}");
            let row = match spec.kind {
                Kind::Histogram => format!("{name}_count"),
                _ => name.to_owned(),
            };
            let is_row = |line: &&str| line.split(['{', ' ']).next() == Some(&row);
            let rows: Vec<_> = page.lines().filter(is_row).collect();
            assert_eq!(rows.len(), 1, "{name}: {rows:?}");
            for label in spec.labels {
                assert!(rows[0].contains(&format!("{label}=\"x\"")), "{}", rows[0]);
            }
        }
        assert!(
            page.contains("tollgate_decision_duration_seconds_bucket{decision=\"x\",le=\"0.005\"} 1\n"),
            "{page}"
        );
        let names: usize = page.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!(names, METRICS.iter().filter(|spec| spec.is_on_page()).count(), "{page}");
    }

    #[test]
    fn rows_go_when_they_are_not_emitted_and_are_not_cut_off() {
        let meters = Meters::start(None, BOUNDS).unwrap();
        let count = Arc::new(Mutex::new(5_000));
        let rows = Arc::clone(&count);
        meters.observe(move |metric, emit| {
            if metric == Metric::Waiting {
                for number in 0..*rows.lock().unwrap() {
                    emit(1.0, &[KeyValue::new("team", format!("t{number}"))]);
                }
            }
        });
        let shown = || {
            let page = meters.page().unwrap();
            page.lines().filter(|line| line.starts_with("tollgate_requests_waiting{")).count()
        };
        assert_eq!(shown(), 5_000);
        *count.lock().unwrap() = 2;
        assert_eq!(shown(), 5_000, "the page is told again for a moment");
        meters.forget_page();
        assert_eq!(shown(), 2);
    }

    #[test]
    fn without_metrics_nothing_is_recorded() {
        let meters = Meters::default();
        let family = meters.family(Metric::WaitDuration, 1, |_| Vec::new());
        family.record(0, Duration::ZERO);
        meters.observe(emit_all);
        assert!(!family.is_on() && meters.page().unwrap().is_empty());
    }
}
