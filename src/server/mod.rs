//! The listener: one current-thread runtime per core, each with its own socket on the same port, plus health and a bounded drain.
//!
//! A request stays on the core that accepted its connection, so no task moves between threads and no scheduler lock is taken. The
//! kernel spreads connections over the sockets; a client with one connection uses one core.

mod accept;
pub mod admin;
mod by_organization;
mod calls;
mod closing;
mod connection;
mod connections;
mod deadline;
mod dispatch;
mod health;
mod inside;
pub mod metrics;
mod on_core;
mod record;
mod reflection;
mod request_body;
mod services;
mod serving;
mod tally;
mod tls;
mod traced;
mod unread;
mod vigil;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Builder,
    sync::{mpsc, watch},
    task::{JoinHandle as JoinTask, JoinSet},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{Layer as _, util::MapResponseLayer};
use tracing::error;

pub use connections::Connections;
pub use inside::in_process;
pub use services::ServiceParts;
pub use tls::{
    ListenerTls, TlsError, TlsSource, Validity, certificate_at, certificate_in, examine_tls,
    install_cryptography, validity_of,
};

use by_organization::ByOrganization;
use closing::{cut_before_the_end, say_closings};
use deadline::Deadline;
use on_core::OnCore;
use request_body::Bounded;
use serving::{Protocol, Serving};
use traced::Traced;

use crate::{
    authorizer::{Authorizer, Shared},
    rpc::{explained, watched},
    store::Store,
};

/// Connections waiting to be accepted, per core.
const BACKLOG: u32 = 1024;
/// Even where no call may go on, threads without any take a moment to end.
const LEAST_DRAIN: Duration = Duration::from_millis(500);
/// How to listen.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Threads, each with its own runtime and socket; at least 1.
    pub threads: usize,
    /// How long calls in flight may take to end after a stop was requested.
    pub drain: Duration,
    /// TLS for every connection; `None`: plain ones.
    pub tls: Option<ListenerTls>,
    /// The connections of this process, with their bounds.
    pub connections: Connections,
}

/// One of the organizations that are served.
#[derive(Clone, Debug)]
pub struct Member {
    /// What its authorizers share.
    pub shared: Arc<Shared>,
    /// What its services are made of.
    pub parts: ServiceParts,
}

/// Why the service cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system cannot start a thread or runtime.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] io::Error),
    /// The store cannot be set up.
    #[error("cannot set up the store: {0}")]
    Store(String),
}

/// A running service. Dropping it stops it without a drain.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    shared: Vec<Arc<Shared>>,
    workers: Vec<JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
    drain: Duration,
}

/// The state that every worker needs.
#[derive(Clone)]
struct Setup<F> {
    first: Member,
    others: Vec<Member>,
    make_stores: F,
    drain: Duration,
    health: HealthReporter,
    stop: watch::Receiver<bool>,
    tls: Option<ListenerTls>,
    connections: Connections,
    /// Held by every worker; closed when the last one ends.
    _ended: mpsc::Sender<()>,
}

impl Server {
    /// Listens, and serves organizations on threads of its own. `make_stores` makes the stores of all, in their order: it is called once on
    /// each thread, within its runtime.
    ///
    /// # Errors
    /// The address is unavailable, or a thread or a store cannot be set up.
    pub fn start<S, F>(
        options: &Options,
        first: Member,
        others: Vec<Member>,
        make_stores: F,
    ) -> Result<Self, StartError>
    where
        S: Store + Clone,
        F: Fn() -> Result<Vec<S>, StartError> + Clone + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let (ended_sender, ended) = mpsc::channel(1);
        let members = std::iter::once(&first).chain(&others);
        let shared = members.map(|member| Arc::clone(&member.shared)).collect();
        let setup = Setup {
            first,
            others,
            make_stores,
            drain: options.drain,
            health: HealthReporter::new(),
            stop: stopped,
            tls: options.tls.clone(),
            connections: options.connections.clone(),
            _ended: ended_sender,
        };
        let mut address = options.listen;
        let mut workers = Vec::with_capacity(options.threads.max(1));
        probe(address)?;
        for index in 0..options.threads.max(1) {
            let (bound, worker) = start_worker(index, address, setup.clone())?;
            address = bound;
            workers.push(worker);
        }
        Ok(Self { address, stop, shared, workers, ended, drain: options.drain })
    }

    /// The address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets calls in flight end within the drain's bound, and stops. Returns whether all ended.
    /// Requests that wait for room are told at once to ask another replica, and clients that watch the health get a last message
    /// and their streams end, like those of decisions: none would end by themselves. Calls that are still open shortly before the bound are told, too.
    pub async fn stop(mut self) -> bool {
        for shared in &self.shared {
            shared.queue.close();
            shared.feed.close();
        }
        self.stop.send_replace(true);
        let within = self.drain.max(LEAST_DRAIN);
        let drained = tokio::time::timeout(within, self.ended.recv()).await.is_ok();
        if drained {
            for worker in self.workers.drain(..) {
                // All have ended, so joining does not block; a worker that panicked has reported that itself.
                let _ = worker.join();
            }
        }
        drained
    }
}

/// The sockets of all cores share the port, so another process on it would take connections unnoticed. A socket that does not
/// share the port detects it.
fn probe(address: SocketAddr) -> Result<(), StartError> {
    let taken = |source| StartError::Listen { address, source };
    std::net::TcpListener::bind(address).map(drop).map_err(taken)
}

fn start_worker<S, F>(
    index: usize,
    address: SocketAddr,
    setup: Setup<F>,
) -> Result<(SocketAddr, JoinHandle<()>), StartError>
where
    S: Store + Clone,
    F: Fn() -> Result<Vec<S>, StartError> + Clone + Send + 'static,
{
    let (started, starting) = std::sync::mpsc::sync_channel(1);
    let worker = thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(source) => {
                    let _ = started.send(Err(StartError::Thread(source)));
                    return;
                }
            };
            runtime.block_on(async move {
                let ready = listen(address).and_then(|listener| {
                    let bound =
                        listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
                    let mut stores = (setup.make_stores)()?.into_iter();
                    let first = stores.next().ok_or_else(|| StartError::Store("there is none".to_owned()))?;
                    Ok((bound, listener, (first, stores.collect())))
                });
                match ready {
                    Ok((bound, listener, stores)) => {
                        let _ = started.send(Ok(bound));
                        serve(index, listener, stores, setup).await;
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            });
        })
        .map_err(StartError::Thread)?;
    let gone = |_| StartError::Thread(io::Error::other("the thread ended at once"));
    let bound = starting.recv().map_err(gone)??;
    Ok((bound, worker))
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

/// Begins what one worker does for the process, whatever it serves, and watches whether anything can be served; returns that task.
async fn beside<S: Store + Clone, F>(
    setup: &Setup<F>,
    first: &OnCore<S>,
    others: &[OnCore<S>],
) -> JoinTask<()> {
    let Setup { stop, health, connections, .. } = setup;
    health::tell(&mut health.clone(), ServingStatus::NotServing).await;
    let all = || std::iter::once(first).chain(others);
    all().for_each(|one| one.beside(stop));
    tokio::spawn(say_closings(connections.clone(), stop.clone()));
    let watched = all().map(|one| (one.store.clone(), Arc::clone(&one.shared))).collect();
    tokio::spawn(health::watch(watched, health.clone(), stop.clone()))
}

async fn serve<S: Store + Clone, F: Clone>(
    index: usize,
    listener: TcpListener,
    (first, others): (S, Vec<S>),
    setup: Setup<F>,
) {
    let worker = u32::try_from(index).unwrap_or(u32::MAX);
    let tracing = setup.first.parts.tracing.clone();
    let first = OnCore::new(setup.first.clone(), first);
    let others = setup.others.iter().zip(others).map(|(member, store)| OnCore::new(member.clone(), store));
    let others: Vec<_> = others.collect();
    let authorizers: Vec<_> = std::iter::once(&first).chain(&others).map(|one| &one.authorizer).collect();
    let following = tokio::spawn(Authorizer::follow_each(&authorizers, worker, setup.stop.clone()));
    // Before anything is served, as the health reporter itself starts with `Serving`.
    let watch = match index {
        0 => Some(beside(&setup, &first, &others).await),
        _ => None,
    };
    for one in std::iter::once(&first).chain(&others) {
        one.shared.live.registry_asked().await;
    }
    let Setup { drain, health, stop, tls, connections, .. } = setup;
    for one in std::iter::once(&first).chain(&others) {
        tokio::spawn(cut_before_the_end(one.authorizer.settler().tasks().clone(), stop.clone(), drain));
    }
    let patience = connections.limits().handshake;
    // Calls are cut off as the tasks of the first are: those of all are cut at the same time.
    let tasks = first.authorizer.settler().tasks().clone();
    let guarded = ByOrganization::new(&first, &others, &health);
    // If an answer is dropped on its way out, its reservation is released.
    let guarded = MapResponseLayer::new(watched as fn(_) -> _).layer(guarded);
    // What the libraries refuse has a reason as well.
    let guarded = MapResponseLayer::new(explained as fn(_) -> _).layer(guarded);
    let service = Bounded { inner: Deadline { inner: guarded, tasks }, patience };
    let service = Traced { inner: service, tracing };
    Serving { protocol: Protocol::Grpc, tls, connections, service, stop }.run(listener).await;
    // At once: the store of one may not answer.
    let mut ends = JoinSet::new();
    for one in std::iter::once(first).chain(others) {
        ends.spawn(one.end());
    }
    ends.join_all().await;
    if following.await.is_err() {
        error!("the follower of the registries had panicked");
    }
    // A worker without connections ends at once, but this one still informs the clients that watch on others.
    if let Some(watch) = watch
        && watch.await.is_err()
    {
        error!("the watch over the store's health had panicked");
    }
}
