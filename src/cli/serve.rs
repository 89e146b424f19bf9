//! `tollgate serve`: the service itself.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Args;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

use super::{
    announce::announce,
    auditing, logging, metering,
    redis_access::redis_access,
    redis_safety::{self, UnsafeRedis},
    screen::Color,
};
use crate::{
    access::SessionKeyError,
    app::{self, App, DecisionOutputs, Listen, Parts, SpoolDelivery},
    domain::policy::Policy,
    policy_file::{PolicyAttempt, PolicySource, PolicySourceError, Reload, ReloadOutcome},
    runtime::clock::Clock,
    server::{Server, StartError, TlsError, TlsSource},
    settings::{ExposureError, Settings, SettingsError, SettingsFlags, StoreUrl, check_exposure},
    spool::{Spool, SpoolOpenError},
    store::{
        Calls, Store, Unreported,
        embedded::{EmbeddedStore, OpenError},
        redis::{self, Hazards, RedisSettings, RedisStore, RedisTlsError},
    },
    telemetry::{Meters, MetersError, trace::Tracing},
    upstream::UpstreamKeySource,
};

/// How long the answers to open requests for pages are waited for at a stop.
const PAGES_END: Duration = Duration::from_secs(1);

/// Serves decisions until told to stop.
///
/// Every flag is also a key of the settings file (--config) and an environment variable (TOLLGATE_LISTEN for --listen);
/// flags go before variables, variables before the file. SIGHUP reads the policy again; SIGTERM and SIGINT let calls under
/// way end, and stop.
#[derive(Args)]
#[command(after_help = "Examples:
  tollgate serve
  tollgate serve --policy policy.toml --store embedded:/var/lib/tollgate
  tollgate serve --policy policy.toml --store rediss+sentinel://s1,s2,s3/main --redis-password-file redis-password
  tollgate serve --policy policy.toml --store redis://127.0.0.1:6379 --listen 127.0.0.1:50052 --admin-enabled=false")]
pub(super) struct Serve {
    /// The settings file (TOML)
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<OsString>,
    #[command(flatten)]
    flags: SettingsFlags,
}

/// Why the service did not start or ended badly.
#[derive(Debug, Error)]
enum ServeError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Policy(#[from] PolicySourceError),
    #[error(transparent)]
    Exposure(#[from] ExposureError),
    #[error("no TLS: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    SessionKey(#[from] SessionKeyError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Redis(#[from] redis::SettingsError),
    #[error("no TLS to redis: {0}")]
    RedisTls(#[from] RedisTlsError),
    #[error(transparent)]
    UnsafeRedis(#[from] UnsafeRedis),
    #[error(
        "cannot listen on {address} for operators: {source}; choose another with --admin, or serve none with --admin-enabled=false"
    )]
    Admin { address: std::net::SocketAddr, source: io::Error },
    #[error(
        "refused to listen on {0} for everyone: the policy has no `[access]` that says who may ask. Give a caller a token \
         (`tollgate tokens create NAME` prints its lines), or listen on loopback, or force it with \
         --allow-unauthenticated-listen"
    )]
    Unauthenticated(std::net::SocketAddr),
    #[error(
        "the audit log `{0}` cannot be opened: {1}; choose another file with --audit-file, or leave `file` out of --audit-sinks"
    )]
    Audit(String, io::Error),
    #[error(transparent)]
    Meters(#[from] MetersError),
    #[error("the decision log `{0}` cannot be opened: {1}; choose another file with --decision-log-file")]
    DecisionLog(String, io::Error),
    #[error(transparent)]
    Spool(#[from] SpoolOpenError),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    #[error("open calls did not end within {0:?} and were cut off")]
    Drain(Duration),
}

impl Serve {
    pub(super) fn run(self, color: Color) -> ExitCode {
        match self.serve(color) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // If even standard error is closed, only the exit code can tell.
                let _ = writeln!(io::stderr(), "tollgate: {error}");
                ExitCode::from(2)
            }
        }
    }

    fn serve(self, color: Color) -> Result<(), ServeError> {
        // An empty variable counts as not set.
        let config = self.config.filter(|path| !path.is_empty()).map(PathBuf::from);
        let settings = Settings::load(config.as_deref(), &self.flags)?;
        let log = logging::start(&settings, color)?;
        if !settings.unknown_variables.is_empty() {
            let variables = settings.unknown_variables.join(", ");
            warn!(
                variables,
                "environment variables that begin with `TOLLGATE_` and are no settings are ignored"
            );
        }
        for warning in &settings.warnings {
            warn!(%warning, "a setting is allowed, and better written otherwise");
        }
        check_exposure(&settings)?;
        let tls = settings.tls_files().map(TlsSource::open).transpose()?;
        let policy = match &settings.policy {
            Some(path) => PolicySource::open(path)?,
            None => PolicySource::example()?,
        };
        let (decisions, _decision_log) =
            log.decisions(&settings).map_err(|(file, error)| ServeError::DecisionLog(file, error))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (meters, tracing) = metering::start(&settings)?;
            let unreported = Unreported::default();
            let outputs = Outputs { tls, decisions, meters, tracing, unreported: unreported.clone() };
            match &settings.store {
                StoreUrl::Embedded { dir } => {
                    let store =
                        EmbeddedStore::open(dir, Clock::System)?.with_deadline(settings.store_timeout);
                    let store = metering::timed(store, &outputs.meters);
                    let outputs = Outputs { unreported: store.unreported(), ..outputs };
                    let make_store = move || Ok(store.clone());
                    serve_with(&settings, outputs, policy, Hazards::default(), make_store).await
                }
                StoreUrl::Redis { url, .. } => {
                    let redis = RedisSettings {
                        url: url.clone(),
                        access: redis_access(&settings)?,
                        organization: policy.policy().load().organization.id.to_string(),
                        deadline: settings.store_timeout,
                        layout: redis::LayoutGate::default(),
                        unreported: unreported.clone(),
                        replay: redis::ReplaySettings {
                            window: settings.redis_replay_window,
                            released: app::released(),
                            hash_key: redis::KnownHashKey::default(),
                        },
                    };
                    let store = RedisStore::connect(redis.clone(), Clock::System)?;
                    let hazards = redis_safety::watch(store, settings.require_safe_redis).await?;
                    let connect = move || {
                        RedisStore::connect(redis.clone(), Clock::System)
                            .map_err(|error| StartError::Store(error.to_string()))
                    };
                    serve_with(&settings, outputs, policy, hazards, connect).await
                }
            }
        })
    }
}

/// What `serve` was given besides its policy and its store.
struct Outputs {
    tls: Option<TlsSource>,
    decisions: DecisionOutputs,
    meters: Meters,
    tracing: Tracing,
    /// Where the stores count reservations that ended without a report.
    unreported: Unreported,
}

/// Serves on stores made by `make_store`: one for each core, and one for health and operators.
async fn serve_with<S, F>(
    settings: &Settings,
    Outputs { tls, decisions, meters, tracing, unreported }: Outputs,
    source: PolicySource,
    hazards: Hazards,
    make_store: F,
) -> Result<(), ServeError>
where
    S: Store + Clone,
    F: Fn() -> Result<S, StartError> + Clone + Send + 'static,
{
    let (calls, first) = (Arc::<Calls>::default(), source.policy().load_full());
    let audit = auditing::open(settings, &first.organization.id, make_store.clone(), Arc::clone(&calls))
        .map_err(|(file, error)| ServeError::Audit(file, error))?;
    check_access(settings, &first)?;
    let source = Arc::new(source);
    let upstream = UpstreamKeySource::start(source.policy(), settings.groq_keys.clone())?;
    // Before the policy is taken, so that a change in between is not missed.
    let changes = source.subscribe();
    let policy = source.policy().load_full();
    let parts = Parts::of_settings(settings, policy, upstream.keys(), audit.clone());
    let app = App::new(Parts {
        calls,
        unreported,
        policy_status: source.subscribe(),
        hazards,
        decisions: parts.decisions.written_to(decisions),
        meters: meters.clone(),
        tracing: tracing.clone(),
        spool: spool(settings, &first)?,
        ..parts
    });
    let reloads = app.reloads();
    if meters.is_on() {
        tokio::spawn(app.follow_store(make_store()?));
    }
    tokio::spawn(app.follow_policy(source.policy(), changes));
    let pages = pages(&app, settings, tls.as_ref(), &make_store).await?;
    tokio::spawn(app.deliver_alerts(make_store()?));
    let delivery = app.deliver_spooled(make_store()?);
    tokio::spawn(app.record_policies(make_store()?, source.policy(), source.subscribe()));
    let listen = Listen {
        address: settings.listen,
        threads: settings.threads.unwrap_or_else(cores),
        drain: settings.drain_timeout,
        tls: tls.as_ref().map(TlsSource::grpc),
    };
    // Set up before anything reports that the service is up.
    let hangup = signal(SignalKind::hangup())?;
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let server = app.serve(listen, make_store)?;
    announce(settings, &source, tls.as_ref(), server.address());
    // The source is new, so its attempts have not been taken; if they had, a closed channel that is never ready takes over.
    let mut attempts = source.attempts().unwrap_or_else(|| unbounded_channel().1);
    let mut record = |attempt: PolicyAttempt| {
        reloads.add(matches!(attempt.outcome, ReloadOutcome::Loaded { .. }));
        auditing::record(&audit, settings, attempt);
    };
    run_until_told(&source, &mut record, &mut attempts, [hangup, terminate, interrupt]).await;
    info!(drain_timeout_seconds = settings.drain_timeout.as_secs_f64(), "stopping: open calls may end");
    let drained = stop(&app, server, (pages, delivery), settings.drain_timeout).await;
    // The policy is followed to the end.
    while let Ok(attempt) = attempts.try_recv() {
        record(attempt);
    }
    metering::end(meters, tracing).await;
    if !audit.flush() {
        error!("the last events of the audit log may not be written: its disk does not answer");
    }
    if drained { Ok(()) } else { Err(ServeError::Drain(settings.drain_timeout)) }
}

/// Opens the spool, if there is to be one, and takes up what is in it.
fn spool(settings: &Settings, policy: &Policy) -> Result<Option<Spool>, SpoolOpenError> {
    let open = |dir: &PathBuf| Spool::open(dir, settings.spool_max_size, &policy.organization.id);
    settings.spool_directory.as_ref().map(open).transpose()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Stops what is served within `drain`; whether all has ended. Pages are served for as long as calls are open, so that operators see how
/// the stop goes, and what was changed from them is made and recorded before the process ends. What the last calls have left in the spool
/// is delivered in the time that is left.
async fn stop<S: Store + Clone>(
    app: &App,
    server: Server,
    (pages, delivery): (Option<JoinHandle<()>>, Option<SpoolDelivery<S>>),
    drain: Duration,
) -> bool {
    let ends = Instant::now() + drain;
    app.end_streams().await;
    let drained = server.stop().await;
    app.stop_pages();
    let changed = timeout_at(ends, app.end_changes()).await.is_ok();
    if !changed {
        warn!("a change that was begun at the console did not end in time: look whether it was made");
    }
    if let Some(pages) = pages {
        // So that people are told what became of it. One who reads nothing is left.
        let _ = timeout(PAGES_END, pages).await;
    }
    if let Some(delivery) = delivery {
        delivery.flush(ends).await;
    }
    drained && changed
}

/// Serves the pages for operators, if there are to be any.
async fn pages<S: Store + Clone>(
    app: &App,
    settings: &Settings,
    tls: Option<&TlsSource>,
    make_store: impl Fn() -> Result<S, StartError>,
) -> Result<Option<JoinHandle<()>>, ServeError> {
    let Some(address) = settings.admin_address() else { return Ok(None) };
    let failed = |source| ServeError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let tls = tls.filter(|_| settings.admin_is_tls()).map(TlsSource::pages);
    Ok(Some(tokio::spawn(app.serve_pages(listener, tls, app.door(settings)?, make_store()?))))
}

/// Handles signals and changes of the policy until told to stop.
async fn run_until_told(
    source: &Arc<PolicySource>,
    record: &mut impl FnMut(PolicyAttempt),
    attempts: &mut UnboundedReceiver<PolicyAttempt>,
    signals: [Signal; 3],
) {
    let [mut hangup, mut terminate, mut interrupt] = signals;
    loop {
        tokio::select! {
            Some(attempt) = attempts.recv() => record(attempt),
            _ = hangup.recv() => match reload(source).await {
                Reload::Loaded | Reload::Rejected => {}
                Reload::BeingWritten => {
                    warn!("SIGHUP: the policy is being written; it is taken up when its writer closes it");
                }
                Reload::Unchanged => info!("SIGHUP: the policy is unchanged"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
}

/// Reads the policy on a thread for that, so that it is in force before its differences from the last one are known.
async fn reload(source: &Arc<PolicySource>) -> Reload {
    let source = Arc::clone(source);
    tokio::task::spawn_blocking(move || source.reload()).await.unwrap_or(Reload::Unchanged)
}

/// Anyone who can reach the port could ask for any team by name, so it is not opened by accident.
fn check_access(settings: &Settings, policy: &Policy) -> Result<(), ServeError> {
    let listen = settings.listen;
    match (policy.access.is_some(), listen.ip().is_loopback(), settings.allow_unauthenticated_listen) {
        (true, ..) => {}
        (false, true, false) => warn!(
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
