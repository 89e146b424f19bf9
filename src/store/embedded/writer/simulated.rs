//! The writer step by step, on the thread of a simulation, which says when the disk is done.

use std::{path::Path, sync::Arc, time::Duration};

use super::{Closing, ROUND, Round, SWEEP, Writer};
use crate::{
    runtime::clock::Clock,
    store::embedded::{
        EmbeddedStore, PATIENCE, age::MAX_AGE, batch::Batch, error::OpenError, opening::prepare,
        owner::Unsynced, segment::Location,
    },
};

/// The writer of a store that has no thread for it. Dropped, it leaves the store as a crash does: what was not committed is lost, and
/// nothing more is answered.
pub(crate) struct SimulatedWriter {
    writer: Writer,
    _closing: Closing,
}

/// What is taken to be written.
pub(crate) struct Taken {
    batch: Batch,
    moves: Vec<(Location, u128, u64)>,
    truncated: bool,
}

impl SimulatedWriter {
    /// Opens the store in `dir` by what is on its disk.
    pub(crate) fn open(dir: &Path, clock: Clock) -> Result<(EmbeddedStore, Self), OpenError> {
        let disk = |owner| Box::new(Unsynced::new(owner)) as Box<_>;
        let (handle, writer) = prepare(dir, clock, (MAX_AGE, ROUND), disk)?;
        let closing = Closing(Arc::clone(&writer.inner));
        let store = EmbeddedStore(Arc::new(handle), PATIENCE).with_deadline(Duration::from_millis(250));
        Ok((store, Self { writer, _closing: closing }))
    }

    /// Takes what there is to write; `None`: nothing. `ends`: the last time, with all there is.
    pub(crate) fn take(&mut self, ends: bool) -> Option<Taken> {
        let writer = &mut self.writer;
        let sweeping = matches!(writer.round, Round::Sweeping { .. });
        let sweep = !ends && (sweeping || writer.swept_at.elapsed() >= SWEEP);
        let expired = if sweep { writer.expired() } else { Vec::new() };
        let (batch, moves) = writer.collect(ends, sweep.then_some(expired)).expect("nothing panicked");
        let is_idle = batch.is_empty() && matches!(writer.round, Round::Rest);
        (!is_idle).then_some(Taken { batch, moves, truncated: true })
    }

    /// From here on it survives a crash.
    pub(crate) fn commit(&mut self, taken: &mut Taken) {
        if !taken.batch.is_empty() {
            let committed = self.writer.commit(&taken.batch).ok();
            taken.truncated = committed.expect("a directory that can be written");
        }
    }

    /// Tells those who wait for it.
    pub(crate) fn finish(&mut self, taken: Taken) {
        let Taken { batch, moves, truncated } = taken;
        self.writer.finish(batch, &moves, truncated).expect("nothing panicked");
    }
}
