//! The provider of all metrics, and its readers.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
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

use super::{Family, Kind, METRICS, Metric, Push, process};

/// The upper bounds of all histograms of durations, in seconds: 50 µs to 10 s.
const BOUNDARIES: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0,
];
/// The rows that one metric may have. The bounds on teams and models keep far below it; the library's own limit of 2,000 would cut
/// rows off.
const MAX_ROWS: usize = 1_000_000;
/// How long a page is told again, so that several scrapers cost no more than one.
const CACHED: Duration = Duration::from_secs(1);

/// Takes one row: its value and its labels.
pub type Emit<'a> = &'a mut dyn FnMut(f64, &[KeyValue]);

/// Why metrics cannot be set up.
#[derive(Debug, Error)]
#[error("metrics cannot be set up: {0}")]
pub struct MetersError(pub(super) String);

/// All metrics of a process. Clones share them.
#[derive(Clone, Default)]
pub struct Meters(Option<Arc<Inner>>);

struct Inner {
    provider: SdkMeterProvider,
    meter: Meter,
    registry: Registry,
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
    pub fn start(push: Option<&Push>) -> Result<Self, MetersError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| MetersError(error.to_string()))?;
        let mut builder =
            SdkMeterProvider::builder().with_resource(resource()).with_view(many_rows).with_reader(exporter);
        if let Some(push) = push.filter(|push| push.metrics) {
            let reader =
                PeriodicReader::builder(push.metric_exporter()?).with_interval(push.interval).build();
            builder = builder.with_reader(reader);
        }
        let provider = builder.build();
        let meter = provider.meter("tollgate");
        Ok(Self(Some(Arc::new(Inner { provider, meter, registry, page: Mutex::default() }))))
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
            .with_boundaries(BOUNDARIES.to_vec())
            .build();
        Family::new(histogram, count, Box::new(labels))
    }

    /// Lets readers ask `rows` for the rows of every metric that is no histogram. It is asked on the readers' own threads.
    pub fn observe(&self, rows: impl Fn(Metric, Emit<'_>) + Send + Sync + 'static) {
        let Some(inner) = &self.0 else { return };
        let rows: Arc<dyn Fn(Metric, Emit<'_>) + Send + Sync> = Arc::new(rows);
        for spec in METRICS {
            let rows = Arc::clone(&rows);
            let metric = spec.metric;
            let callback = move |instrument: &dyn AsyncInstrument<f64>| match process::value(metric) {
                Some(value) => instrument.observe(value, &[]),
                None => rows(metric, &mut |value, labels| instrument.observe(value, labels)),
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
        let mut bytes = Vec::new();
        let failed = |error: &dyn fmt::Display| MetersError(error.to_string());
        TextEncoder::new().encode(&inner.registry.gather(), &mut bytes).map_err(|error| failed(&error))?;
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

/// The type of the page.
pub const PAGE_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What OTLP says of this process; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before it.
pub(super) fn resource() -> Resource {
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    if named { builder.build() } else { builder.with_service_name("tollgate").build() }
}

fn many_rows(instrument: &Instrument) -> Option<Stream> {
    let is_observed =
        matches!(instrument.kind(), InstrumentKind::ObservableCounter | InstrumentKind::ObservableGauge);
    is_observed.then(|| Stream::builder().with_cardinality_limit(MAX_ROWS).build().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit_all(metric: Metric, emit: Emit<'_>) {
        let spec = metric.spec();
        let labels: Vec<_> = spec.labels.iter().map(|label| KeyValue::new(*label, "x")).collect();
        emit(1.5, &labels);
    }

    #[test]
    fn every_metric_has_its_name_help_and_labels_on_the_page() {
        let meters = Meters::start(None).unwrap();
        meters.observe(emit_all);
        for spec in METRICS.iter().filter(|spec| spec.kind == Kind::Histogram) {
            let labels: Vec<_> = spec.labels.iter().map(|label| KeyValue::new(*label, "x")).collect();
            let family = meters.family(spec.metric, 1, move |_| labels.clone());
            family.record(0, Duration::from_millis(3));
            family.record(1, Duration::from_millis(3));
        }
        let page = meters.page().unwrap();
        for spec in METRICS {
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
        assert_eq!(names, METRICS.len(), "{page}");
    }

    #[test]
    fn rows_go_when_they_are_not_emitted_and_are_not_cut_off() {
        let meters = Meters::start(None).unwrap();
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
        meters.0.as_ref().unwrap().page.lock().unwrap().take();
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
