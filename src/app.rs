//! The composition root: `serve`, `simulate` and the tests put their service together here, so that tests run the assembly that
//! ships.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use crate::{
    access::Guard,
    audit::Audit,
    authorizer::{DecisionLog, Shared},
    domain::policy::Policy,
    live::Live,
    runtime::Runtime,
    server::{
        Connections, ListenerTls, Options, Server, StartError,
        admin::{self, Status},
    },
    settings::Settings,
    store::{Calls, Observed, Store},
    upstream::UpstreamKeys,
};

pub use crate::authorizer::DecisionOutputs;

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
        Self {
            policy,
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
    calls: Arc<Calls>,
}

impl App {
    /// Puts a service together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { policy, upstream, audit, connections, calls, decisions, is_open, runtime } = parts;
        let live = Arc::new(Live::new(policy));
        let guard = Guard::new(Arc::clone(&live), runtime.clock.clone(), is_open, audit);
        Self {
            shared: Arc::new(Shared::new(live).with_decisions(decisions)),
            guard,
            upstream,
            connections,
            runtime,
            calls,
        }
    }

    /// What is in force.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.shared.live
    }

    /// The calls to its stores so far.
    #[must_use]
    pub const fn calls(&self) -> &Arc<Calls> {
        &self.calls
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
        };
        let calls = Arc::clone(&self.calls);
        let observed = move || Ok(Observed::new(make_store()?, &calls));
        let (shared, upstream) = (Arc::clone(&self.shared), Arc::clone(&self.upstream));
        Server::start(&options, self.runtime.clone(), shared, upstream, observed)
    }

    /// Serves the pages for operators until dropped, with what `status` shows.
    pub fn serve_pages<S: Store, T: Status>(
        &self,
        listener: TcpListener,
        tls: Option<ListenerTls>,
        store: S,
        status: T,
    ) -> impl Future<Output = ()> + Send + use<S, T> {
        let store = Observed::new(store, &self.calls);
        let (guard, shared) = (self.guard.clone(), Arc::clone(&self.shared));
        admin::serve(listener, tls, guard, shared, self.connections.clone(), store, status)
    }
}
