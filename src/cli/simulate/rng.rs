//! Random numbers that a seed repeats: SplitMix64 (Steele, Lea and Flood, 2014).

/// A stream of numbers.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        let span = most.saturating_sub(least).saturating_add(1);
        // The bias is below 2^-32 for the spans used here.
        least + self.next() % span
    }

    /// From `least` to `most`, each order of magnitude equally likely: sizes of real requests are spread this way.
    pub(super) fn magnitude(&mut self, least: u64, most: u64) -> u64 {
        let (least, most) = (least.max(1), most.max(least.max(1)));
        let bits = self.between(least.ilog2().into(), most.ilog2().into());
        let low = 1 << bits;
        self.between(least.max(low), most.min(low * 2 - 1))
    }

    /// Whether an event happens that occurs in `percent` of cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.between(0, 99) < percent
    }

    /// One of `items`.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let last = items.len().checked_sub(1)?;
        let index = self.between(0, u64::try_from(last).ok()?);
        items.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_bounds_and_repeats() {
        let mut rng = Rng::new(7);
        for (least, most) in [(0, 0), (1, 1), (3, 1000), (50, 20_000), (2048, 2048)] {
            for _ in 0..1000 {
                assert!((least..=most).contains(&rng.between(least, most)));
                let size = rng.magnitude(least, most);
                assert!((least..=most.max(1)).contains(&size), "{size} of {least}..={most}");
            }
        }
        assert_eq!(Rng::new(1).next(), Rng::new(1).next());
    }
}
