//! Latencies, counted in buckets no wider than a 64th of their value.

use std::time::Duration;

const BITS: u32 = 6;
const PER_OCTAVE: usize = 1 << BITS;

/// Counts of nanoseconds.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    buckets: Vec<u32>,
    count: u64,
}

impl Histogram {
    pub(crate) fn add(&mut self, latency: Duration) {
        let bucket = bucket_of(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (to, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        self.count += other.count;
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The latency in microseconds that `percent` of all do not exceed.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        let rank = self.count as f64 * percent / 100.0;
        let mut seen = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += f64::from(*count);
            if seen >= rank {
                return middle_of(bucket) / 1000.0;
            }
        }
        0.0
    }
}

fn bucket_of(nanos: u64) -> usize {
    let octave = (u64::BITS - nanos.leading_zeros()).saturating_sub(BITS + 1);
    octave as usize * PER_OCTAVE + (nanos >> octave) as usize
}

fn middle_of(bucket: usize) -> f64 {
    // The first two octaves have one bucket for each value.
    let octave = (bucket / PER_OCTAVE).saturating_sub(1);
    let value = bucket - octave * PER_OCTAVE;
    (value as f64 + 0.5) * (1_u64 << octave) as f64
}
