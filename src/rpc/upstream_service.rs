//! `tollgate.v1.UpstreamService`.

use std::sync::Arc;

use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use super::{
    access, answer, audited, convert,
    page::{self, ListContext, PageRequest},
    proto::{
        self, LiftCooldownRequest, LiftCooldownResponse, ListCooldownsRequest, ListCooldownsResponse,
        ListUpstreamKeysRequest, ListUpstreamKeysResponse, UpstreamKey, UpstreamKeyReplica, UpstreamKeyState,
        upstream_service_server::UpstreamService,
    },
    recorded::Recorder,
    status::{self, FieldErrors},
};
use crate::{
    audit::{Change, action},
    authorizer::{Authorizer, Failure},
    domain::{
        actor::Actor,
        cooldown::CooldownKey,
        name::{MAX_MODEL_BYTES, MAX_NAME_BYTES},
        pause::MAX_REASON,
        request::ServiceTier,
    },
    replicas::{self, MergedUpstreamKey},
    store::{Cooldown, Store},
    upstream::UpstreamKeys,
};

/// Serves `UpstreamService`.
#[derive(Clone, Debug)]
pub struct UpstreamRpc<S> {
    authorizer: Authorizer<S>,
    keys: Arc<UpstreamKeys>,
    /// The name of this process among the replicas.
    replica: Arc<str>,
    recorder: Recorder,
}

impl<S> UpstreamRpc<S> {
    /// Serves through `authorizer` and tells of `keys`, which are those of `replica`, and of the other replicas'; what is lifted is
    /// recorded with `recorder`.
    #[must_use]
    pub const fn new(
        authorizer: Authorizer<S>,
        keys: Arc<UpstreamKeys>,
        replica: Arc<str>,
        recorder: Recorder,
    ) -> Self {
        Self { authorizer, keys, replica, recorder }
    }
}

type Named = (CooldownKey, Cooldown);

#[tonic::async_trait]
impl<S: Store + Clone> UpstreamService for UpstreamRpc<S> {
    async fn list_upstream_keys(
        &self,
        _: Request<ListUpstreamKeysRequest>,
    ) -> Result<Response<ListUpstreamKeysResponse>, Status> {
        let store = self.authorizer.store();
        let replicas = replicas::list(store).await;
        let replicas = replicas.map_err(|error| status::undecided(&Failure::Store(error), ""))?;
        let keys = replicas::merged_upstream_keys((&self.replica, &self.keys), &replicas, store.now());
        let upstream_keys = keys.into_iter().map(shown_key).collect();
        Ok(Response::new(ListUpstreamKeysResponse { upstream_keys }))
    }

    async fn list_cooldowns(
        &self,
        request: Request<ListCooldownsRequest>,
    ) -> Result<Response<ListCooldownsResponse>, Status> {
        let organization = Arc::clone(&self.authorizer.snapshot().policy.organization.id);
        let context = ListContext { organization, now: self.authorizer.store().now() };
        let mut errors = FieldErrors::default();
        let page = errors.page(&mut request.into_inner(), &context);
        let PageRequest { size, after, tokens } = errors.or(page)?;
        let cooldowns =
            self.authorizer.cooldowns().await.map_err(|failure| status::undecided(&failure, ""))?;
        let rest = cooldowns.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        let (cooldowns, last) = page::fill(rest, size, |named| {
            let shown = shown(&named);
            (named.0, shown)
        });
        let next_page_token = tokens.next(last.as_ref());
        Ok(Response::new(ListCooldownsResponse { cooldowns, next_page_token }))
    }

    async fn lift_cooldown(
        &self,
        request: Request<LiftCooldownRequest>,
    ) -> Result<Response<LiftCooldownResponse>, Status> {
        let actor = access::session(request.extensions()).actor();
        let order = Arc::new(LiftCommand::read(actor, request.into_inner())?);
        let (authorizer, lift) = (self.authorizer.clone(), Arc::clone(&order));
        let lift =
            async move { authorizer.lift_cooldowns(&lift.project, &lift.model, lift.service_tier).await };
        let recorded = Arc::clone(&order);
        let lifted = self.recorder.carry_out(lift, move |lifted| recorded.event(lifted)).await?;
        let lifted = lifted.map_err(|failure| status::failure(&failure, ""))?;
        if lifted.is_empty() {
            return Err(status::unknown_cooldown(&order.project, &order.model));
        }
        let ended_cooldowns = lifted.iter().map(shown).collect();
        Ok(Response::new(LiftCooldownResponse { ended_cooldowns }))
    }
}

/// A well-formed `LiftCooldownRequest`: who lifts what, and why.
struct LiftCommand {
    actor: Actor,
    project: String,
    model: String,
    service_tier: Option<ServiceTier>,
    reason: String,
}

impl LiftCommand {
    fn read(actor: Actor, request: LiftCooldownRequest) -> Result<Self, Status> {
        let mut errors = FieldErrors::default();
        let project = errors.text("project", request.project, 1, MAX_NAME_BYTES);
        let model = errors.text("model", request.model, 1, MAX_MODEL_BYTES);
        let service_tier = errors.service_tier(request.service_tier);
        let reason = errors.text("reason", request.reason, 1, MAX_REASON);
        if !reason.is_empty() && reason.trim().is_empty() {
            errors.add("reason", "required: must not be blank");
        }
        match errors.is_empty() {
            true => Ok(Self { actor, project, model, service_tier, reason }),
            false => Err(errors.into_status()),
        }
    }

    /// What is recorded about it, unless there was nothing to lift.
    fn event(&self, lifted: &Result<Vec<Named>, Failure>) -> Option<Change> {
        let (before, outcome) = match lifted {
            Ok(lifted) if lifted.is_empty() => return None,
            Ok(lifted) => {
                let lifted =
                    lifted.iter().map(|(key, cooldown)| audited::cooldown(key.service_tier.name(), cooldown));
                (json!({ "cooldowns": lifted.collect::<Value>() }), "done")
            }
            Err(_) => (Value::Null, "unknown"),
        };
        let mut subject = format!("{}/{}", self.project, self.model);
        if let Some(tier) = self.service_tier {
            subject = format!("{subject}/{}", tier.name());
        }
        let after = json!({ "reason": self.reason });
        let actor = self.actor.clone();
        Some(Change { actor, action: action::COOLDOWN_LIFT, subject, before, after, outcome })
    }
}

fn shown((key, cooldown): &Named) -> proto::Cooldown {
    proto::Cooldown {
        project: key.project.to_string(),
        model: key.model.to_string(),
        service_tier: convert::service_tier(key.service_tier).into(),
        start_time: Some(answer::timestamp(cooldown.start)),
        end_time: Some(answer::timestamp(cooldown.end)),
        reporter_team: cooldown.reporter.to_string(),
        requested_delay: Some(answer::duration(cooldown.requested_ms)),
    }
}

fn shown_key(key: MergedUpstreamKey) -> UpstreamKey {
    let MergedUpstreamKey { merged, replicas } = key;
    UpstreamKey {
        state: state(merged.state).into(),
        name: merged.name,
        project: merged.project,
        place: merged.place,
        create_time: merged.create.map(answer::timestamp),
        last_use_time: merged.last_use.map(answer::timestamp),
        refuse_time: merged.refuse.map(answer::timestamp),
        request_count: answer::int(merged.request_count),
        replicas: replicas.into_iter().map(shown_replica).collect(),
    }
}

fn shown_replica(seen: replicas::UpstreamKeyReplica) -> UpstreamKeyReplica {
    let report = seen.report;
    UpstreamKeyReplica {
        replica: seen.replica.to_string(),
        state: state(report.state).into(),
        last_use_time: report.last_use.map(answer::timestamp),
        refuse_time: report.refuse.map(answer::timestamp),
        request_count: answer::int(report.request_count),
    }
}

const fn state(state: replicas::UpstreamKeyState) -> UpstreamKeyState {
    match state {
        replicas::UpstreamKeyState::Used => UpstreamKeyState::Used,
        replicas::UpstreamKeyState::Standby => UpstreamKeyState::Standby,
        replicas::UpstreamKeyState::Refused => UpstreamKeyState::Refused,
        replicas::UpstreamKeyState::Unspecified => UpstreamKeyState::Unspecified,
    }
}
