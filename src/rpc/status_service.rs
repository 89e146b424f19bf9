//! `tollgate.v1.StatusService`, whose answer is also the page `/status`.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    answer,
    findings::{count, findings},
    page::ListContext,
    proto::{
        self, GetStatusRequest, GetStatusResponse, ListReplicasRequest, ListReplicasResponse,
        PolicyRejection, SnapshotStatus, StoreCallOutcome, StoreCalls, StoreStatus,
        status_service_server::StatusService,
    },
    replica_list,
};
use crate::{
    authorizer::Shared,
    policy_file::{PolicyStatus, Rejection},
    runtime::clock::Clock,
    spool::SpoolState,
    store::{CallOutcome, Calls, Store, StoreCall, StoreKind, Unreported, answers, redis::Hazards},
};

/// What a replica knows about itself.
#[derive(Clone, Debug)]
pub struct StatusFacts {
    /// What is in force.
    pub shared: Arc<Shared>,
    /// What became of the policy's file.
    pub policy: watch::Receiver<Arc<PolicyStatus>>,
    /// What makes Redis unsafe.
    pub hazards: Hazards,
    /// The calls to all stores of the process.
    pub calls: Arc<Calls>,
    /// Reservations that ended without a report, as those stores counted them.
    pub unreported: Unreported,
    /// The clock that tells when keys expire.
    pub clock: Clock,
}

impl StatusFacts {
    /// All of it now, with whether `store` answers.
    pub async fn read<S: Store>(&self, store: &S) -> proto::Status {
        let reachable = answers(store).await;
        let policy = Arc::clone(&self.policy.borrow());
        let kind = match S::KIND {
            StoreKind::Embedded => proto::StoreKind::Embedded,
            StoreKind::Redis => proto::StoreKind::Redis,
        };
        let organization = self.shared.live.peek().policy.organization.id.to_string();
        proto::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            organization,
            snapshot: Some(self.snapshot(&policy)),
            store: Some(StoreStatus { kind: kind.into(), reachable, calls: self.calls() }),
            findings: findings(&policy.warnings),
            finding_count: count(policy.warnings.len()),
            rejected: policy.rejected.as_ref().map(rejection),
            redis_warnings: self.hazards.load().iter().map(ToString::to_string).collect(),
            spool: self.shared.spool.as_ref().map(|spool| kept(&spool.state())),
        }
    }

    fn snapshot(&self, policy: &PolicyStatus) -> SnapshotStatus {
        let live = &self.shared.live;
        let (now, freshness) = (self.clock.now(), live.freshness());
        let snapshot = live.snapshot();
        let read_at = |age: Duration| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            answer::timestamp(crate::domain::Timestamp(now.0.saturating_sub(age)))
        };
        SnapshotStatus {
            policy_revision: snapshot.revision.to_string(),
            load_time: Some(answer::timestamp(policy.loaded_at)),
            read_time: freshness.age().map(read_at),
            fresh: freshness.is_fresh(),
            team_count: count(snapshot.policy.teams.len()),
            key_count: count(live.active_keys(now)),
            pause_count: count(snapshot.pauses.iter().count()),
        }
    }

    fn calls(&self) -> Vec<StoreCalls> {
        let kinds = StoreCall::ALL.into_iter().flat_map(|call| CallOutcome::ALL.map(|ended| (call, ended)));
        let occurred = kinds.filter_map(|(call, ended)| {
            let totals = self.calls.of(call, ended);
            let mean = totals.took.as_micros().checked_div(totals.count.into())?;
            let mean = Duration::from_micros(u64::try_from(mean).unwrap_or(u64::MAX));
            let outcome = match ended {
                CallOutcome::Succeeded => StoreCallOutcome::Succeeded,
                CallOutcome::Failed => StoreCallOutcome::Failed,
            };
            Some(StoreCalls {
                operation: call.name().to_owned(),
                outcome: outcome.into(),
                count: i64::try_from(totals.count).unwrap_or(i64::MAX),
                mean_duration: prost_types::Duration::try_from(mean).ok(),
            })
        });
        occurred.collect()
    }
}

fn rejection(rejection: &Rejection) -> PolicyRejection {
    PolicyRejection {
        reject_time: Some(answer::timestamp(rejection.at)),
        findings: findings(&rejection.findings),
        finding_count: count(rejection.findings.len()),
    }
}

fn kept(state: &SpoolState) -> proto::Spool {
    let int = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    proto::Spool {
        record_count: int(state.records),
        cost: (state.records > 0).then(|| answer::money(state.cost_nanos)),
        oldest_time: state.oldest.map(answer::timestamp),
        byte_count: int(state.bytes),
        max_byte_count: int(state.max_bytes),
        refused_count: int(state.refused),
        delivered_count: int(state.delivered),
        error: state.fault(),
    }
}

/// Serves `StatusService`.
#[derive(Clone, Debug)]
pub struct StatusRpc<S> {
    store: S,
    facts: StatusFacts,
}

impl<S> StatusRpc<S> {
    /// Tells `facts`, whether `store` answers, and which replicas share it.
    #[must_use]
    pub const fn new(store: S, facts: StatusFacts) -> Self {
        Self { store, facts }
    }
}

#[tonic::async_trait]
impl<S: Store> StatusService for StatusRpc<S> {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let status = Some(self.facts.read(&self.store).await);
        Ok(Response::new(GetStatusResponse { status }))
    }

    async fn list_replicas(
        &self,
        request: Request<ListReplicasRequest>,
    ) -> Result<Response<ListReplicasResponse>, Status> {
        let organization = Arc::clone(&self.facts.shared.live.peek().policy.organization.id);
        let context = ListContext { organization, now: self.store.now() };
        replica_list::answer(&self.store, request.into_inner(), &context).await.map(Response::new)
    }
}
