//! Histograms of durations, one for each combination of labels, found by its number.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

/// Threads that do not share their counts; with more, some do.
const SHARES: usize = 16;
/// The upper bounds of all buckets, in nanoseconds: 50 µs to 10 s.
const BOUNDS: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;
/// Longer durations count as this one, 13 days, so that a sum of nanoseconds has room for thousands of them.
const MOST: u64 = 1 << 50;

/// The same in seconds, for the library.
pub(super) fn boundaries() -> Vec<f64> {
    BOUNDS.iter().map(|nanos| Duration::from_nanos(*nanos).as_secs_f64()).collect()
}

/// Says the labels of a number.
type Labels = Box<dyn Fn(usize) -> Vec<KeyValue> + Send + Sync>;

/// The histograms of one metric. Each is made when the first duration with its number is recorded, so only what occurred has a row;
/// from then on nothing is looked up.
#[derive(Clone, Default)]
pub struct Family(Option<Arc<Measured>>);

/// The library's histogram has one lock for all threads and a search in floating numbers; so each thread counts for itself, and a reader
/// hands on what was counted.
///
/// Protocol: a recording adds its nanoseconds and then itself; who hands on takes the counts and then the nanoseconds, so it may take the
/// nanoseconds of a recording that it counts the next time. The numbers order nothing else.
pub(super) struct Measured {
    histogram: Histogram<f64>,
    labels: Labels,
    bound: Box<[OnceLock<BoundHistogram<f64>>]>,
    shares: [Share; SHARES],
}

/// What the threads of one share have measured, by number. On lines of the cache of its own.
#[repr(align(128))]
struct Share(Box<[OnceLock<Box<Buckets>>]>);

/// What was recorded and not handed on.
#[derive(Default)]
struct Buckets([Bucket; BUCKETS]);

#[derive(Default)]
struct Bucket {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// The share of this thread.
fn share() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARES;
    }
    OWN.with(|own| *own)
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.0.as_ref().map(|measured| measured.bound.len())).finish()
    }
}

impl Family {
    pub(super) fn new(histogram: Histogram<f64>, count: usize, labels: Labels) -> Self {
        let bound = (0..count).map(|_| OnceLock::new()).collect();
        let shares = std::array::from_fn(|_| Share((0..count).map(|_| OnceLock::new()).collect()));
        Self(Some(Arc::new(Measured { histogram, labels, bound, shares })))
    }

    /// Whether anything is recorded, so that a clock need not be read in vain.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records a duration of the combination with this number; of one past the count, nothing.
    pub fn record(&self, number: usize, took: Duration) {
        let Some(measured) = &self.0 else { return };
        let own = measured.shares.get(share()).and_then(|Share(own)| own.get(number));
        let Some(buckets) = own.map(|own| own.get_or_init(Box::default)) else { return };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(MOST).min(MOST);
        if let Some(bucket) = buckets.0.get(BOUNDS.partition_point(|bound| *bound < nanos)) {
            bucket.nanos.fetch_add(nanos, Ordering::Relaxed);
            bucket.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is measured, for [`Measured::hand_on`].
    pub(super) fn measured(&self) -> Option<&Arc<Measured>> {
        self.0.as_ref()
    }
}

impl Measured {
    /// Hands on what threads have counted. It takes some 10 ns for each recording, so it is not for a thread that serves decisions.
    pub(super) fn hand_on(&self) {
        for Share(own) in &self.shares {
            for ((number, buckets), bound) in own.iter().enumerate().zip(&self.bound) {
                let Some(buckets) = buckets.get() else { continue };
                let bound = bound.get_or_init(|| self.histogram.bind(&(self.labels)(number)));
                buckets.0.iter().enumerate().for_each(|(place, bucket)| bucket.hand_on(place, bound));
            }
        }
    }
}

impl Bucket {
    /// Hands on the mean as often as there were recordings: the count of its bucket and the sum are as if each had been.
    fn hand_on(&self, place: usize, bound: &BoundHistogram<f64>) {
        let count = self.count.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let nanos = self.nanos.swap(0, Ordering::Relaxed);
        let least = place.checked_sub(1).and_then(|below| BOUNDS.get(below)).map_or(0, |below| below + 1);
        let most = BOUNDS.get(place).copied().unwrap_or(u64::MAX);
        // It is in the bucket, unless there are nanoseconds of a recording that is counted the next time.
        let mean = (nanos / count).clamp(least, most);
        let rest = nanos.saturating_sub(mean.saturating_mul(count));
        // Less than a nanosecond for each, or of the one to come.
        self.nanos.fetch_add(rest, Ordering::Relaxed);
        let mean = Duration::from_nanos(mean).as_secs_f64();
        (0..count).for_each(|_| bound.record(mean));
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.hand_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Meters, Metric, RowBounds};

    #[test]
    fn the_bounds_ascend_and_are_the_libraries() {
        assert!(BOUNDS.is_sorted());
        let seconds = boundaries();
        assert_eq!((seconds[0], seconds[5], seconds[15]), (0.000_05, 0.002_5, 10.0));
    }

    #[test]
    fn every_duration_is_on_the_page_whichever_thread_measured_it() {
        let meters = Meters::start(None, RowBounds { teams: 1, keys: 0, organizations: 1 }).unwrap();
        let family = meters.family(Metric::WaitDuration, 1, |_| Vec::new());
        let record = |ms: u64| family.record(0, Duration::from_millis(ms));
        std::thread::scope(|scope| {
            for thread in 0..20 {
                scope.spawn(move || (0..100).for_each(|number| record(1 + (thread + number) % 4)));
            }
        });
        record(20_000);
        let page = meters.page().unwrap();
        let value = |row: &str| {
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix(&format!("tollgate_wait_duration_seconds{row} ")));
            line.unwrap_or_else(|| panic!("no {row}\n{page}")).parse::<f64>().unwrap()
        };
        assert_eq!(
            [value("_count"), value("_bucket{le=\"0.001\"}"), value("_bucket{le=\"0.0025\"}")],
            [2_001.0, 500.0, 1_000.0]
        );
        assert_eq!(
            [value("_bucket{le=\"0.005\"}"), value("_bucket{le=\"10\"}"), value("_bucket{le=\"+Inf\"}")],
            [2_000.0, 2_000.0, 2_001.0]
        );
        assert!((value("_sum") - 25.0).abs() < 1e-6, "{}", value("_sum"));
        // What was handed on is not counted again.
        record(1);
        meters.forget_page();
        let page = meters.page().unwrap();
        assert!(page.contains("tollgate_wait_duration_seconds_count 2002\n"), "{page}");
    }
}
