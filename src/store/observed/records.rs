//! The calls about what is kept beside counters: events, replicas, what is to leave the store, decisions that are watched, policies.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{
    AuditEntry, AuditKept, AuditLog, AuditRange, ClaimedEntry, DecisionId, Decisions, Outbox, OutboxClaim,
    OutboxEntry, OutboxId, OutboxKept, PolicyEntry, PolicyRecord, PolicyRecords, ReplicaEntry, Replicas,
    StoreCall, StoreError,
};
use super::Observed;

impl<S: AuditLog> AuditLog for Observed<S> {
    async fn audit_append(&self, events: Vec<AuditEntry>, kept: AuditKept) -> Result<usize, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::AuditAppend, started, self.store.audit_append(events, kept).await)
    }

    async fn audit_page(&self, range: AuditRange, count: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::AuditPage, started, self.store.audit_page(range, count).await)
    }
}

impl<S: Replicas> Replicas for Observed<S> {
    async fn announce_replica(&self, name: Arc<str>, value: Bytes) -> Result<(), StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::AnnounceReplica, started, self.store.announce_replica(name, value).await)
    }

    async fn replicas(&self) -> Result<Vec<ReplicaEntry>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Replicas, started, self.store.replicas().await)
    }
}

impl<S: Outbox> Outbox for Observed<S> {
    async fn outbox_append(&self, entries: Vec<OutboxEntry>, kept: OutboxKept) -> Result<usize, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::OutboxAppend, started, self.store.outbox_append(entries, kept).await)
    }

    async fn outbox_claim(
        &self,
        queue: Arc<str>,
        count: usize,
        lease_ms: u64,
    ) -> Result<OutboxClaim, StoreError> {
        let started = Instant::now();
        let answer = self.store.outbox_claim(queue, count, lease_ms).await;
        self.calls.ended(StoreCall::OutboxClaim, started, answer)
    }

    async fn outbox_update(&self, claimed: ClaimedEntry, next_ms: Option<u64>) -> Result<bool, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::OutboxUpdate, started, self.store.outbox_update(claimed, next_ms).await)
    }

    async fn outbox_page(
        &self,
        before: Option<OutboxId>,
        count: usize,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::OutboxPage, started, self.store.outbox_page(before, count).await)
    }
}

impl<S: Decisions> Decisions for Observed<S> {
    async fn publish_decisions(&self, decisions: Vec<Bytes>) -> Result<bool, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::PublishDecisions, started, self.store.publish_decisions(decisions).await)
    }

    async fn read_decisions(
        &self,
        after: Option<DecisionId>,
        count: usize,
    ) -> Result<Vec<(DecisionId, Bytes)>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::ReadDecisions, started, self.store.read_decisions(after, count).await)
    }
}

impl<S: PolicyRecords> PolicyRecords for Observed<S> {
    async fn record_policy(&self, record: PolicyRecord) -> Result<bool, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::RecordPolicy, started, self.store.record_policy(record).await)
    }

    async fn policies(&self) -> Result<Vec<PolicyEntry>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::Policies, started, self.store.policies().await)
    }

    async fn policy_document(&self, revision: Arc<str>) -> Result<Option<Bytes>, StoreError> {
        let started = Instant::now();
        self.calls.ended(StoreCall::PolicyDocument, started, self.store.policy_document(revision).await)
    }
}
