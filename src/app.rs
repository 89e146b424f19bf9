//! The composition root: `serve`, `simulate` and the tests put their service together here, so that tests run the assembly that
//! ships.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

use crate::{
    access::Guard,
    audit::Audit,
    authorizer::{DecisionLog, Shared},
    domain::policy::Policy,
    live::Live,
    policy_file::PolicyStatus,
    rpc::StatusFacts,
    runtime::Runtime,
    server::{Connections, ListenerTls, Options, Server, StartError, admin},
    settings::Settings,
    store::{Calls, Observed, Store, redis::Hazards},
    upstream::UpstreamKeys,
};

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
            decisions: DecisionLog::default(),
            is_open: false,
            runtime: Runtime::default(),
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
    guard: Guard,
    upstream: Arc<UpstreamKeys>,
    connections: Connections,
    runtime: Runtime,
    status: StatusFacts,
}

impl App {
    /// Puts a service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { policy, upstream, audit, connections, calls, decisions, is_open, runtime, .. } = parts;
        let Parts { policy_status, hazards, .. } = parts;
        let live = Arc::new(Live::new(policy));
        let guard = Guard::new(Arc::clone(&live), runtime.clock.clone(), is_open, audit);
        let shared = Arc::new(Shared::new(live).with_decisions(decisions));
        let status = StatusFacts {
            shared: Arc::clone(&shared),
            policy: policy_status,
            hazards,
            calls,
            clock: runtime.clock.clone(),
        };
        Self { shared, guard, upstream, connections, runtime, status }
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
        let options = Options {
            listen: address,
            threads,
            drain,
            tls,
            guard: self.guard.clone(),
            connections: self.connections.clone(),
            status: self.status.clone(),
        };
        let calls = Arc::clone(&self.status.calls);
        let observed = move || Ok(Observed::new(make_store()?, &calls));
        let (shared, upstream) = (Arc::clone(&self.shared), Arc::clone(&self.upstream));
        Server::start(&options, self.runtime.clone(), shared, upstream, observed)
    }

    /// Serves the pages for operators until dropped.
    pub fn serve_pages<S: Store>(
        &self,
        listener: TcpListener,
        tls: Option<ListenerTls>,
        store: S,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let store = Observed::new(store, &self.status.calls);
        admin::serve(listener, tls, self.guard.clone(), self.status.clone(), self.connections.clone(), store)
    }
}
