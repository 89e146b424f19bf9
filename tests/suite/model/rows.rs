//! Rows of usage that are added to.

use tollgate::store::{StoreError, UsageAmounts, UsageKey};

use super::{State, sum};

impl State {
    /// Adds to rows, all of them or none.
    pub(super) fn add_rows(
        &mut self,
        mut rows: Vec<(UsageKey, UsageAmounts)>,
        max_rows: u64,
    ) -> Result<(), StoreError> {
        let mut lines = self.lines.clone();
        for (key, _) in &mut rows {
            let size = lines.keys().filter(|known| known.set == key.set).count() as u64;
            if !lines.contains_key(key)
                && size >= key.set.series.room(max_rows)
                && let Some(other) = key.other()
            {
                *key = other;
            }
            // It is there from now on, for those after it.
            lines.entry(key.clone()).or_default();
        }
        for (key, more) in &rows {
            let sum = sum(lines.get(key).copied().unwrap_or_default(), *more).ok_or(StoreError::Overflow)?;
            lines.insert(key.clone(), sum);
        }
        self.lines = lines;
        Ok(())
    }
}
