//! The organizations that `serve` serves: their policies, their stores, and what runs beside each.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{mpsc::unbounded_channel, watch};
use tracing::{Span, error, warn};

use super::{ServeError, record::Record};
use crate::{
    app::{Organization, Parts, SpoolDelivery, carried_over, released},
    audit::{Audit, Sink},
    cli::{auditing, metering::Transactions, redis_access::redis_access, redis_safety},
    domain::policy::Policy,
    policy_file::{PolicyDirectory, PolicySource, PolicyStatus},
    runtime::{clock::Clock, organization_span},
    server::StartError,
    settings::{Settings, StoreUrl},
    spool::{self, Spool},
    store::{
        Calls, Observed, Store, Unreported,
        embedded::{self, EmbeddedStore},
        redis::{
            Hazards, KnownHashKey, LayoutGate, RedisPlace, RedisSettings, RedisStore, RedisUrl,
            ReplaySettings,
        },
    },
    telemetry::Meters,
    upstream::UpstreamKeySource,
};

/// The policies that are served.
pub(super) enum Policies {
    /// That of one organization.
    One(Arc<PolicySource>),
    /// Those of a directory, in which each organization has its own; its changes are told of for as long as this is kept.
    Several(PolicyDirectory),
}

impl Policies {
    pub(super) fn open(settings: &Settings) -> Result<Self, ServeError> {
        let mut directory = match (&settings.policy_directory, &settings.policy) {
            (Some(path), _) => PolicyDirectory::open(path)?,
            (None, Some(path)) => return Ok(Self::One(Arc::new(PolicySource::open(path)?))),
            (None, None) => return Ok(Self::One(Arc::new(PolicySource::example()?))),
        };
        // As with one that does not load: the others are served.
        directory.retain(|policy| {
            let is_served = !is_open_to_all(settings, policy);
            if !is_served {
                error!(
                    organization = &*policy.organization.id,
                    "not served: its policy has no `[access]` that says who may ask, and others than this machine can reach the service"
                );
            }
            is_served
        });
        match directory.sources() {
            [] => Err(ServeError::Unauthenticated(settings.listen)),
            _ => Ok(Self::Several(directory)),
        }
    }

    pub(super) fn all(&self) -> &[Arc<PolicySource>] {
        match self {
            Self::One(source) => std::slice::from_ref(source),
            Self::Several(directory) => directory.sources(),
        }
    }

    /// The span for work of one organization.
    fn span(&self, organization: &str) -> Span {
        organization_span(organization, self.all().len() > 1)
    }

    /// The settings of one organization.
    fn own(&self, settings: &Settings, organization: &str) -> Settings {
        match self {
            Self::One(_) => settings.clone(),
            Self::Several(_) => settings.of(organization),
        }
    }
}

/// One organization: its policy, and what is known of its store.
pub(super) struct Member {
    pub(super) source: Arc<PolicySource>,
    hazards: Hazards,
    /// Where the stores count reservations that ended without a report.
    unreported: Unreported,
    spool: Option<PathBuf>,
    /// For work of the organization.
    pub(super) span: Span,
}

/// All organizations.
pub(super) struct Members<F> {
    pub(super) all: Vec<Member>,
    /// Makes a store of each, in their order, for one purpose on one runtime: they may share what leads to them.
    pub(super) make_stores: F,
}

/// Stores, or why one cannot be made.
type MadeStores<S> = Result<Vec<S>, StartError>;

/// Each on an embedded store.
pub(super) fn on_disk(
    settings: &Settings,
    policies: &Policies,
    meters: &Meters,
) -> Result<Members<impl Fn() -> MadeStores<EmbeddedStore> + Clone + Send + 'static + use<>>, ServeError> {
    let transactions = Transactions::new(meters);
    let open = |source: &Arc<PolicySource>| {
        let organization = Arc::clone(&source.policy().load().organization.id);
        let own = policies.own(settings, &organization);
        let StoreUrl::Embedded { dir } = &own.store else { return Err(ServeError::Nothing) };
        refuse_former(settings, &own)?;
        let span = policies.span(&organization);
        let store = span.in_scope(|| EmbeddedStore::open(dir, Clock::System))?;
        let store = transactions.timed(store.with_deadline(settings.store_timeout));
        let member = Member {
            source: Arc::clone(source),
            hazards: Hazards::default(),
            unreported: store.unreported(),
            spool: own.spool_directory,
            span,
        };
        Ok((member, store))
    };
    let opened = policies.all().iter().map(open).collect::<Result<Vec<_>, ServeError>>()?;
    let (all, stores): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
    Ok(Members { all, make_stores: move || Ok(stores.clone()) })
}

/// Of several organizations each has directories of its own. One that has the store or the spool of a single organization is not left for
/// those: its budgets would start at zero, and its reports would not be delivered.
fn refuse_former(settings: &Settings, own: &Settings) -> Result<(), ServeError> {
    let refused =
        |dir: &Path, own: &Path| Err(ServeError::Former { dir: dir.to_owned(), own: own.to_owned() });
    if let (StoreUrl::Embedded { dir }, StoreUrl::Embedded { dir: own }) = (&settings.store, &own.store)
        && dir != own
        && embedded::look(dir).is_ok_and(|found| found.layout.is_some())
    {
        return refused(dir, own);
    }
    if let (Some(dir), Some(own)) = (&settings.spool_directory, &own.spool_directory)
        && dir != own
        && spool::look(dir).is_ok_and(|found| found.look.layout.is_some())
    {
        return refused(dir, own);
    }
    Ok(())
}

/// Each in Redis.
pub(super) async fn on_redis(
    settings: &Settings,
    url: &RedisUrl,
    policies: &Policies,
) -> Result<Members<impl Fn() -> MadeStores<RedisStore> + Clone + Send + 'static + use<>>, ServeError> {
    let (access, hash_key) = (redis_access(settings)?, KnownHashKey::default());
    let (mut reached, mut found) = (Vec::new(), Vec::new());
    for source in policies.all() {
        let organization = Arc::clone(&source.policy().load().organization.id);
        let (unreported, own) = (Unreported::default(), policies.own(settings, &organization));
        refuse_former(settings, &own)?;
        reached.push(RedisSettings {
            url: url.clone(),
            access: access.clone(),
            organization: organization.to_string(),
            deadline: settings.store_timeout,
            layout: LayoutGate::default(),
            unreported: unreported.clone(),
            replay: ReplaySettings {
                window: settings.redis_replay_window,
                released: released(),
                carries_over: Some(carried_over),
                // All organizations of a Redis have the same.
                hash_key: hash_key.clone(),
            },
        });
        found.push((Arc::clone(source), unreported, own.spool_directory, policies.span(&organization)));
    }
    // In a cluster each may have a server of its own; else there is one for all.
    let is_cluster = matches!(url.place, RedisPlace::Cluster { .. });
    let looking = reached.iter().take(if is_cluster { reached.len() } else { 1 }).cloned();
    let mut hazards = Vec::with_capacity(reached.len());
    for store in RedisStore::connect_together(looking, &Clock::System)? {
        hazards.push(redis_safety::watch(store, settings.require_safe_redis).await?);
    }
    let hazards = hazards.iter().cycle().map(Arc::clone);
    let member =
        |((source, unreported, spool, span), hazards)| Member { source, hazards, unreported, spool, span };
    let all = found.into_iter().zip(hazards).map(member).collect();
    let make_stores = move || {
        RedisStore::connect_together(reached.clone(), &Clock::System)
            .map_err(|error| StartError::Store(error.to_string()))
    };
    Ok(Members { all, make_stores })
}

/// The stores for what runs beside the service of one organization, each for one purpose.
pub(super) struct Beside<S> {
    /// Where there are metrics.
    metrics: Option<S>,
    alerts: S,
    spool: S,
    policies: S,
}

impl<S> Beside<S> {
    /// Those of each organization.
    pub(super) fn of_each(
        make_stores: impl Fn() -> MadeStores<S>,
        is_measured: bool,
    ) -> Result<Vec<Self>, StartError> {
        let mut metrics = if is_measured { make_stores()? } else { Vec::new() }.into_iter();
        let (alerts, spools, policies) = (make_stores()?, make_stores()?, make_stores()?);
        let each = alerts.into_iter().zip(spools).zip(policies);
        let beside = |((alerts, spool), policies)| Self { metrics: metrics.next(), alerts, spool, policies };
        Ok(each.map(beside).collect())
    }
}

/// What an organization needs before it is put together.
pub(super) struct Begun {
    pub(super) audit: Audit,
    calls: Arc<Calls>,
    upstream: UpstreamKeySource,
    /// From before the policy was taken, so that a change in between is not missed.
    changes: watch::Receiver<Arc<PolicyStatus>>,
    source: Arc<PolicySource>,
}

impl Begun {
    /// `sinks` are where its audit log goes, and `calls` where the calls to its stores are counted.
    pub(super) fn new(
        settings: &Settings,
        member: &Member,
        sinks: Vec<Sink>,
        calls: Arc<Calls>,
    ) -> Result<Self, ServeError> {
        let source = Arc::clone(&member.source);
        let first = source.policy().load_full();
        let audit = auditing::open(&first.organization.id, sinks)
            .map_err(|(file, error)| ServeError::Audit(file, error))?;
        check_access(settings, &first)?;
        let start = || UpstreamKeySource::start(source.policy(), settings.groq_keys.clone());
        let upstream = member.span.in_scope(start)?;
        let changes = source.subscribe();
        Ok(Self { audit, calls, upstream, changes, source })
    }

    /// What its service is made of.
    pub(super) fn parts(&self, settings: &Settings, member: &Member) -> Result<Parts, ServeError> {
        let policy = self.source.policy().load_full();
        let organization = Arc::clone(&policy.organization.id);
        let open = |directory: &PathBuf| Spool::open(directory, settings.spool_max_size, &organization);
        let spool = member.span.in_scope(|| member.spool.as_ref().map(open).transpose())?;
        Ok(Parts {
            calls: Arc::clone(&self.calls),
            unreported: member.unreported.clone(),
            policy_status: self.source.subscribe(),
            hazards: Arc::clone(&member.hazards),
            spool,
            span: member.span.clone(),
            ..Parts::of_settings(settings, policy, self.upstream.keys(), self.audit.clone())
        })
    }

    /// Runs what stands beside its service, until the process ends; returns what delivers its spool, if it has one.
    pub(super) fn run<S: Store + Clone>(
        &self,
        organization: &Organization,
        stores: Beside<S>,
    ) -> Option<SpoolDelivery<Observed<S>>> {
        let (source, Beside { metrics, alerts, spool, policies }) = (&self.source, stores);
        if let Some(metrics) = metrics {
            tokio::spawn(organization.follow_store(metrics));
        }
        tokio::spawn(organization.follow_policy(source.policy(), self.changes.clone()));
        tokio::spawn(organization.deliver_alerts(alerts));
        let delivery = organization.deliver_spooled(spool);
        tokio::spawn(organization.record_policies(policies, source.policy(), source.subscribe()));
        delivery
    }

    /// Where attempts to load its policy are recorded.
    pub(super) fn record(&self, organization: &Organization) -> Record {
        Record {
            // The source is new, so its attempts have not been taken; if they had, there would be none.
            attempts: self.source.attempts().unwrap_or_else(|| unbounded_channel().1),
            reloads: organization.reloads(),
            audit: self.audit.clone(),
            file: self.source.path().map(Path::to_owned),
        }
    }
}

/// Whether anyone who reaches the port could ask for any team by name, and no setting says that this is meant.
fn is_open_to_all(settings: &Settings, policy: &Policy) -> bool {
    policy.access.is_none() && !settings.listen.ip().is_loopback() && !settings.allow_unauthenticated_listen
}

/// Anyone who can reach the port could ask for any team by name, so it is not opened by accident.
fn check_access(settings: &Settings, policy: &Policy) -> Result<(), ServeError> {
    let listen = settings.listen;
    match (policy.access.is_some(), listen.ip().is_loopback(), settings.allow_unauthenticated_listen) {
        (true, ..) => {}
        (false, true, false) => warn!(
            organization = &*policy.organization.id,
            "development mode: the policy has no `[access]`, so every caller on this machine may ask everything"
        ),
        (false, _, true) => warn!(
            address = %listen,
            organization = &*policy.organization.id,
            "the policy has no `[access]` and `allow_unauthenticated_listen` is set: anyone who reaches the port may ask everything"
        ),
        (false, false, false) => return Err(ServeError::Unauthenticated(listen)),
    }
    Ok(())
}
