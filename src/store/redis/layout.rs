//! What keeps a process off a server whose layout it does not know.
//!
//! The layout stands in the hash `tollgate:{ORG}:meta`, which the first process writes. Each process reads it when it connects and
//! with each reading of the registry, and then refuses all calls. The scripts that change counters do not wait for that: the layout
//! also stands in `!time`, which they read in any case (`store_time.lua`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use redis::{ErrorKind, RedisError, Value};

use super::wire::Reader;
use crate::{
    runtime::Entropy,
    store::{LAYOUT, OLDEST_LAYOUT, StoreError, Unsupported},
};

/// The error with which a script refuses to work on a later layout; the layout follows.
const REFUSAL: &str = "LAYOUT";

/// The layout that was last seen on the server. Clones share it, so one reading stops every connection of the process.
#[derive(Clone, Debug, Default)]
pub struct LayoutGate(Arc<AtomicU64>);

impl LayoutGate {
    /// Whether the server may be used, as far as is known. One relaxed load: the number is valid on its own.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            seen => supported(seen),
        }
    }

    /// Takes in the layout of the server and the earliest of its data; 0: the server has none yet.
    pub(super) fn learn(&self, layout: u32, min_layout: u32) -> Result<(), StoreError> {
        let seen = u64::from(layout) << 32 | u64::from(min_layout);
        let before = supported(self.0.swap(seen, Ordering::Relaxed));
        let now = supported(seen);
        match (&before, &now) {
            (Ok(()), Err(error)) => tracing::error!(%error, "this release must leave the store alone"),
            (Err(_), Ok(())) => {
                tracing::info!(layout, "the store has a layout that this release knows again")
            }
            _ => {}
        }
        now
    }

    /// Reads the layout and the earliest one in an answer. `false`: the server has none yet, or an earlier one than this release writes.
    pub(super) fn read(&self, reader: &mut Reader<'_>) -> Result<bool, StoreError> {
        let mut number = || u32::try_from(reader.number()?).map_err(|_| StoreError::Corrupt);
        let (layout, min_layout) = (number()?, number()?);
        self.learn(layout, min_layout)?;
        Ok(layout >= LAYOUT)
    }

    /// Takes in the fields `layout` and `min_layout` as they stand on the server. What is no number is found by the next reading of
    /// the registry.
    pub(super) fn read_text(&self, fields: Value) {
        let Ok((layout, min_layout)) = redis::from_redis_value::<(Option<u32>, Option<u32>)>(fields) else {
            return;
        };
        if let Some(layout) = layout {
            // What is wrong is logged there, and refuses every call from then on.
            let _ = self.learn(layout, min_layout.unwrap_or(layout));
        }
    }

    /// The layout that a script refused to work on, if that is what `error` says.
    pub(super) fn refused(&self, error: &RedisError) -> Option<StoreError> {
        if error.kind() != ErrorKind::Extension || error.code() != Some(REFUSAL) {
            return None;
        }
        let found = error.detail().and_then(|detail| detail.split(' ').next()?.parse().ok());
        self.learn(found.unwrap_or(u32::MAX), OLDEST_LAYOUT).err()
    }
}

fn supported(seen: u64) -> Result<(), StoreError> {
    let half = |bits: u64| u32::try_from(bits).unwrap_or(u32::MAX);
    match (half(seen >> 32), half(seen & u64::from(u32::MAX))) {
        (0, _) => Ok(()),
        (layout, min_layout) => Unsupported::check(layout, min_layout).map_err(StoreError::LayoutUnsupported),
    }
}

/// The arguments of `meta.lua`.
pub(super) fn push_meta(cmd: &mut redis::Cmd, meta: &str, counters: &str) {
    // Only tells one state of the server from another; without random bytes the time of creation does.
    let generation = Entropy::System.bytes().map(u64::from_le_bytes).unwrap_or_default();
    cmd.arg(meta).arg(counters).arg(LAYOUT).arg(OLDEST_LAYOUT).arg(format!("{generation:016x}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_again_with_a_known_layout() {
        let gate = LayoutGate::default();
        assert_eq!(gate.check(), Ok(()));
        let newer = Err(StoreError::LayoutUnsupported(Unsupported::Newer { found: LAYOUT + 1 }));
        assert_eq!(gate.clone().learn(LAYOUT + 1, OLDEST_LAYOUT), newer);
        assert_eq!(gate.check(), newer);
        assert_eq!(gate.learn(LAYOUT, OLDEST_LAYOUT), Ok(()));
        assert_eq!(gate.check(), Ok(()));
        assert!(gate.learn(LAYOUT, OLDEST_LAYOUT - 1).is_err());
        // A server that lost everything has no layout.
        assert_eq!(gate.learn(0, 0), Ok(()));
    }
}
