//! The composition root: `serve`, `simulate` and the tests put their service together here, so that tests run the assembly that
//! ships.

mod organization;
mod parts;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

pub use self::{
    organization::Organization,
    parts::{Parts, Shown},
};
use crate::{
    access::{self, Client, ClientSecretPlace, SessionKeyError, SessionSettings, Sessions, SignIn},
    console::{Console, ConsoleAddress, Door, Streams},
    runtime::Tasks,
    server::{
        Connections, ListenerTls, Member, Options, Server, StartError,
        admin::{self, PagesOf},
        in_process, metrics,
    },
    settings::{OidcClient, Settings},
    store::{Observed, Store},
    telemetry::Meters,
};
pub use crate::{
    authorizer::{DecisionOutputs, SpoolDelivery, released},
    live::carried_over,
};

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

/// A service that is put together and can be served: of one organization, or of several.
#[derive(Debug)]
pub struct App {
    first: Organization,
    others: Vec<Organization>,
    connections: Connections,
    meters: Meters,
    streams: Streams,
    /// Tells pages to stop.
    stop_pages: watch::Sender<bool>,
    /// Changes that are made from pages.
    changes: Tasks,
}

impl App {
    /// Puts the service of one organization together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self::of_first(parts, Vec::new())
    }

    /// Puts the service of several organizations together. They share connections, metrics and sessions as `first` has them. `None`: there
    /// are none.
    #[must_use]
    pub fn of_several(mut parts: Vec<Parts>) -> Option<Self> {
        (!parts.is_empty()).then(|| Self::of_first(parts.remove(0), parts))
    }

    fn of_first(first: Parts, others: Vec<Parts>) -> Self {
        let (connections, meters) = (first.connections.clone(), first.meters.clone());
        let (timing, sessions) = (metrics::timing(&meters), Arc::default());
        let made = |parts| Organization::new(parts, &timing, &sessions);
        let (first, others) = (made(first), others.into_iter().map(made).collect::<Vec<_>>());
        let sources = std::iter::once(&first).chain(&others).map(|one| one.sources.clone()).collect();
        metrics::register(sources, &connections, &meters);
        let (streams, stop_pages, changes) =
            (Streams::default(), watch::Sender::new(false), Tasks::default());
        Self { first, others, connections, meters, streams, stop_pages, changes }
    }

    /// The first organization, which most services have alone.
    #[must_use]
    pub const fn first(&self) -> &Organization {
        &self.first
    }

    /// The organizations, in the order in which they were given.
    pub fn organizations(&self) -> impl Iterator<Item = &Organization> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Serves gRPC for one organization on threads of its own. `make_store` is called once on each, within its runtime.
    ///
    /// # Errors
    /// The address is unavailable, or a thread or the store cannot be set up.
    pub fn serve<S, F>(&self, listen: Listen, make_store: F) -> Result<Server, StartError>
    where
        S: Store + Clone,
        F: Fn() -> Result<S, StartError> + Clone + Send + 'static,
    {
        self.serve_each(listen, move || Ok(vec![make_store()?]))
    }

    /// The same for each organization on a store of its own. `make_stores` makes those of one thread, in the order of the organizations.
    ///
    /// # Errors
    /// As there.
    pub fn serve_each<S, F>(&self, listen: Listen, make_stores: F) -> Result<Server, StartError>
    where
        S: Store + Clone,
        F: Fn() -> Result<Vec<S>, StartError> + Clone + Send + 'static,
    {
        let Listen { address, threads, drain, tls } = listen;
        let connections = self.connections.clone();
        let options = Options { listen: address, threads, drain, tls, connections };
        let member = |organization: &Organization| Member {
            shared: Arc::clone(&organization.shared),
            parts: organization.parts.clone(),
        };
        let calls: Vec<_> = self.organizations().map(|one| Arc::clone(&one.parts.status.calls)).collect();
        let make_stores = move || {
            let stores = make_stores()?;
            if stores.len() != calls.len() {
                return Err(StartError::Store("there is not one for each organization".to_owned()));
            }
            let watched = stores.into_iter().zip(&calls).map(|(store, calls)| {
                calls.watch(&store);
                Observed::guarded(store, calls)
            });
            Ok(watched.collect())
        };
        Server::start(&options, member(&self.first), self.others.iter().map(member).collect(), make_stores)
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
        let sessions = self.sessions(&of_sessions)?;
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
        let sessions = self.sessions(&of_sessions)?;
        Ok(Door::new(sessions, None, ConsoleAddress::default()))
    }

    fn sessions(&self, settings: &SessionSettings) -> Result<Sessions, SessionKeyError> {
        let guard = |organization: &Organization| organization.parts.guard.clone();
        let organizations = access::Organizations::new(guard(&self.first), self.others.iter().map(guard));
        Sessions::open(settings, organizations, self.first.parts.runtime.clone())
    }

    /// Serves the pages for operators of one organization until they are told to stop, those of the console where there is a `door`.
    pub fn serve_pages<S: Store + Clone>(
        &self,
        listener: TcpListener,
        tls: Option<ListenerTls>,
        door: Option<Door>,
        store: S,
    ) -> impl Future<Output = ()> + Send + use<S> {
        self.serve_pages_of_each(listener, tls, door, vec![store])
    }

    /// The same for each organization on a store of its own, in their order.
    pub fn serve_pages_of_each<S: Store + Clone>(
        &self,
        listener: TcpListener,
        tls: Option<ListenerTls>,
        door: Option<Door>,
        stores: Vec<S>,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let address = listener.local_addr().ok();
        let mut pages = self.organizations().zip(stores).map(|(organization, store)| {
            let parts = &organization.parts;
            let store = Observed::new(store, &parts.status.calls);
            let (guard, live) = (parts.guard.clone(), Arc::clone(organization.live()));
            let console = door.as_ref().map(|door| {
                let services = in_process(parts, store.clone(), self.changes.clone());
                let (runtime, streams) = (parts.runtime.clone(), self.streams.clone());
                Console::new(services, guard.clone(), live, runtime, address, streams, door.of(&guard))
            });
            PagesOf { guard, status: parts.status.clone(), store, console }
        });
        let stop = self.stop_pages.subscribe();
        let (first, meters, connections) = (pages.next(), self.meters.clone(), self.connections.clone());
        let others: Vec<_> = pages.collect();
        async move {
            if let Some(first) = first {
                admin::serve(listener, tls, (first, others, meters), connections, stop).await;
            }
        }
    }
}
