//! The registry and the uses of secrets, as calls of their scripts.

use std::{collections::BTreeMap, sync::Arc};

use redis::Value;

use super::{
    Inner, bytes,
    connection::Connection,
    keyspace::{DEPLOYMENT, HASH_KEY_FIELD, Keyspace},
    layout::push_meta,
    script,
    wire::{Numbers, Reader},
};
use crate::{
    domain::{Timestamp, key::SecretId},
    runtime::Entropy,
    store::{
        MAX_REGISTRY_VALUE, RegistryChanges, RegistryRecord, RegistryWritten, Revision, SecretUse,
        SecretUses, StoreError,
    },
};

/// Secrets in one call of a script: a millisecond of the server's time at most.
const SECRETS_AT_ONCE: usize = 200;

/// Fields of the registry in one page, so that it takes the server no longer than a decision.
const PAGE: usize = 100;
/// How often the whole registry is read again because too much was written during the reading, or another server answered.
const READINGS: u32 = 3;

/// The script's answer.
struct Answer {
    revision: Revision,
    /// How many records there are.
    count: usize,
    extent: Extent,
}

enum Extent {
    Changes(Vec<RegistryRecord>),
    All(Vec<RegistryRecord>),
    /// All records have to be read, page by page.
    TooFarBehind,
}

impl Inner {
    pub(super) async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        let Answer { mut revision, extent, .. } = self.ask_since(known).await?;
        match extent {
            Extent::Changes(records) => return Ok(RegistryChanges { revision, whole: false, records }),
            Extent::All(records) => return Ok(RegistryChanges { revision, whole: true, records }),
            Extent::TooFarBehind => {}
        }
        for _ in 0..READINGS {
            let mut records = self.all_records().await?;
            // The pages may or may not contain what was written while they were read.
            let after = self.ask_since(revision).await?;
            let later = match after.extent {
                Extent::Changes(later) => later,
                Extent::All(records) => {
                    return Ok(RegistryChanges { revision: after.revision, whole: true, records });
                }
                Extent::TooFarBehind if after.revision == revision => Vec::new(),
                Extent::TooFarBehind => {
                    revision = after.revision;
                    continue;
                }
            };
            records.extend(later.into_iter().map(|record| (Arc::clone(&record.name), record)));
            revision = after.revision;
            // Pages of two servers, before and after a failover, can leave some out.
            if records.len() == after.count {
                let records = records.into_values().collect();
                return Ok(RegistryChanges { revision, whole: true, records });
            }
        }
        tracing::warn!("the registry changes faster than it can be read, or its server does");
        Err(StoreError::Unavailable)
    }

    async fn ask_since(&self, known: Revision) -> Result<Answer, StoreError> {
        let mut cmd = script::REGISTRY_SINCE.call(3);
        let Keyspace { registry, revision, meta, .. } = &self.keyspace;
        cmd.arg(registry).arg(revision).arg(meta).arg(known.number).arg(&known.mark);
        let answer = bytes(self.connection.call_at_any_layout(&script::REGISTRY_SINCE, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        if !self.layout.read(&mut reader)? {
            self.describe().await?;
        }
        let (number, kind) = (reader.number()?, reader.number()?);
        let (count, following) = (reader.size()?, reader.size()?);
        let mark = reader.bytes(8)?.try_into().map_err(|_| StoreError::Corrupt)?;
        let record = |_| {
            let (version, name, value) = (reader.number()?, reader.size()?, reader.size()?);
            let name = str::from_utf8(reader.bytes(name)?).map_err(|_| StoreError::Corrupt)?.into();
            Ok(RegistryRecord { name, version, value: reader.bytes(value)?.to_vec().into() })
        };
        let mut records = (0..following).map(record).collect::<Result<Vec<_>, StoreError>>()?;
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let extent = match kind {
            0 => Extent::Changes(records),
            1 => Extent::All(records),
            _ => Extent::TooFarBehind,
        };
        Ok(Answer { revision: Revision { number, mark }, count, extent })
    }

    /// Writes the layout of a server that has none or an earlier one: its data was lost since this connection was made.
    async fn describe(&self) -> Result<(), StoreError> {
        let mut cmd = script::META.call(2);
        push_meta(&mut cmd, &self.keyspace.meta, &self.keyspace.counters);
        let answer = bytes(self.connection.call_at_any_layout(&script::META, &cmd).await?)?;
        self.layout.read(&mut Reader::new(&answer)).map(drop)
    }

    /// The key that secrets are hashed with. Where there is none, it is `proposed` from now on.
    pub(super) async fn hash_key(&self, proposed: Option<&[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        if let Some(proposed) = proposed {
            let mut cmd = redis::cmd("HSETNX");
            cmd.arg(DEPLOYMENT).arg(HASH_KEY_FIELD).arg(proposed);
            self.deployment().run(&cmd).await?;
        }
        let mut cmd = redis::cmd("HGET");
        cmd.arg(DEPLOYMENT).arg(HASH_KEY_FIELD);
        match self.deployment().run(&cmd).await? {
            Value::Nil => Ok(None),
            found => {
                let key = <[u8; 32]>::try_from(bytes(found)?).map_err(|_| {
                    tracing::error!(
                        redis_key = DEPLOYMENT,
                        "the key that secrets are hashed with is damaged"
                    );
                    StoreError::Corrupt
                })?;
                self.replay.read_hash_key(key);
                Ok(Some(key))
            }
        }
    }

    /// The connection for what all organizations share.
    fn deployment(&self) -> &Connection {
        if !self.targets.calls.locator.is_cluster() {
            return &self.connection;
        }
        let open = || Connection::open_patient(self.targets.deployment.clone(), self.connection.deadline());
        self.deployment.get_or_init(open)
    }

    /// All records, page by page: each that exists from the first page to the last, at least once.
    async fn all_records(&self) -> Result<BTreeMap<Arc<str>, RegistryRecord>, StoreError> {
        let mut records = BTreeMap::new();
        let mut cursor = String::from("0");
        loop {
            let mut cmd = redis::cmd("HSCAN");
            cmd.arg(&self.keyspace.registry).arg(&cursor).arg("COUNT").arg(PAGE);
            let (next, page): (String, Vec<(String, Vec<u8>)>) =
                redis::from_redis_value(self.connection.run(&cmd).await?).map_err(|_| StoreError::Corrupt)?;
            for (name, value) in page {
                let mut reader = Reader::new(&value);
                // A damaged record is handed on as such, as the script does.
                let version = reader.number().unwrap_or(0);
                let (name, value) = (Arc::<str>::from(name), reader.rest().to_vec().into());
                records.insert(Arc::clone(&name), RegistryRecord { name, version, value });
            }
            if next == "0" {
                return Ok(records);
            }
            cursor = next;
        }
    }

    pub(super) async fn registry_write(
        &self,
        name: &Arc<str>,
        expected_version: u64,
        value: &[u8],
    ) -> Result<RegistryWritten, StoreError> {
        if value.len() > MAX_REGISTRY_VALUE {
            return Err(StoreError::Overflow);
        }
        let mark: [u8; 8] = Entropy::System.bytes().map_err(|error| {
            tracing::error!(%error, "no change of the registry can be marked");
            StoreError::Unavailable
        })?;
        let mut cmd = script::REGISTRY_WRITE.call(3);
        cmd.arg(&self.keyspace.registry).arg(&self.keyspace.revision).arg(&self.keyspace.meta);
        cmd.arg(&**name).arg(expected_version).arg(value).arg(&mark);
        let answer = bytes(self.connection.call(&script::REGISTRY_WRITE, &cmd).await?)?;
        let mut reader = Reader::new(&answer);
        match (reader.number()?, reader.number()?) {
            (0, version) => {
                self.replay.wrote(name, value, (expected_version, version, mark));
                Ok(RegistryWritten::Written { version })
            }
            (1, version) => Ok(RegistryWritten::Conflict { version }),
            _ => Err(StoreError::Corrupt),
        }
    }

    pub(super) async fn add_uses(&self, uses: &[SecretUse]) -> Result<(), StoreError> {
        for uses in uses.chunks(SECRETS_AT_ONCE) {
            let mut numbers = Numbers::with_capacity(3 * uses.len());
            let mut cmd = script::ADD_USES.call(uses.len() + 1);
            for added in uses {
                numbers.extend(&[u64::from(added.slot), added.requests, added.last_used.0]);
                cmd.arg(self.keyspace.uses(added.secret));
            }
            cmd.arg(&self.keyspace.meta).arg(numbers.bytes()).arg(numbers.format());
            self.connection.call(&script::ADD_USES, &cmd).await?;
        }
        Ok(())
    }

    pub(super) async fn uses(&self, secrets: &[SecretId]) -> Result<Vec<SecretUses>, StoreError> {
        let mut found = Vec::with_capacity(secrets.len());
        for secrets in secrets.chunks(SECRETS_AT_ONCE) {
            let mut cmd = script::USES.call(secrets.len() + 1);
            for secret in secrets {
                cmd.arg(self.keyspace.uses(*secret));
            }
            cmd.arg(&self.keyspace.meta);
            let answer = bytes(self.connection.call(&script::USES, &cmd).await?)?;
            let mut reader = Reader::new(&answer);
            for _ in secrets {
                let (last, count) = (reader.number()?, reader.size()?);
                let slot = |_| {
                    let slot = u32::try_from(reader.number()?).map_err(|_| StoreError::Corrupt)?;
                    Ok((slot, reader.number()?))
                };
                let mut slots = (0..count).map(slot).collect::<Result<Vec<_>, StoreError>>()?;
                slots.sort_unstable();
                found.push(SecretUses { last_used: Some(Timestamp(last)).filter(|at| at.0 > 0), slots });
            }
        }
        Ok(found)
    }
}
