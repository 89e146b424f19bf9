//! The organizations that `serve` serves: their policies, their stores, and what runs beside each.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{mpsc::unbounded_channel, watch};
use tracing::{error, warn};

use super::{ServeError, record::Record};
use crate::{
    app::{Organization, Parts, SpoolDelivery, carried_over, released},
    audit::{Audit, Sink},
    cli::{auditing, metering::Transactions, redis_access::redis_access, redis_safety},
    domain::policy::Policy,
    policy_file::{PolicyDirectory, PolicySource, PolicyStatus},
    runtime::clock::Clock,
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

    /// The settings of one organization.
    fn own(&self, settings: &Settings, organization: &str) -> Settings {
        match self {
            Self::One(_) => settings.clone(),
            Self::Several(_) => settings.of(organization),
        }
    }
}

/// One organization: its policy and its store.
pub(super) struct Member<F> {
    pub(super) source: Arc<PolicySource>,
    /// Makes a store of its own for whatever needs one.
    pub(super) make_store: F,
    hazards: Hazards,
    /// Where the stores count reservations that ended without a report.
    unreported: Unreported,
    spool: Option<PathBuf>,
}

/// All organizations, or why one cannot be served.
type Members<F> = Result<Vec<Member<F>>, ServeError>;

/// Each on an embedded store.
pub(super) fn on_disk(
    settings: &Settings,
    policies: &Policies,
    meters: &Meters,
) -> Members<impl Fn() -> Result<EmbeddedStore, StartError> + Clone + Send + 'static + use<>> {
    let transactions = Transactions::new(meters);
    let open = |source: &Arc<PolicySource>| {
        let organization = Arc::clone(&source.policy().load().organization.id);
        let own = policies.own(settings, &organization);
        let StoreUrl::Embedded { dir } = &own.store else { return Err(ServeError::Nothing) };
        refuse_former(settings, &own)?;
        let store = EmbeddedStore::open(dir, Clock::System)?;
        let store = transactions.timed(store.with_deadline(settings.store_timeout));
        Ok(Member {
            source: Arc::clone(source),
            hazards: Hazards::default(),
            unreported: store.unreported(),
            spool: own.spool_directory,
            make_store: move || Ok(store.clone()),
        })
    };
    policies.all().iter().map(open).collect()
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
) -> Members<impl Fn() -> Result<RedisStore, StartError> + Clone + Send + 'static + use<>> {
    let (access, hash_key) = (redis_access(settings)?, KnownHashKey::default());
    let mut members = Vec::new();
    for source in policies.all() {
        let organization = Arc::clone(&source.policy().load().organization.id);
        let (unreported, own) = (Unreported::default(), policies.own(settings, &organization));
        refuse_former(settings, &own)?;
        let redis = RedisSettings {
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
        };
        let is_looked_at = !matches!(url.place, RedisPlace::Cluster { .. });
        let hazards = match members.first().filter(|_| is_looked_at) {
            // The server of all.
            Some(Member { hazards, .. }) => Arc::clone(hazards),
            None => {
                let store = RedisStore::connect(redis.clone(), Clock::System)?;
                redis_safety::watch(store, settings.require_safe_redis).await?
            }
        };
        members.push(Member {
            source: Arc::clone(source),
            hazards,
            unreported,
            spool: own.spool_directory,
            make_store: move || {
                RedisStore::connect(redis.clone(), Clock::System)
                    .map_err(|error| StartError::Store(error.to_string()))
            },
        });
    }
    Ok(members)
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
    pub(super) fn new<S, F>(
        settings: &Settings,
        member: &Member<F>,
        shared: Option<&Sink>,
    ) -> Result<Self, ServeError>
    where
        S: Store + Clone,
        F: Fn() -> Result<S, StartError> + Clone + Send + 'static,
    {
        let source = Arc::clone(&member.source);
        let (calls, first) = (Arc::<Calls>::default(), source.policy().load_full());
        let (organization, make_store) = (&first.organization.id, member.make_store.clone());
        let audit = auditing::open(settings, organization, shared, make_store, Arc::clone(&calls))
            .map_err(|(file, error)| ServeError::Audit(file, error))?;
        check_access(settings, &first)?;
        let upstream = UpstreamKeySource::start(source.policy(), settings.groq_keys.clone())?;
        let changes = source.subscribe();
        Ok(Self { audit, calls, upstream, changes, source })
    }

    /// What its service is made of.
    pub(super) fn parts<F>(&self, settings: &Settings, member: &Member<F>) -> Result<Parts, ServeError> {
        let policy = self.source.policy().load_full();
        let organization = Arc::clone(&policy.organization.id);
        let open = |directory: &PathBuf| Spool::open(directory, settings.spool_max_size, &organization);
        let spool = member.spool.as_ref().map(open).transpose()?;
        Ok(Parts {
            calls: Arc::clone(&self.calls),
            unreported: member.unreported.clone(),
            policy_status: self.source.subscribe(),
            hazards: Arc::clone(&member.hazards),
            spool,
            ..Parts::of_settings(settings, policy, self.upstream.keys(), self.audit.clone())
        })
    }

    /// Runs what stands beside its service, until the process ends; returns what delivers its spool, if it has one.
    pub(super) fn run<S, F>(
        &self,
        organization: &Organization,
        member: &Member<F>,
        is_measured: bool,
    ) -> Result<Option<SpoolDelivery<Observed<S>>>, ServeError>
    where
        S: Store + Clone,
        F: Fn() -> Result<S, StartError>,
    {
        let (source, make_store) = (&self.source, &member.make_store);
        if is_measured {
            tokio::spawn(organization.follow_store(make_store()?));
        }
        tokio::spawn(organization.follow_policy(source.policy(), self.changes.clone()));
        tokio::spawn(organization.deliver_alerts(make_store()?));
        let delivery = organization.deliver_spooled(make_store()?);
        tokio::spawn(organization.record_policies(make_store()?, source.policy(), source.subscribe()));
        Ok(delivery)
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
            "the policy has no `[access]` and `allow_unauthenticated_listen` is set: anyone who reaches the port may ask everything"
        ),
        (false, false, false) => return Err(ServeError::Unauthenticated(listen)),
    }
    Ok(())
}
