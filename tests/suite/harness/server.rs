//! The service in this process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tempfile::TempDir;
use tollgate::{
    app::{App, Listen, Parts},
    audit::{Audit, Origin, Sink},
    domain::Timestamp,
    rpc::proto::policy_service_client::PolicyServiceClient,
    runtime::clock::{Clock, ManualClock},
    server::{self, Connections, ListenerTls},
    settings::ConnectionLimits,
    store::{Store, embedded::EmbeddedStore, redis::RedisStore},
    upstream::UpstreamKeys,
};
use tonic::transport::Channel;

use super::{START, StoreKind, UPSTREAM_KEY, connect, organization, policy, scratch, settings};
use crate::redis_server::{self, RedisServer};

/// The service in this process, over real gRPC, under a clock that the test moves.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) clock: ManualClock,
    app: App,
    server: server::Server,
    /// Holds the embedded store's directory.
    _directory: TempDir,
}

impl Server {
    /// Starts with `policy_text` at `start` on an empty store.
    pub(crate) async fn start(store: StoreKind, policy_text: &str, start: Timestamp) -> Self {
        let clock = ManualClock::new(start);
        match store {
            StoreKind::Embedded => {
                let directory = scratch();
                let opened = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
                Self::start_with(clock, policy_text, directory, None, move || Ok(opened.clone()))
            }
            StoreKind::Redis => {
                let redis = redis_server::shared().expect("ask `StoreKind::is_available` before");
                Self::start_on_redis(redis, &organization(), policy_text, clock)
            }
        }
    }

    /// Starts for `organization` on `redis`: another replica, where one with the same clock runs there.
    pub(crate) fn start_on_redis(
        redis: &RedisServer,
        organization: &str,
        policy_text: &str,
        clock: ManualClock,
    ) -> Self {
        let (settings, of_store) = (settings(redis, organization), Clock::Manual(clock.clone()));
        Self::start_with(clock, policy_text, scratch(), None, move || {
            RedisStore::connect(settings.clone(), of_store.clone())
                .map_err(|error| server::StartError::Store(error.to_string()))
        })
    }

    /// Starts on the embedded store behind TLS.
    pub(crate) fn start_tls(policy_text: &str, tls: ListenerTls) -> Self {
        let (clock, directory) = (ManualClock::new(START), scratch());
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        Self::start_with(clock, policy_text, directory, Some(tls), move || Ok(store.clone()))
    }

    /// Starts on the embedded store with bounds on its connections.
    pub(crate) fn start_bounded(policy_text: &str, limits: ConnectionLimits) -> Self {
        let (clock, directory) = (ManualClock::new(START), scratch());
        let store = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        let connections = Connections::new(limits);
        Self::start_within(connections, clock, policy_text, directory, None, move || Ok(store.clone()))
    }

    fn start_with<S: Store + Clone>(
        clock: ManualClock,
        policy_text: &str,
        directory: TempDir,
        tls: Option<ListenerTls>,
        make_store: impl Fn() -> Result<S, server::StartError> + Clone + Send + 'static,
    ) -> Self {
        Self::start_within(Connections::default(), clock, policy_text, directory, tls, make_store)
    }

    fn start_within<S: Store + Clone>(
        connections: Connections,
        clock: ManualClock,
        policy_text: &str,
        directory: TempDir,
        tls: Option<ListenerTls>,
        make_store: impl Fn() -> Result<S, server::StartError> + Clone + Send + 'static,
    ) -> Self {
        let sink = Sink::store(make_store.clone(), Duration::from_secs(400 * 86_400)).unwrap();
        let app = App::new(Parts {
            upstream: Arc::new(UpstreamKeys::fixed(&[("default", &[UPSTREAM_KEY])]).unwrap()),
            audit: Audit::start(Origin::default(), vec![sink]).unwrap(),
            connections,
            runtime: Clock::Manual(clock.clone()).into(),
            ..Parts::new(Arc::new(policy(policy_text, clock.now())))
        });
        let address = "127.0.0.1:0".parse().unwrap();
        let listen = Listen { address, threads: 2, drain: Duration::from_secs(5), tls };
        let server = app.serve(listen, make_store).unwrap();
        Self { clock, app, server, _directory: directory }
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(connect(self.address()).await)
    }

    /// Puts another policy in force.
    pub(crate) async fn set_policy(&self, policy_text: &str) {
        self.app.live().set_policy(Arc::new(policy(policy_text, self.clock.now())));
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops it; whether all calls under way ended by themselves.
    pub(crate) async fn stop(self) -> bool {
        self.server.stop().await
    }
}
