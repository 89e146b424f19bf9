//! Connections from start to end: accepted, given a TLS handshake if configured, served, and closed when they are silent, idle or
//! old, or their clients do not read.

use std::{convert::Infallible, pin::pin, time::Duration};

use hyper::{
    Request, Response,
    body::{Body, Bytes, Incoming},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep_until, timeout_at},
};
use tokio_util::task::TaskTracker;
use tower::Service;
use tracing::debug;

use super::{
    accept::{Handshakes, rest_after, shake_hands},
    calls::Calls,
    connection::{Connection, Stream},
    connections::{Connections, Place},
    tls::ListenerTls,
    vigil::{Verdict, Vigil},
};
use crate::access::Peer;

/// Calls in flight on one connection: a gateway with some thousand requests in flight needs a few connections. Waiting calls
/// (`max_wait`) count too.
const MAX_STREAMS: u32 = 1024;
/// Calls that a peer may give up before they are looked at; more end its connection. With h2's own limit of 20, one second
/// without a core for this process, in which Envoy's calls time out, would end every exchange on the connection.
const MAX_GIVEN_UP: usize = MAX_STREAMS as usize;
/// A peer that does not answer a ping for this long is gone; its streams are freed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 only, as gRPC needs.
    Grpc,
    /// HTTP/1 only.
    Pages,
}

/// How the connections of one listener are served.
#[derive(Clone)]
pub(super) struct Serving<S> {
    pub(super) protocol: Protocol,
    pub(super) tls: Option<ListenerTls>,
    pub(super) connections: Connections,
    /// Answers calls; it is always ready.
    pub(super) service: S,
    /// The signal to stop: open calls may then end.
    pub(super) stop: watch::Receiver<bool>,
}

impl<S, B> Serving<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Serves the connections to `listener` until told to stop and the last one has ended.
    pub(super) async fn run(self, listener: TcpListener) {
        let tasks = TaskTracker::new();
        let mut handshakes = Handshakes::default();
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // An error means that the server was dropped: stop as well.
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    rest_after(&error).await;
                    continue;
                }
            };
            let Some((place, made_room)) = self.connections.admit() else { continue };
            if self.tls.is_some() {
                handshakes.add(&place.record);
            }
            tasks.spawn(self.clone().serve(stream, place));
            if made_room {
                // The connection that makes room may be on this thread.
                tokio::task::yield_now().await;
            }
        }
        // From here on the system refuses new connections.
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    async fn serve(self, stream: TcpStream, place: Place) {
        // If the connection is already gone, the first read says so.
        let _ = stream.set_nodelay(true);
        let mut vigil = Vigil::new(place.record.clone(), self.connections.limits().clone());
        let (stream, peer) = match &self.tls {
            None => {
                let peer = Peer::plain(stream.peer_addr().ok());
                (Stream::Plain(stream), peer)
            }
            Some(tls) => {
                let told = async {
                    while !matches!(
                        vigil.judge(tokio::time::Instant::now()),
                        Verdict::Cut(_) | Verdict::Leave(_)
                    ) {
                        place.record.changed().await;
                    }
                };
                let due = place.record.handshake_ends(self.connections.limits());
                let mut stop = self.stop.clone();
                let shaken = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => None,
                    shaken = timeout_at(due, shake_hands(tls, stream)) => shaken.ok().flatten(),
                    () = told => None,
                };
                let Some((stream, peer)) = shaken else { return };
                (Stream::Tls(Box::new(stream)), peer)
            }
        };
        place.record.shaken();
        let connection = Connection::new(stream, place.record.clone(), self.protocol == Protocol::Pages);
        let calls = Calls::new(self.service, peer, place.record.clone(), self.protocol);
        attend(&self.protocol.builder(), connection, calls, vigil, &place, &self.connections, self.stop)
            .await;
    }
}

impl Protocol {
    fn builder(self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        match self {
            Self::Grpc => {
                builder
                    .http2()
                    .timer(TokioTimer::new())
                    .keep_alive_interval(KEEPALIVE)
                    .max_concurrent_streams(MAX_STREAMS)
                    .max_pending_accept_reset_streams(MAX_GIVEN_UP);
                builder.http2_only()
            }
            Self::Pages => {
                // Our own bound applies to the rest of a request that has begun, but not to a connection that waits for one.
                builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
                builder.http1_only()
            }
        }
    }
}

/// Drives one connection until it ends or has to end.
async fn attend<S, B>(
    builder: &auto::Builder<TokioExecutor>,
    connection: Connection,
    calls: Calls<S>,
    mut vigil: Vigil,
    place: &Place,
    connections: &Connections,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), calls));
    let mut due = pin!(sleep_until(tokio::time::Instant::now()));
    let mut stops = false;
    loop {
        match vigil.judge(tokio::time::Instant::now()) {
            Verdict::Wait(until) => due.as_mut().reset(until),
            Verdict::Leave(cause) => {
                connections.closed(cause);
                debug!(cause = cause.name(), "a connection is about to end");
                served.as_mut().graceful_shutdown();
                continue;
            }
            Verdict::Cut(cause) => {
                connections.closed(cause);
                debug!(cause = cause.name(), "a connection is closed");
                return;
            }
        }
        tokio::select! {
            biased;
            ended = &mut served => {
                if let Err(error) = ended {
                    debug!(%error, "a connection failed");
                }
                return;
            }
            () = &mut due => {}
            () = place.record.changed() => {}
            _ = stop.wait_for(|stop| *stop), if !stops => {
                if place.record.is_mute() {
                    return;
                }
                stops = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}
