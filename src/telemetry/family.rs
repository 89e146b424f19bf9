//! Histograms of durations, one for each combination of labels, found by its number.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

/// Threads that do not share what they hold back; with more, some do.
const SHARES: usize = 16;
/// The durations that a thread holds back. The library's histogram has one lock for all threads, whose cost is in taking turns: so each
/// takes it this often in a row.
const HELD: usize = 64;

/// Says the labels of a number.
type Labels = Box<dyn Fn(usize) -> Vec<KeyValue> + Send + Sync>;

/// The histograms of one metric. Each is made when the first duration with its number is recorded, so only what occurred has a row;
/// from then on nothing is looked up.
#[derive(Default)]
pub struct Family(Option<Arc<Measured>>);

pub(super) struct Measured {
    histogram: Histogram<f64>,
    labels: Labels,
    bound: Box<[OnceLock<BoundHistogram<f64>>]>,
    held: [Share; SHARES],
}

/// What the threads of one share have measured and not handed on. On lines of the cache of its own.
#[derive(Default)]
#[repr(align(128))]
struct Share(Mutex<Vec<(usize, Duration)>>);

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
        Self(Some(Arc::new(Measured { histogram, labels, bound, held: Default::default() })))
    }

    /// Whether anything is recorded, so that a clock need not be read in vain.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records a duration of the combination with this number; of one past the count, nothing.
    pub fn record(&self, number: usize, took: Duration) {
        let Some(measured) = &self.0 else { return };
        let Some(Share(held)) = measured.held.get(share()) else { return };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push((number, took));
        if held.len() >= HELD {
            measured.take(&mut held);
        }
    }

    /// What is measured, for [`Measured::hand_on`].
    pub(super) fn measured(&self) -> Option<&Arc<Measured>> {
        self.0.as_ref()
    }
}

impl Measured {
    /// Hands on what threads hold back.
    pub(super) fn hand_on(&self) {
        for Share(held) in &self.held {
            self.take(&mut held.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn take(&self, held: &mut Vec<(usize, Duration)>) {
        for (number, took) in held.drain(..) {
            if let Some(bound) = self.bound.get(number) {
                let bound = bound.get_or_init(|| self.histogram.bind(&(self.labels)(number)));
                bound.record(took.as_secs_f64());
            }
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.hand_on();
    }
}
