//! Books reservations that were not reported, which the sweep has counted by what they have in common.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{
    Inner, record, script,
    settle::{push_row_fields, push_row_keys, push_row_numbers},
    spend::fields,
    terms::TermsHash,
    wire::{Numbers, size},
};
use crate::store::{StoreError, UsageAmounts, UsageKey, unreported::unreported};

/// Kinds looked at after one step of the sweep.
const AT_ONCE: usize = 64;

impl Inner {
    /// Books some of those that wait, from where the last call ended.
    pub(super) async fn book_unreported(&self) -> Result<(), StoreError> {
        let from = self.unreported_from.load(Ordering::Relaxed);
        let mut cmd = redis::cmd("HSCAN");
        cmd.arg(&self.keyspace.unreported).arg(from).arg("COUNT").arg(AT_ONCE);
        let answer = self.connection.run(&cmd).await?;
        let (next, page): (u64, redis::Value) =
            redis::from_redis_value(answer).map_err(|_| StoreError::Corrupt)?;
        // Those that cannot be booked stay, so a step that began with them again would never come to the others.
        self.unreported_from.store(next, Ordering::Relaxed);
        for (kind, count) in fields::<Vec<u8>>(page)? {
            let count = str::from_utf8(&count).ok().and_then(|count| count.parse().ok());
            let Some(count) = count else { continue };
            let note = self.note_of_unreported(&kind).await?;
            let rows = unreported(note.as_deref().unwrap_or_default(), count);
            // Of counts that nothing reports, terms have no note.
            if rows.is_empty() && note.is_none_or(|note| !note.is_empty()) {
                tracing::warn!(
                    reservations = count,
                    "reservations ended without a report, and it is not known of which team they were"
                );
            }
            match self.book(&kind, count, &rows).await {
                // Foreign data in the place of one row keeps no others from being booked.
                Ok(()) | Err(StoreError::Corrupt) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The note of the terms that they have in common, if it can be found.
    async fn note_of_unreported(&self, kind: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Ok(hash) = TermsHash::try_from(kind) else { return Ok(record::terms_note(kind)) };
        self.learn_these(vec![hash]).await?;
        Ok(self.terms.known(hash).map(|known| known.terms.note().clone()))
    }

    pub(super) async fn book(
        &self,
        kind: &[u8],
        count: u64,
        rows: &[(UsageKey, UsageAmounts)],
    ) -> Result<(), StoreError> {
        let mut numbers = Numbers::with_capacity(2 + 16 * rows.len());
        numbers.extend(&[count, size(rows.len())]);
        let mut cmd = script::BOOK_UNREPORTED.call(2 + 2 * rows.len());
        cmd.arg(&self.keyspace.unreported).arg(&self.keyspace.meta);
        for (row, amounts) in rows {
            push_row_keys(&mut cmd, &self.keyspace, row);
            push_row_numbers(&mut numbers, row, amounts, 0);
        }
        cmd.arg(numbers.bytes()).arg(numbers.format()).arg(kind);
        push_row_fields(&mut cmd, rows.iter().map(|(row, _)| row));
        let answer = self.connection.call(&script::BOOK_UNREPORTED, &cmd).await?;
        if let Ok(0) = redis::from_redis_value::<u64>(answer) {
            self.unreported.count(rows);
        }
        Ok(())
    }
}
