//! The calls of a world's store that have no particulars: they take their way, and are done.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    faults::LATEST_MS,
    store::{DEADLINE, SimStore, Simulated},
};
use crate::{
    domain::{Moment, key::SecretId},
    store::{
        AuditEntry, AuditKept, AuditLog, AuditRange, Backend, ClaimedEntry, DecisionId, Decisions, Outbox,
        OutboxClaim, OutboxEntry, OutboxId, OutboxKept, PolicyEntry, PolicyRecord, PolicyRecords, Registry,
        RegistryChanges, RegistryWritten, ReplicaEntry, Replicas, Revision, SecretUse, SecretUses,
        StoreError, StoreKind, Usage, UsageAddition, UsageAmounts, UsageKey, UsageSet,
    },
};

impl<S: Simulated> Backend for SimStore<S> {
    const KIND: StoreKind = StoreKind::Redis;

    fn moment(&self) -> Moment {
        self.side.store().moment()
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }

    fn acts_within(&self) -> Option<Duration> {
        Some(Duration::from_millis(LATEST_MS))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pass(|store| async move { store.ping().await }).await
    }
}

impl<S: Simulated> Usage for SimStore<S> {
    async fn spenders(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        self.pass(move |store| async move { store.spenders(month).await }).await
    }

    async fn usage(&self, set: UsageSet) -> Result<Vec<(UsageKey, UsageAmounts)>, StoreError> {
        self.pass(move |store| async move { store.usage(set).await }).await
    }

    async fn usage_of(&self, sets: &[UsageSet]) -> Result<Vec<Vec<(UsageKey, UsageAmounts)>>, StoreError> {
        let sets = sets.to_vec();
        self.pass(move |store| async move { store.usage_of(&sets).await }).await
    }

    async fn denied(&self, month: u32) -> Result<Vec<Arc<str>>, StoreError> {
        self.pass(move |store| async move { store.denied(month).await }).await
    }

    async fn add_usage(&self, addition: UsageAddition) -> Result<(), StoreError> {
        self.pass(move |store| async move { store.add_usage(addition).await }).await
    }
}

impl<S: Simulated> Registry for SimStore<S> {
    async fn registry_since(&self, known: Revision) -> Result<RegistryChanges, StoreError> {
        let began = self.side.history.now();
        let read = self.call(move |side| async move {
            let changes = side.on(move |store| async move { store.registry_since(known).await }).await?;
            Ok(match side.means.mutant {
                Some(mutant) => mutant.changes(known, changes),
                None => changes,
            })
        });
        let read = read.await;
        if read.is_ok() {
            self.side.history.read(self.replica, began);
        }
        read
    }

    async fn registry_write(
        &self,
        name: Arc<str>,
        expected_version: u64,
        value: Bytes,
    ) -> Result<RegistryWritten, StoreError> {
        self.call(move |side| async move {
            let call =
                move |store: Arc<S>| async move { store.registry_write(name, expected_version, value).await };
            let written = side.on(call).await?;
            side.history.step();
            Ok(written)
        })
        .await
    }

    async fn hash_key(&self, proposed: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, StoreError> {
        self.pass(move |store| async move { store.hash_key(proposed).await }).await
    }

    async fn add_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError> {
        self.pass(move |store| async move { store.add_uses(uses).await }).await
    }

    async fn uses(&self, secrets: Vec<SecretId>) -> Result<Vec<SecretUses>, StoreError> {
        self.pass(move |store| async move { store.uses(secrets).await }).await
    }
}

impl<S: Simulated> AuditLog for SimStore<S> {
    async fn audit_append(&self, events: Vec<AuditEntry>, kept: AuditKept) -> Result<usize, StoreError> {
        self.pass(move |store| async move { store.audit_append(events, kept).await }).await
    }

    async fn audit_page(&self, range: AuditRange, count: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.pass(move |store| async move { store.audit_page(range, count).await }).await
    }
}

impl<S: Simulated> Replicas for SimStore<S> {
    async fn announce_replica(&self, name: Arc<str>, value: Bytes) -> Result<(), StoreError> {
        self.pass(move |store| async move { store.announce_replica(name, value).await }).await
    }

    async fn replicas(&self) -> Result<Vec<ReplicaEntry>, StoreError> {
        self.pass(|store| async move { store.replicas().await }).await
    }
}

impl<S: Simulated> Outbox for SimStore<S> {
    async fn outbox_append(&self, entries: Vec<OutboxEntry>, kept: OutboxKept) -> Result<usize, StoreError> {
        self.pass(move |store| async move { store.outbox_append(entries, kept).await }).await
    }

    async fn outbox_claim(
        &self,
        queue: Arc<str>,
        count: usize,
        lease_ms: u64,
    ) -> Result<OutboxClaim, StoreError> {
        self.pass(move |store| async move { store.outbox_claim(queue, count, lease_ms).await }).await
    }

    async fn outbox_update(&self, claimed: ClaimedEntry, next_ms: Option<u64>) -> Result<bool, StoreError> {
        self.pass(move |store| async move { store.outbox_update(claimed, next_ms).await }).await
    }

    async fn outbox_page(
        &self,
        before: Option<OutboxId>,
        count: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        self.pass(move |store| async move { store.outbox_page(before, count).await }).await
    }
}

impl<S: Simulated> Decisions for SimStore<S> {
    async fn publish_decisions(&self, decisions: Vec<Bytes>) -> Result<bool, StoreError> {
        self.pass(move |store| async move { store.publish_decisions(decisions).await }).await
    }

    async fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> Result<Vec<(DecisionId, Bytes)>, StoreError> {
        self.pass(move |store| async move { store.read_decisions(after, count).await }).await
    }
}

impl<S: Simulated> PolicyRecords for SimStore<S> {
    async fn record_policy(&self, record: PolicyRecord) -> Result<bool, StoreError> {
        self.pass(move |store| async move { store.record_policy(record).await }).await
    }

    async fn policies(&self) -> Result<Vec<PolicyEntry>, StoreError> {
        self.pass(|store| async move { store.policies().await }).await
    }

    async fn policy_document(&self, revision: Arc<str>) -> Result<Option<Bytes>, StoreError> {
        self.pass(move |store| async move { store.policy_document(revision).await }).await
    }
}
