//! Histograms of durations, one for each combination of labels, found by its number.

use std::{fmt, sync::OnceLock, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram},
};

/// Says the labels of a number.
type Labels = Box<dyn Fn(usize) -> Vec<KeyValue> + Send + Sync>;

/// The histograms of one metric. Each is made when the first duration with its number is recorded, so only what occurred has a row;
/// from then on nothing is looked up.
#[derive(Default)]
pub struct Family(Option<Measured>);

struct Measured {
    histogram: Histogram<f64>,
    labels: Labels,
    bound: Box<[OnceLock<BoundHistogram<f64>>]>,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.0.as_ref().map(|measured| measured.bound.len())).finish()
    }
}

impl Family {
    pub(super) fn new(histogram: Histogram<f64>, count: usize, labels: Labels) -> Self {
        let bound = (0..count).map(|_| OnceLock::new()).collect();
        Self(Some(Measured { histogram, labels, bound }))
    }

    /// Whether anything is recorded, so that a clock need not be read in vain.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records a duration of the combination with this number; of one past the count, nothing.
    pub fn record(&self, number: usize, took: Duration) {
        let Some(Measured { histogram, labels, bound }) = &self.0 else { return };
        if let Some(bound) = bound.get(number) {
            bound.get_or_init(|| histogram.bind(&labels(number))).record(took.as_secs_f64());
        }
    }
}
