//! Writing records of the registry again.

use std::sync::atomic::Ordering;

use redis::Value;

use super::{
    super::{Inner, bytes, script, wire::Reader},
    again::Fate,
    ring::Write,
};
use crate::{
    runtime::Entropy,
    store::{CarriedOver, RegistryWritten, StoreError},
};

impl Inner {
    /// Writes a record of the registry again unless it is there, or a later one; `None`: that was written in between.
    ///
    /// Versions of two servers say nothing of each other, so the write gets that which it has on the server that answers, for the next
    /// failover. One that another write has taken the place of is not written again by any later one; what it ended stays ended.
    pub(super) async fn restore(&self, write: &Write) -> Result<Option<Fate>, StoreError> {
        let written = write.version.load(Ordering::Relaxed);
        if written == 0 {
            return self.carry_over(write).await;
        }
        let mark: [u8; 8] = Entropy::System.bytes().map_err(|_| StoreError::Unavailable)?;
        let mut cmd = script::REGISTRY_RESTORE.call(3);
        cmd.arg(&self.keyspace.registry).arg(&self.keyspace.revision).arg(&self.keyspace.meta);
        cmd.arg(&*write.name).arg(written).arg(&write.value[..]).arg(&mark);
        for replaced in &write.replaced {
            cmd.arg(replaced.version).arg(replaced.mark.as_ref().map_or(&[][..], |mark| &mark[..]));
        }
        let answer = bytes(self.connection.call(&script::REGISTRY_RESTORE, &cmd).await?)?;
        let mut answer = Reader::new(&answer);
        match (answer.number()?, answer.number()?) {
            (1, again) => {
                write.version.store(again, Ordering::Relaxed);
                Ok(Some(Fate::Changed))
            }
            (_, present) if present == 0 || present == written => Ok(Some(Fate::Known)),
            _ => {
                write.version.store(0, Ordering::Relaxed);
                self.carry_over(write).await
            }
        }
    }

    /// Ends what a write ended that another one has taken the place of: a key that was revoked must not be good again.
    async fn carry_over(&self, write: &Write) -> Result<Option<Fate>, StoreError> {
        let Some(carries_over) = self.replay.settings.carries_over else { return Ok(Some(Fate::Known)) };
        let mut cmd = redis::cmd("HGET");
        cmd.arg(&self.keyspace.registry).arg(&*write.name);
        let found = match self.connection.run(&cmd).await? {
            Value::Nil => return Ok(Some(Fate::Known)),
            found => bytes(found)?,
        };
        let mut present = Reader::new(&found);
        let version = present.number()?;
        match carries_over(&write.name, &write.value, present.rest()) {
            CarriedOver::Nothing => Ok(Some(Fate::Known)),
            CarriedOver::Value(value) => match self.registry_write(&write.name, version, &value).await? {
                RegistryWritten::Written { .. } => Ok(Some(Fate::Changed)),
                RegistryWritten::Conflict { .. } => Ok(None),
            },
            CarriedOver::Another => {
                tracing::error!(
                    entry = %write.name,
                    "redis had forgotten that this key was revoked, and another one has its name since; that one stays as it is"
                );
                Ok(Some(Fate::LeftOut))
            }
        }
    }
}
