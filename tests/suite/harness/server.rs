//! The service in this process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tempfile::TempDir;
use tollgate::{
    alerts::Receivers,
    app::{App, Listen, Parts, SpoolDelivery},
    audit::{Audit, Origin, Sink},
    domain::Timestamp,
    rpc::proto::policy_service_client::PolicyServiceClient,
    runtime::clock::{Clock, ManualClock},
    server::{self, Connections, ListenerTls},
    settings::{ConnectionLimits, ReceiverSettings},
    spool::Spool,
    store::{Observed, Store, embedded::EmbeddedStore, redis::RedisStore},
    telemetry::{Meters, RowBounds},
    upstream::UpstreamKeys,
};
use tonic::transport::Channel;

use super::{Fixture, StoreKind, UPSTREAM_KEY, connect, organization, policy, scratch, settings};
use crate::redis_server::{self, RedisServer};

/// How a service in this process is reached and ends.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) address: &'static str,
    pub(crate) connections: Connections,
    pub(crate) drain: Duration,
    pub(crate) tls: Option<ListenerTls>,
    /// What metrics are read from; by default there are none.
    pub(crate) meters: Meters,
    pub(crate) receivers: Vec<ReceiverSettings>,
    pub(crate) spool: Option<Spool>,
}

impl Default for Ways {
    fn default() -> Self {
        let (drain, meters) = (Duration::from_secs(5), Meters::default());
        let (connections, receivers) = (Connections::default(), Vec::new());
        Self { address: "127.0.0.1:0", connections, drain, tls: None, meters, receivers, spool: None }
    }
}

/// The service in this process, over real gRPC, under a clock that the test moves.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) clock: ManualClock,
    app: App,
    server: server::Server,
    meters: Meters,
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
                Self::start_with(clock, policy_text, directory, Ways::default(), move || Ok(opened.clone()))
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
        Self::start_on_redis_with((redis, organization), policy_text, clock, Ways::default())
    }

    /// The same, reached in other ways.
    pub(crate) fn start_on_redis_with(
        (redis, organization): (&RedisServer, &str),
        policy_text: &str,
        clock: ManualClock,
        ways: Ways,
    ) -> Self {
        let (settings, of_store) = (settings(redis, organization), Clock::Manual(clock.clone()));
        Self::start_with(clock, policy_text, scratch(), ways, move || {
            RedisStore::connect(settings.clone(), of_store.clone())
                .map_err(|error| server::StartError::Store(error.to_string()))
        })
    }

    /// Starts on the embedded store behind TLS.
    pub(crate) fn start_tls(policy_text: &str, tls: ListenerTls) -> Self {
        Self::start_in(Fixture::embedded(), policy_text, Ways { tls: Some(tls), ..Ways::default() })
    }

    /// Starts on the embedded store with bounds on its connections.
    pub(crate) fn start_bounded(policy_text: &str, limits: ConnectionLimits) -> Self {
        let connections = Connections::new(limits);
        Self::start_in(Fixture::embedded(), policy_text, Ways { connections, ..Ways::default() })
    }

    /// Starts on an empty embedded store at `start`, with metrics.
    pub(crate) async fn start_measured(policy_text: &str, start: Timestamp) -> Self {
        let clock = ManualClock::new(start);
        let directory = scratch();
        let opened = EmbeddedStore::open(directory.path(), Clock::Manual(clock.clone())).unwrap();
        let meters = Meters::start(None, RowBounds { teams: 10, keys: 0, organizations: 1 }).unwrap();
        let ways = Ways { meters, ..Ways::default() };
        let server = Self::start_with(clock, policy_text, directory, ways, {
            let opened = opened.clone();
            move || Ok(opened.clone())
        });
        tokio::spawn(server.app.first().follow_store(opened));
        server
    }

    /// The page of metrics.
    pub(crate) fn page(&self) -> String {
        self.meters.page().unwrap().to_string()
    }

    /// Starts on the embedded store of `fixture` with what is in it.
    pub(crate) fn start_in(fixture: Fixture<EmbeddedStore>, policy_text: &str, ways: Ways) -> Self {
        let (store, clock, directory) = fixture.into_parts();
        let directory = directory.expect("an embedded store has a directory");
        Self::start_with(clock, policy_text, directory, ways, move || Ok(store.clone()))
    }

    fn start_with<S: Store + Clone>(
        clock: ManualClock,
        policy_text: &str,
        directory: TempDir,
        ways: Ways,
        make_store: impl Fn() -> Result<S, server::StartError> + Clone + Send + 'static,
    ) -> Self {
        let Ways { address, connections, drain, tls, meters, receivers, spool } = ways;
        let sink = Sink::store(make_store.clone(), Duration::from_secs(400 * 86_400)).unwrap();
        let app = App::new(Parts {
            upstream: Arc::new(UpstreamKeys::fixed(&[("default", &[UPSTREAM_KEY])]).unwrap()),
            audit: Audit::start(Origin::default(), vec![sink]).unwrap(),
            connections,
            receivers: Arc::new(Receivers::new(receivers)),
            runtime: Clock::Manual(clock.clone()).into(),
            meters: meters.clone(),
            spool,
            ..Parts::new(Arc::new(policy(policy_text, clock.now())))
        });
        let listen = Listen { address: address.parse().unwrap(), threads: 2, drain, tls };
        let server = app.serve(listen, make_store).unwrap();
        Self { clock, app, server, meters, _directory: directory }
    }

    /// Raises alerts and delivers them to its receivers, on `store`, until dropped.
    pub(crate) fn deliver_alerts<S: Store + Clone>(
        &self,
        store: S,
    ) -> impl Future<Output = ()> + Send + use<S> {
        self.app.first().deliver_alerts(store)
    }

    /// Delivers to `store` what its spool keeps, until dropped.
    pub(crate) fn deliver_spooled<S: Store + Clone>(&self, store: S) -> SpoolDelivery<Observed<S>> {
        self.app.first().deliver_spooled(store).expect("it has a spool")
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(connect(self.address()).await)
    }

    /// Puts another policy in force.
    pub(crate) async fn set_policy(&self, policy_text: &str) {
        self.app.first().live().set_policy(Arc::new(policy(policy_text, self.clock.now())));
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Stops it; whether all calls under way ended by themselves.
    pub(crate) async fn stop(self) -> bool {
        self.server.stop().await
    }
}
