//! Whether more was admitted in some interval than a window permits, judged only by what the client saw.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Something that was admitted between two instants, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) amount: u64,
}

/// The most that was *certainly* admitted within one interval of `length_ms`, over all intervals: what was admitted from its
/// first instant to its last, however early or late within its bounds each admission was.
///
/// An interval that ends at `b` begins at `b - length_ms + 1`. It is enough to try intervals that end where an admission
/// does.
pub(super) fn fullest(admissions: &mut [Admission], length_ms: u64) -> u64 {
    admissions.sort_unstable_by_key(|admission| admission.to);
    let mut inside: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let (mut sum, mut most) = (0u64, 0);
    for admission in admissions.iter() {
        let first = (admission.to + 1).saturating_sub(length_ms);
        while let Some(Reverse((_, amount))) = inside.peek().filter(|Reverse((from, _))| *from < first) {
            sum -= amount;
            inside.pop();
        }
        if admission.from >= first {
            inside.push(Reverse((admission.from, admission.amount)));
            sum += admission.amount;
        }
        most = most.max(sum);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every interval, one by one.
    fn plainly(admissions: &[Admission], length_ms: u64) -> u64 {
        let end = admissions.iter().map(|a| a.to).max().unwrap_or(0);
        let inside = |first: u64| {
            let last = first + length_ms - 1;
            admissions.iter().filter(move |a| a.from >= first && a.to <= last).map(|a| a.amount).sum()
        };
        (0..=end).map(inside).max().unwrap_or(0)
    }

    #[test]
    fn agrees_with_trying_every_interval() {
        let mut rng = super::super::rng::Rng::new(11);
        for _ in 0..300 {
            let count = rng.between(0, 12);
            let mut admissions: Vec<_> = (0..count)
                .map(|_| {
                    let from = rng.between(0, 60);
                    Admission { from, to: from + rng.between(0, 12), amount: rng.between(0, 9) }
                })
                .collect();
            let length = rng.between(1, 30);
            assert_eq!(
                fullest(&mut admissions, length),
                plainly(&admissions, length),
                "{admissions:?} {length}"
            );
        }
    }
}
