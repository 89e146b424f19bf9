//! A row of `spooled`: its check sum, and what is wrong with one that is damaged.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Error, ErrorCode, Row, ffi};

use super::{About, Entry, Taken};
use crate::{domain::Timestamp, store::ReservationId};

/// Whether it is a row that is not what was written; those around it are read.
pub(super) const fn is_damaged(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// Whether it is a page that is not what was written, or that the disk does not give back.
pub(super) fn is_damaged_page(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|failure| {
        matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            || matches!(
                failure.extended_code,
                ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS
            )
    })
}

/// A record from a row of `spooled`, if it is what was written.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Taken> {
    let id: [u8; 16] = row.get(1)?;
    let about = About {
        at: Timestamp(uint(row, 2)?),
        digest: row.get::<_, i64>(3)?.cast_unsigned(),
        team: Arc::from(row.get::<_, String>(4)?),
        cost_nanos: row.get::<_, Option<i64>>(5)?.map(|cost| u64::try_from(cost).unwrap_or(0)),
        tried_at: row.get::<_, Option<i64>>(7)?.map(|at| Timestamp(u64::try_from(at).unwrap_or(0))),
    };
    let entry = Entry { id: ReservationId(id), about, record: Bytes::from(row.get::<_, Vec<u8>>(6)?) };
    if row.get::<_, i64>(8)? == sum(&entry) {
        return Ok(Taken { place: uint(row, 0)?, entry });
    }
    let damaged = format!("the record {} of the spool fails its check sum", entry.id);
    Err(Error::FromSqlConversionFailure(8, rusqlite::types::Type::Integer, damaged.into()))
}

/// The check sum of a record: the first eight bytes of BLAKE3 over what does not change of it.
pub(super) fn sum(Entry { id, about, record }: &Entry) -> i64 {
    let About { team, cost_nanos, at, digest, .. } = about;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0).update(&at.0.to_le_bytes()).update(&digest.to_le_bytes());
    hasher.update(&cost_nanos.map_or(u64::MAX, |cost| cost).to_le_bytes());
    hasher.update(&(team.len() as u64).to_le_bytes()).update(team.as_bytes()).update(record);
    let mut first_eight = [0; 8];
    hasher.finalize_xof().fill(&mut first_eight);
    i64::from_le_bytes(first_eight)
}

/// SQLite's integers are signed; anything beyond their range becomes the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn uint(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(at)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(at, value))
}
