//! `tollgate serve`: the service itself.

mod members;
mod record;

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
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

use self::{
    members::{Begun, Beside, Member, Members, Policies},
    record::Record,
};
use super::{announce::announce, auditing, logging, metering, redis_safety::UnsafeRedis, screen::Color};
use crate::{
    access::SessionKeyError,
    app::{App, DecisionOutputs, Listen, Parts, SpoolDelivery},
    policy_file::{PolicySource, PolicySourceError, Reload},
    server::{Server, StartError, TlsError, TlsSource},
    settings::{ExposureError, Settings, SettingsError, SettingsFlags, StoreUrl, check_exposure},
    spool::SpoolOpenError,
    store::{
        Calls, Store,
        embedded::OpenError,
        redis::{self, RedisTlsError},
    },
    telemetry::{Meters, MetersError, trace::Tracing},
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
    #[error(
        "`{dir}` holds what is of one organization, and several have a directory each below it: stop its service and move what is in it to `{own}`, or to that of the organization that it is of",
        dir = .dir.display(), own = .own.display()
    )]
    Former { dir: PathBuf, own: PathBuf },
    #[error("there is no policy to serve by")]
    Nothing,
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
        let policies = Policies::open(&settings)?;
        let (decisions, _decision_log) =
            log.decisions(&settings).map_err(|(file, error)| ServeError::DecisionLog(file, error))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (meters, tracing) = metering::start(&settings, policies.all().len())?;
            let outputs = Outputs { tls, decisions, meters, tracing };
            match &settings.store {
                StoreUrl::Embedded { .. } => {
                    let members = members::on_disk(&settings, &policies, &outputs.meters)?;
                    serve_with(&settings, outputs, members).await
                }
                StoreUrl::Redis { url, .. } => {
                    let members = members::on_redis(&settings, url, &policies).await?;
                    serve_with(&settings, outputs, members).await
                }
            }
        })
    }
}

/// What `serve` was given besides its policies and its stores.
struct Outputs {
    tls: Option<TlsSource>,
    decisions: DecisionOutputs,
    meters: Meters,
    tracing: Tracing,
}

/// Serves `members`, each on stores of its own: one for each core, and some for what runs beside.
async fn serve_with<S, F>(
    settings: &Settings,
    Outputs { tls, decisions, meters, tracing }: Outputs,
    Members { all: members, make_stores }: Members<F>,
) -> Result<(), ServeError>
where
    S: Store + Clone,
    F: Fn() -> Result<Vec<S>, StartError> + Clone + Send + 'static,
{
    let begun = begin_each(settings, &members, make_stores.clone())?;
    let parts = begun.iter().zip(&members).map(|(begun, member)| {
        let parts = begun.parts(settings, member)?;
        let decisions = parts.decisions.written_to(decisions.clone());
        Ok(Parts { decisions, meters: meters.clone(), tracing: tracing.clone(), ..parts })
    });
    let app = App::of_several(parts.collect::<Result<_, ServeError>>()?).ok_or(ServeError::Nothing)?;
    let pages = pages(&app, settings, tls.as_ref(), &make_stores).await?;
    let mut deliveries = Vec::new();
    let beside = Beside::of_each(&make_stores, meters.is_on())?;
    for ((organization, begun), stores) in app.organizations().zip(&begun).zip(beside) {
        deliveries.extend(begun.run(organization, stores));
    }
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
    let server = app.serve_each(listen, make_stores)?;
    let sources: Vec<_> = members.iter().map(|member| Arc::clone(&member.source)).collect();
    announce(settings, &sources, tls.as_ref(), server.address());
    let mut records: Vec<_> =
        app.organizations().zip(&begun).map(|(organization, begun)| begun.record(organization)).collect();
    run_until_told(&sources, &mut records, [hangup, terminate, interrupt]).await;
    info!(drain_timeout_seconds = settings.drain_timeout.as_secs_f64(), "stopping: open calls may end");
    let drained = stop(&app, server, (pages, deliveries), settings.drain_timeout).await;
    // The policies are followed to the end.
    records.iter_mut().for_each(Record::rest);
    metering::end(meters, tracing).await;
    // At once: each may take its time.
    let is_written = thread::scope(|scope| {
        let flushes: Vec<_> = begun.iter().map(|begun| scope.spawn(|| begun.audit.flush())).collect();
        flushes.into_iter().filter_map(|flush| flush.join().ok()).filter(|is_written| *is_written).count()
            == begun.len()
    });
    if !is_written {
        error!("the last events of the audit log may not be written: its disk does not answer");
    }
    if drained { Ok(()) } else { Err(ServeError::Drain(settings.drain_timeout)) }
}

/// Opens what each of `members` needs before it is put together.
fn begin_each<S, F>(settings: &Settings, members: &[Member], make_stores: F) -> Result<Vec<Begun>, ServeError>
where
    S: Store + Clone,
    F: Fn() -> Result<Vec<S>, StartError> + Send + 'static,
{
    let failed = |(file, error)| ServeError::Audit(file, error);
    let shared = auditing::open_shared(settings).map_err(failed)?;
    let calls: Vec<_> = members.iter().map(|_| Arc::<Calls>::default()).collect();
    let written = calls.iter().zip(members).map(|(calls, member)| (Arc::clone(calls), member.span.clone()));
    let written = written.collect();
    let mut own = auditing::open_stores(settings, make_stores, written).map_err(failed)?.into_iter();
    let mut begun = Vec::with_capacity(members.len());
    for (member, calls) in members.iter().zip(calls) {
        let sinks = shared.iter().cloned().chain(own.next()).collect();
        begun.push(Begun::new(settings, member, sinks, calls)?);
    }
    Ok(begun)
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
    (pages, deliveries): (Option<JoinHandle<()>>, Vec<SpoolDelivery<S>>),
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
    // At once: the store of one may not answer.
    let mut flushed = JoinSet::new();
    for delivery in deliveries {
        flushed.spawn(async move { delivery.flush(ends).await });
    }
    flushed.join_all().await;
    drained && changed
}

/// Serves the pages for operators, if there are to be any.
async fn pages<S, F>(
    app: &App,
    settings: &Settings,
    tls: Option<&TlsSource>,
    make_stores: F,
) -> Result<Option<JoinHandle<()>>, ServeError>
where
    S: Store + Clone,
    F: Fn() -> Result<Vec<S>, StartError>,
{
    let Some(address) = settings.admin_address() else { return Ok(None) };
    let failed = |source| ServeError::Admin { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let tls = tls.filter(|_| settings.admin_is_tls()).map(TlsSource::pages);
    let stores = make_stores()?;
    Ok(Some(tokio::spawn(app.serve_pages_of_each(listener, tls, app.door(settings)?, stores))))
}

/// Handles signals and changes of the policies until told to stop.
async fn run_until_told(sources: &[Arc<PolicySource>], records: &mut [Record], signals: [Signal; 3]) {
    let [mut hangup, mut terminate, mut interrupt] = signals;
    loop {
        tokio::select! {
            () = Record::next(records) => {}
            _ = hangup.recv() => for source in sources {
                let organization = &*source.policy().load().organization.id.clone();
                match reload(source).await {
                    Reload::Loaded | Reload::Rejected => {}
                    Reload::BeingWritten => {
                        warn!(
                            organization,
                            "SIGHUP: the policy is being written; it is taken up when its writer closes it"
                        );
                    }
                    Reload::Unchanged => info!(organization, "SIGHUP: the policy is unchanged"),
                }
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
