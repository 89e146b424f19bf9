//! `tollgate.v1.PolicyDocumentService`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    access, answer, deadline,
    findings::{count, findings},
    key_answer,
    page::ListContext,
    policy_revisions,
    proto::{
        CheckPolicyRequest, CheckPolicyResponse, DescribeTeamRequest, DescribeTeamResponse, GetPolicyRequest,
        GetPolicyResponse, GetPolicyRevisionRequest, GetPolicyRevisionResponse, ListPolicyRevisionsRequest,
        ListPolicyRevisionsResponse, PolicySnapshot, ReplayPolicyRequest,
        policy_document_service_server::PolicyDocumentService,
    },
    replaying::{self, Answers, Play},
    status::{self, FieldErrors},
    status_service::StatusFacts,
};
use crate::{
    authorizer::Failure,
    domain::{
        Timestamp,
        key::KeyLimits,
        name::MAX_NAME_BYTES,
        policy::{DocumentFormat, Policy, Team},
        rbac::Permission,
        request::ServiceTier,
        snapshot::Snapshot,
    },
    policy_file::{
        Described, PolicyReport, Proposal, ProposalReport, TookTooLong, describe_team, masked, shown_document,
    },
    reports::PastUsage,
    runtime::Tasks,
    store::Store,
};

/// Proposals that a process checks at the same time: a check keeps a core busy for seconds, and may take a gigabyte.
const MAX_CHECKS: usize = 1;
/// Other calls that are answered at the same time. All but the first after a change of the policy take milliseconds.
const MAX_READS: usize = 8;
/// How long a check may take. The largest policies take a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// Replays that a process makes at the same time: each keeps a core busy for up to a minute.
const MAX_REPLAYS: usize = 1;
/// How long a replay may take.
const REPLAY_PATIENCE: Duration = Duration::from_secs(60);
/// The most models that are listed.
const MAX_MODELS: usize = 1_000;
/// The most bytes of sentences: an answer has 1 MiB, and models and limits stand beside them.
const MAX_SENTENCES: usize = 768 << 10;

/// What a process does with whole policy documents. It is done on threads that serve no decisions.
#[derive(Clone, Debug)]
pub struct DocumentWork {
    checks: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    replays: Arc<Semaphore>,
}

impl Default for DocumentWork {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { checks: places(MAX_CHECKS), reads: places(MAX_READS), replays: places(MAX_REPLAYS) }
    }
}

/// Does `work`, which takes one of `places` until it is done, even if its caller leaves before.
async fn done<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let place = Arc::clone(places).try_acquire_owned().map_err(|_| status::busy_with_documents())?;
    let work = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    work.await.map_err(|_| status::internal())
}

/// Serves `PolicyDocumentService`.
#[derive(Clone, Debug)]
pub struct PolicyDocumentRpc<S> {
    store: S,
    facts: StatusFacts,
    work: DocumentWork,
    tasks: Tasks,
}

impl<S> PolicyDocumentRpc<S> {
    /// Tells of the document that `facts` has in force, and of those that `store` has on record. Replays end with `tasks`.
    #[must_use]
    pub const fn new(store: S, facts: StatusFacts, work: DocumentWork, tasks: Tasks) -> Self {
        Self { store, facts, work, tasks }
    }
}

#[tonic::async_trait]
impl<S: Store + Clone> PolicyDocumentService for PolicyDocumentRpc<S> {
    type ReplayPolicyStream = Answers;

    async fn get_policy(&self, _: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        let live = &self.facts.shared.live;
        let snapshot = live.snapshot();
        let beside = PolicySnapshot {
            policy_revision: snapshot.revision.to_string(),
            load_time: Some(answer::timestamp(self.facts.policy.borrow().loaded_at)),
            team_count: count(snapshot.policy.teams.len()),
            key_count: count(live.active_keys(self.facts.clock.now())),
            pause_count: count(snapshot.pauses.iter().count()),
            ..PolicySnapshot::default()
        };
        let policy = Arc::clone(&snapshot.policy);
        let policy = done(&self.work.reads, move || {
            let shown = shown_document(&policy);
            PolicySnapshot {
                document: shown.text.to_string(),
                format: policy.document.format.name().to_owned(),
                truncated: shown.is_truncated,
                ..beside
            }
        });
        Ok(Response::new(GetPolicyResponse { policy: Some(policy.await?) }))
    }

    async fn list_policy_revisions(
        &self,
        request: Request<ListPolicyRevisionsRequest>,
    ) -> Result<Response<ListPolicyRevisionsResponse>, Status> {
        let snapshot = self.facts.shared.live.snapshot();
        let organization = Arc::clone(&snapshot.policy.organization.id);
        let context = ListContext { organization, now: self.store.now() };
        let revision = snapshot.revision.to_string();
        let page = policy_revisions::list(&self.store, request.into_inner(), &context, revision);
        page.await.map(Response::new)
    }

    async fn get_policy_revision(
        &self,
        request: Request<GetPolicyRevisionRequest>,
    ) -> Result<Response<GetPolicyRevisionResponse>, Status> {
        let _place = self.work.reads.try_acquire().map_err(|_| status::busy_with_documents())?;
        policy_revisions::get(&self.store, request.into_inner()).await.map(Response::new)
    }

    async fn describe_team(
        &self,
        request: Request<DescribeTeamRequest>,
    ) -> Result<Response<DescribeTeamResponse>, Status> {
        let scope = access::session(request.extensions()).scope(Permission::ReadTeamPolicy);
        let scope = scope.map_err(access::status)?;
        let mut errors = FieldErrors::default();
        let team = errors.text("team", request.into_inner().team, 1, MAX_NAME_BYTES);
        let team = errors.or(team)?;
        access::within(&scope, &team, Permission::ReadTeamPolicy)?;
        let snapshot = self.facts.shared.live.snapshot();
        let Some(of_team) = snapshot.policy.teams.get(team.as_str()).map(Arc::clone) else {
            return Err(status::undecided(&Failure::UnknownTeam(team), ""));
        };
        let now = self.facts.clock.now();
        done(&self.work.reads, move || described(&snapshot, &of_team, now)).await.map(Response::new)
    }

    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        let mine = Instant::now() + PATIENCE;
        let until = deadline::of(request.metadata()).map_or(mine, |caller| caller.min(mine));
        let CheckPolicyRequest { document, format } = request.into_inner();
        let mut errors = FieldErrors::default();
        let format = errors.document(&document, &format);
        let format = errors.or(format)?;
        let (snapshot, now) = (self.facts.shared.live.snapshot(), self.facts.clock.now());
        let neighbours = self.facts.policy.borrow().neighbours.clone();
        let checked = done(&self.work.checks, move || {
            let proposal = Proposal { bytes: &document, format, neighbours: neighbours.as_ref() };
            checked(&proposal, &snapshot, now, until)
        });
        let checked = checked.await?;
        checked.map(Response::new).map_err(status::unchecked)
    }

    async fn replay_policy(
        &self,
        request: Request<ReplayPolicyRequest>,
    ) -> Result<Response<Answers>, Status> {
        let mine = Instant::now() + REPLAY_PATIENCE;
        let until = deadline::of(request.metadata()).map_or(mine, |caller| caller.min(mine));
        let ReplayPolicyRequest { document, start_date, end_date, format } = request.into_inner();
        let mut errors = FieldErrors::default();
        let format = errors.document(&document, &format);
        let days = errors.interval(&start_date, &end_date);
        let (format, days) = errors.or((format, days))?;
        let place = Arc::clone(&self.work.replays).try_acquire_owned();
        let place = place.map_err(|_| status::busy_with_documents())?;
        let (snapshot, now) = (self.facts.shared.live.snapshot(), self.facts.clock.now());
        let calendar = snapshot.policy.calendar.clone();
        let begin = |day| calendar.start_of_day(day).unwrap_or_default();
        let interval = (begin(days.0), begin(days.1));
        let usage = PastUsage::new(self.store.clone(), calendar, days).await.map_err(status::unanswered)?;
        let neighbours = self.facts.policy.borrow().neighbours.clone();
        let loading = move || {
            let proposal = Proposal { bytes: &document, format, neighbours: neighbours.as_ref() };
            proposal.load(&snapshot.policy, now, until)
        };
        let report = tokio::task::spawn_blocking(loading).await.map_err(|_| status::internal())?;
        let PolicyReport { policy, findings } = report.map_err(status::unchecked)?;
        let policy = policy.ok_or_else(|| status::faulty_document(&findings))?;
        let created = self.facts.shared.live.created_keys();
        let play = Play { policy, created, interval, until, tasks: self.tasks.clone(), place };
        Ok(Response::new(replaying::start(play, usage)))
    }
}

impl FieldErrors {
    /// The format of a proposed document; `None`: as it begins.
    fn document(&mut self, document: &Bytes, format: &str) -> Option<DocumentFormat> {
        if document.is_empty() {
            self.add("document", "required: must not be empty");
        }
        let known = DocumentFormat::ALL.into_iter().find(|known| known.name() == format);
        if known.is_none() && !format.is_empty() {
            self.add("format", "must be `toml` or `json`");
        }
        known
    }
}

fn described(snapshot: &Snapshot, team: &Team, now: Timestamp) -> DescribeTeamResponse {
    let policy = &snapshot.policy;
    let mut room = MAX_SENTENCES;
    let said = describe_team(policy, team);
    let sentences = said.iter().flat_map(Described::sentences).map(|said| masked(&said).into_owned());
    let sentences = sentences.take_while(|said| match room.checked_sub(said.len()) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    });
    DescribeTeamResponse {
        sentences: sentences.collect(),
        limits: Some(key_answer::limits(&KeyLimits::of_team(team))),
        models: models(policy, team, now),
        policy_revision: snapshot.revision.to_string(),
    }
}

/// The models that requests of `team` may name and that have a price of any tier.
fn models(policy: &Policy, team: &Team, now: Timestamp) -> Vec<String> {
    let models = policy.catalogue.models().filter(|model| {
        team.models.iter().any(|pattern| pattern.matches(&model.name))
            && ServiceTier::ALL.into_iter().any(|tier| model.rates(tier, now).is_some())
    });
    let mut names: Vec<_> = models.map(|model| model.name.to_string()).collect();
    names.sort_unstable();
    names.truncate(MAX_MODELS);
    names
}

fn checked(
    proposal: &Proposal<'_>,
    snapshot: &Snapshot,
    now: Timestamp,
    until: Instant,
) -> Result<CheckPolicyResponse, TookTooLong> {
    let report = proposal.check(&snapshot.policy, now, until)?;
    let ProposalReport { revision, findings: found, differences } = report;
    let (changes, change_count) = policy_revisions::changes(differences);
    Ok(CheckPolicyResponse {
        findings: findings(&found),
        change_count,
        changes,
        sound: revision.is_some(),
        finding_count: count(found.len()),
        document_revision: revision.as_deref().unwrap_or_default().to_owned(),
        policy_revision: snapshot.revision.to_string(),
    })
}
