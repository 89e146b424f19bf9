//! Writing records of the registry again.

use std::sync::atomic::Ordering;

use super::{
    super::{Inner, bytes, script, wire::Reader},
    again::Fate,
    ring::Write,
};
use crate::{runtime::Entropy, store::StoreError};

impl Inner {
    /// Writes a record of the registry again unless it is there, or a later one.
    ///
    /// Versions of two servers say nothing of each other, so the write gets that which it has on the server that answers, for the next
    /// failover. One that another write has taken the place of, such as a revocation since, is not written again by any later one.
    pub(super) async fn restore(&self, write: &Write) -> Result<Fate, StoreError> {
        let written = write.version.load(Ordering::Relaxed);
        if written == 0 {
            return Ok(Fate::Known);
        }
        let mark: [u8; 8] = Entropy::System.bytes().map_err(|_| StoreError::Unavailable)?;
        let mut cmd = script::REGISTRY_RESTORE.call(3);
        cmd.arg(&self.keyspace.registry).arg(&self.keyspace.revision).arg(&self.keyspace.meta);
        cmd.arg(&*write.name).arg(written).arg(&write.value[..]).arg(&mark);
        let answer = bytes(self.connection.call(&script::REGISTRY_RESTORE, &cmd).await?)?;
        let mut answer = Reader::new(&answer);
        match (answer.number()?, answer.number()?) {
            (1, again) => {
                write.version.store(again, Ordering::Relaxed);
                Ok(Fate::Changed)
            }
            (_, present) => {
                if present != 0 && present != written {
                    write.version.store(0, Ordering::Relaxed);
                }
                Ok(Fate::Known)
            }
        }
    }
}
