//! Sets of rows read one after the other, several in one call of the store.

use std::collections::VecDeque;

use crate::store::{SETS_AT_ONCE, StoreError, Usage, UsageAmounts, UsageKey, UsageSet};

/// Reads sets in their order.
pub(super) struct SetReader<I> {
    sets: I,
    /// Those that come next.
    next: VecDeque<UsageSet>,
}

impl<I: Iterator<Item = UsageSet>> SetReader<I> {
    pub(super) const fn new(sets: I) -> Self {
        Self { sets, next: VecDeque::new() }
    }

    /// The next sets, as many as the store reads at once, with their rows; `None` after the last.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn read<S: Usage>(
        &mut self,
        store: &S,
    ) -> Result<Option<Vec<(UsageSet, Vec<(UsageKey, UsageAmounts)>)>>, StoreError> {
        self.next.extend(self.sets.by_ref().take(SETS_AT_ONCE - self.next.len()));
        if self.next.is_empty() {
            return Ok(None);
        }
        let rows = store.usage_of(self.next.make_contiguous()).await?;
        // A store that read none would be asked for the same ones for ever.
        if rows.is_empty() {
            return Err(StoreError::Corrupt);
        }
        let read = rows.len().min(self.next.len());
        Ok(Some(self.next.drain(..read).zip(rows).collect()))
    }
}
