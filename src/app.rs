//! The composition root: `serve`, `simulate` and the tests put their service together here, so that tests run the assembly that
//! ships.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    access::{Client, ClientSecretPlace, Guard, SessionKeyError, SessionSettings, Sessions, SignIn},
    alerts::{self, Crossings, Dispatcher, Receivers},
    audit::Audit,
    authorizer::{Authorizer, DecisionLog, Shared},
    console::{Console, ConsoleAddress, Door, Streams},
    domain::{
        policy::Policy,
        tally::{DEFAULT_MAX_TEAMS, Tallies},
    },
    live::Live,
    policy_file::PolicyStatus,
    reports,
    revisions::Recorder,
    rpc::{DocumentWork, StatusFacts},
    runtime::{Runtime, Tasks},
    server::{
        Connections, ListenerTls, Options, Server, ServiceParts, StartError,
        admin::{self, Facts},
        in_process,
        metrics::{self, Reloads, Sources},
    },
    settings::{OidcClient, Settings},
    spool::Spool,
    store::{Calls, Observed, Store, Unreported, redis::Hazards},
    telemetry::{Meters, trace::Tracing},
    upstream::UpstreamKeys,
};

pub use crate::authorizer::{DecisionOutputs, SpoolDelivery, released};

/// What a service is made of, its store aside.
#[derive(Debug)]
pub struct Parts {
    /// The policy document that it starts with.
    pub policy: Arc<Policy>,
    /// The keys that are sent to Groq in place of clients' credentials.
    pub upstream: Arc<UpstreamKeys>,
    /// Where changes and refusals are recorded.
    pub audit: Audit,
    /// The connections of the process, with their bounds.
    pub connections: Connections,
    /// Where calls to its stores are counted.
    pub calls: Arc<Calls>,
    /// Where those count reservations that ended without a report.
    pub unreported: Unreported,
    /// What became of the policy's file, for the status.
    pub policy_status: watch::Receiver<Arc<PolicyStatus>>,
    /// What makes Redis unsafe, for the status.
    pub hazards: Hazards,
    /// Which decisions are logged.
    pub decisions: DecisionLog,
    /// Without `[access]` in the policy, whether callers from other machines may ask as well.
    pub is_open: bool,
    /// The clock that decisions, keys and tokens follow, and the source of ids and secrets.
    pub runtime: Runtime,
    /// Where metrics are read from; by default there are none.
    pub meters: Meters,
    /// Which of them are told apart.
    pub shown: Shown,
    /// Where traces go; by default there are none.
    pub tracing: Tracing,
    /// Where alerts go.
    pub receivers: Arc<Receivers>,
    /// What keeps reports of usage while the store does not answer; `None`: nothing does.
    pub spool: Option<Spool>,
    /// Where people find the console, without a slash at the end; `None`: nowhere, or not known.
    pub console: Option<Arc<str>>,
}

/// What metrics tell apart.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Whether budgets of keys are shown.
    pub by_key: bool,
    /// The most teams that are shown by name.
    pub max_teams: usize,
}

impl Default for Shown {
    fn default() -> Self {
        Self { by_key: false, max_teams: DEFAULT_MAX_TEAMS }
    }
}

impl Parts {
    /// A service on this machine alone that records nothing, with the bounds of the default settings.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        let status = PolicyStatus::new(&policy, Vec::new());
        Self {
            policy,
            policy_status: watch::channel(Arc::new(status)).1,
            hazards: Hazards::default(),
            upstream: Arc::default(),
            audit: Audit::default(),
            connections: Connections::default(),
            calls: Arc::default(),
            unreported: Unreported::default(),
            decisions: DecisionLog::default(),
            is_open: false,
            runtime: Runtime::default(),
            meters: Meters::default(),
            shown: Shown::default(),
            tracing: Tracing::default(),
            receivers: Arc::default(),
            spool: None,
            console: None,
        }
    }

    /// The service of `settings`.
    #[must_use]
    pub fn of_settings(
        settings: &Settings,
        policy: Arc<Policy>,
        upstream: Arc<UpstreamKeys>,
        audit: Audit,
    ) -> Self {
        Self {
            upstream,
            audit,
            connections: Connections::new(settings.connection_limits()),
            decisions: DecisionLog::new(settings.decision_log_denials, settings.decision_log_allowed),
            is_open: settings.allow_unauthenticated_listen,
            shown: Shown { by_key: settings.metrics_by_key, max_teams: settings.metrics_max_teams },
            receivers: Arc::new(Receivers::new(settings.receivers.clone())),
            console: settings.console_place().map(Into::into),
            ..Self::new(policy)
        }
    }
}

/// Where to listen for gRPC, and with how many threads.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The address; port 0 picks a free one.
    pub address: SocketAddr,
    /// Threads, each with its own runtime and socket; at least 1.
    pub threads: usize,
    /// How long calls in flight may take to end after a stop was requested.
    pub drain: Duration,
    /// TLS for every connection; `None`: plain ones.
    pub tls: Option<ListenerTls>,
}

/// A service that is put together and can be served.
#[derive(Debug)]
pub struct App {
    shared: Arc<Shared>,
    connections: Connections,
    meters: Meters,
    sources: Sources,
    parts: ServiceParts,
    streams: Streams,
    /// Tells pages to stop.
    stop_pages: watch::Sender<bool>,
    /// Changes that are made from pages.
    changes: Tasks,
}

impl App {
    /// Puts a service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { policy, upstream, audit, connections, calls, decisions, is_open, runtime, .. } = parts;
        let Parts {
            policy_status,
            hazards,
            meters,
            shown,
            tracing,
            receivers,
            unreported,
            spool,
            console,
            ..
        } = parts;
        let live = Live::counting(policy, Tallies::new(shown.max_teams));
        let live = Arc::new(live.drawing_from(runtime.entropy.clone()));
        let guard = Guard::new(Arc::clone(&live), runtime.clock.clone(), is_open, audit);
        let shared = Shared::new(live).with_decisions(decisions).with_timing(metrics::timing(&meters));
        let shared = Arc::new(shared.with_spool(spool));
        let status = StatusFacts {
            shared: Arc::clone(&shared),
            policy: policy_status,
            hazards,
            calls,
            unreported,
            clock: runtime.clock.clone(),
        };
        let sources = Sources::new(
            status.clone(),
            guard.clone(),
            Arc::clone(&upstream),
            connections.clone(),
            Arc::clone(&receivers),
            shown.by_key,
        );
        sources.register(&meters);
        let (documents, past) = (DocumentWork::default(), sources.past.clone());
        let crossings = Crossings::default();
        let parts = ServiceParts {
            guard,
            status,
            documents,
            tracing,
            past,
            crossings,
            receivers,
            upstream,
            console,
            runtime,
        };
        let (streams, stop_pages, changes) =
            (Streams::default(), watch::Sender::new(false), Tasks::default());
        Self { shared, connections, meters, sources, parts, streams, stop_pages, changes }
    }

    /// How changes of the policy's file went, for the metrics.
    #[must_use]
    pub fn reloads(&self) -> Arc<Reloads> {
        Arc::clone(&self.sources.reloads)
    }

    /// Reads from `store` what metrics say of budgets, limits and cooldowns, until dropped.
    pub fn follow_store<S: Store>(&self, store: S) -> impl Future<Output = ()> + Send + use<S> {
        self.sources.clone().follow(Observed::new(store, &self.parts.status.calls))
    }

    /// What is in force.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.shared.live
    }

    /// Serves gRPC on threads of its own. `make_store` is called once on each, within its runtime.
    ///
    /// # Errors
    /// The address is unavailable, or a thread or the store cannot be set up.
    pub fn serve<S, F>(&self, listen: Listen, make_store: F) -> Result<Server, StartError>
    where
        S: Store + Clone,
        F: Fn() -> Result<S, StartError> + Clone + Send + 'static,
    {
        let Listen { address, threads, drain, tls } = listen;
        let (connections, parts) = (self.connections.clone(), self.parts.clone());
        let options = Options { listen: address, threads, drain, tls, connections, parts };
        let calls = Arc::clone(&self.parts.status.calls);
        let observed = move || {
            let store = make_store()?;
            calls.watch(&store);
            Ok(Observed::guarded(store, &calls))
        };
        Server::start(&options, Arc::clone(&self.shared), observed)
    }

    /// Puts `policy` in force each time that `changes` tells of another, until dropped.
    pub fn follow_policy(
        &self,
        policy: Arc<ArcSwap<Policy>>,
        mut changes: watch::Receiver<Arc<PolicyStatus>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let live = Arc::clone(self.live());
        async move {
            while changes.changed().await.is_ok() {
                live.set_policy(policy.load_full());
            }
        }
    }

    /// Records `policy` in `store`, and each other one that `changes` tells of, until dropped.
    pub fn record_policies<S: Store>(
        &self,
        store: S,
        policy: Arc<ArcSwap<Policy>>,
        changes: watch::Receiver<Arc<PolicyStatus>>,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let store = Observed::new(store, &self.parts.status.calls);
        Recorder::new(store, Arc::clone(self.live())).run(policy, changes)
    }

    /// Raises and routes alerts, and delivers them until dropped.
    pub fn deliver_alerts<S: Store + Clone>(&self, store: S) -> impl Future<Output = ()> + Send + use<S> {
        let ServiceParts { upstream, receivers, runtime, past, status, .. } = self.parts.clone();
        let store = Observed::new(store, &status.calls);
        let (live, spool) = (Arc::clone(self.live()), self.shared.spool.clone());
        let facts = alerts::Facts { upstream, policy: status.policy, spool };
        let foreseen = reports::foresee(store.clone(), Arc::clone(&live), past);
        let dispatcher = Dispatcher::new(store, (live, facts), receivers, runtime);
        async move {
            // Apart, so that neither ends with a fault of the other. Dropped with this.
            let mut apart = JoinSet::new();
            apart.spawn(foreseen);
            dispatcher.run().await;
        }
    }

    /// Delivers to `store` what the spool keeps, until dropped or flushed. `None`: there is no spool.
    pub fn deliver_spooled<S: Store + Clone>(&self, store: S) -> Option<SpoolDelivery<Observed<S>>> {
        let ServiceParts { runtime, status, .. } = self.parts.clone();
        let store = Observed::new(store, &status.calls);
        SpoolDelivery::start(Authorizer::new(store, runtime, Arc::clone(&self.shared)))
    }

    /// Ends the streams of events on pages, as the service is about to stop.
    pub async fn end_streams(&self) {
        self.streams.end().await;
    }

    /// Tells pages to take no more requests. Those that are open are answered.
    pub fn stop_pages(&self) {
        self.stop_pages.send_replace(true);
    }

    /// Waits until the changes that pages have begun are made and recorded; no other begins. It has no bound of its own: the store may not
    /// answer.
    pub async fn end_changes(&self) {
        self.changes.end().await;
    }

    /// Where people sign in to the console; `None`: it is not served.
    ///
    /// # Errors
    /// There is no key for sessions.
    pub fn door(&self, settings: &Settings) -> Result<Option<Door>, SessionKeyError> {
        if !settings.serves_console() {
            return Ok(None);
        }
        let of_sessions = SessionSettings {
            key_files: settings.session_key_files().to_vec(),
            timeout: settings.console_session_timeout,
            max_age: settings.console_session_max_age,
        };
        let sessions = Sessions::open(&of_sessions, self.parts.guard.clone(), self.parts.runtime.clone())?;
        let provider = settings.oidc_client().map(|client| {
            let OidcClient { issuer, client_id: id, secret_file, secret, scopes, console_url } = client;
            let secret = match (secret_file, secret) {
                (Some(path), _) => ClientSecretPlace::File(path),
                (None, Some(secret)) => ClientSecretPlace::Here(secret.text().to_owned()),
                (None, None) => ClientSecretPlace::None,
            };
            SignIn::new(Client { issuer, id, secret, scopes, console_url }, sessions.clone())
        });
        Ok(Some(Door::new(sessions, provider, ConsoleAddress::new(settings.console_url.clone()))))
    }

    /// A door that no one has to pass: the console of a service in development mode, in this process alone.
    ///
    /// # Errors
    /// There is no key for sessions.
    pub fn open_door(&self) -> Result<Door, SessionKeyError> {
        let day = Duration::from_secs(86_400);
        let of_sessions = SessionSettings { key_files: Vec::new(), timeout: day, max_age: day };
        let sessions = Sessions::open(&of_sessions, self.parts.guard.clone(), self.parts.runtime.clone())?;
        Ok(Door::new(sessions, None, ConsoleAddress::default()))
    }

    /// Serves the pages for operators until they are told to stop, those of the console where there is a `door`.
    pub fn serve_pages<S: Store + Clone>(
        &self,
        listener: TcpListener,
        tls: Option<ListenerTls>,
        door: Option<Door>,
        store: S,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let ServiceParts { guard, status, runtime, .. } = &self.parts;
        let store = Observed::new(store, &status.calls);
        let services = in_process(&self.parts, store.clone(), self.changes.clone());
        let (live, runtime, address) = (Arc::clone(self.live()), runtime.clone(), listener.local_addr().ok());
        let streams = self.streams.clone();
        let console =
            door.map(|door| Console::new(services, guard.clone(), live, runtime, address, streams, door));
        let facts = Facts { status: status.clone(), meters: self.meters.clone(), console };
        let stop = self.stop_pages.subscribe();
        admin::serve(listener, tls, guard.clone(), facts, self.connections.clone(), store, stop)
    }
}
