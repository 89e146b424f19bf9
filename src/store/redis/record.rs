//! The bytes of a reservation: a header of numbers that the scripts read and write, and the rest, which only this file does.

use std::sync::Arc;

use bytes::Bytes;

use super::wire::Reader;
use crate::{
    domain::{Timestamp, counter::CounterState, counter::Hold},
    store::{Record, Reserve, Settled, Settlement, StoreError},
};

/// The layout of the opaque bytes.
const VERSION: u8 = 1;
const OPEN: u64 = 0;

/// The opaque part of the record that `reserve` makes.
pub(super) fn encode(reserve: &Reserve) -> Result<Vec<u8>, StoreError> {
    let parts = (reserve.fingerprint, &*reserve.holds, &reserve.note);
    postcard::to_extend(&parts, vec![VERSION]).map_err(|_| StoreError::Corrupt)
}

/// A record, and when it is gone.
pub(super) fn decode(bytes: &[u8]) -> Result<(Record, Timestamp), StoreError> {
    let mut reader = Reader::new(bytes);
    let open = reader.number()? == OPEN;
    let reserved_at = Timestamp(reader.number()?);
    let expires_at = Timestamp(reader.number()?);
    let gone_at = Timestamp(reader.number()?);
    let settlement = if open { None } else { Some(settlement(&mut reader)?) };
    let (version, opaque) = reader.rest().split_first().ok_or(StoreError::Corrupt)?;
    if *version != VERSION {
        return Err(StoreError::Corrupt);
    }
    let (fingerprint, holds, note): (u64, Arc<[Hold]>, Bytes) =
        postcard::from_bytes(opaque).map_err(|_| StoreError::Corrupt)?;
    Ok((Record { fingerprint, reserved_at, expires_at, holds, note, settlement }, gone_at))
}

fn settlement(reader: &mut Reader<'_>) -> Result<Settlement, StoreError> {
    let settled_at = Timestamp(reader.number()?);
    let holds = reader.size()?;
    let note_length = reader.size()?;
    let note = Bytes::copy_from_slice(reader.bytes(note_length)?);
    let counter =
        |reader: &mut Reader<'_>| Ok(Settled { settled_before: reader.number()?, after: state(reader)? });
    let counters = (0..holds).map(|_| counter(reader)).collect::<Result<_, StoreError>>()?;
    Ok(Settlement { settled_at, counters, note })
}

/// Only the settlement of a record that is known to be settled.
pub(super) fn decode_settlement(bytes: &[u8]) -> Result<Settlement, StoreError> {
    let mut reader = Reader::new(bytes);
    if reader.number()? == OPEN {
        return Err(StoreError::Corrupt);
    }
    reader.numbers(3)?;
    settlement(&mut reader)
}

/// The state of a counter as scripts write it.
pub(super) fn state(reader: &mut Reader<'_>) -> Result<CounterState, StoreError> {
    Ok(CounterState { used: reader.number()?, settled: reader.number()?, open: reader.number()? })
}
