//! The admin listener: liveness, readiness and the state of the policy, over HTTP, apart from the gRPC port.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{StatusCode, header::WWW_AUTHENTICATE},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
    serve::{IncomingStream, Listener},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::server::Connected as _};
use tracing::debug;

use super::{
    connection::Connection,
    incoming::{self, Incoming},
    tls::ListenerTls,
};
use crate::{
    authorizer::Shared,
    domain::access::page_need,
    rpc::{AccessLayer, Peer},
    store::Store,
};

/// What the pages show.
pub trait Status: Send + Sync + 'static {
    /// The state as JSON: policy revision, when it was loaded, why the newest file was refused.
    fn status(&self) -> Value;
}

struct Pages<S, T> {
    access: AccessLayer,
    shared: Arc<Shared>,
    store: S,
    status: T,
}

/// Serves `/livez`, `/readyz` and `/status` until dropped, each to whoever may see it by `access`.
///
/// # Errors
/// Where the listener fails.
pub async fn serve<S: Store, T: Status>(
    listener: TcpListener,
    tls: Option<ListenerTls>,
    access: AccessLayer,
    shared: Arc<Shared>,
    store: S,
    status: T,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let arrivals = Arrivals { address, incoming: Incoming::new(listener, tls) };
    let pages = Arc::new(Pages { access, shared, store, status });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S, T>))
        .route("/status", get(show::<S, T>))
        .layer(middleware::from_fn_with_state(Arc::clone(&pages), guard::<S, T>))
        .with_state(pages);
    axum::serve(arrivals, router.into_make_service_with_connect_info::<Peer>()).await
}

/// Connections, after the handshake where there is one.
struct Arrivals {
    address: SocketAddr,
    incoming: Incoming,
}

impl Listener for Arrivals {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            match self.incoming.next().await {
                Some(Ok(connection)) => {
                    let peer = connection.connect_info();
                    return (connection, peer);
                }
                Some(Err(error)) => incoming::rest_after(&error).await,
                // The task that listens has ended, which it does with the process.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::plain(Some(self.address)))
    }
}

impl Connected<IncomingStream<'_, Arrivals>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Arrivals>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Lets through whoever may see a page. What is no page is nobody's.
async fn guard<S: Store, T: Status>(
    State(pages): State<Arc<Pages<S, T>>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(need) = page_need(request.uri().path()) else { return StatusCode::NOT_FOUND.into_response() };
    request.extensions_mut().insert(peer);
    match pages.access.admit(need, &request).await {
        Ok(()) => next.run(request).await,
        Err(status) => {
            let (page, reason) = (request.uri().path(), status.message());
            debug!(page, code = ?status.code(), reason, "caller refused");
            let message = Json(json!({ "error": status.message() }));
            match status.code() {
                Code::Unauthenticated => {
                    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], message).into_response()
                }
                Code::PermissionDenied => (StatusCode::FORBIDDEN, message).into_response(),
                _ => (StatusCode::SERVICE_UNAVAILABLE, message).into_response(),
            }
        }
    }
}

async fn ready<S: Store, T: Status>(State(pages): State<Arc<Pages<S, T>>>) -> (StatusCode, &'static str) {
    match pages.store.ping().await {
        // As decisions have it: these would be refused.
        Ok(()) if !pages.shared.freshness().is_fresh() => {
            (StatusCode::SERVICE_UNAVAILABLE, "the store's registry was not read in time\n")
        }
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}

async fn show<S: Store, T: Status>(State(pages): State<Arc<Pages<S, T>>>) -> Json<Value> {
    let mut status = pages.status.status();
    if let Value::Object(fields) = &mut status {
        let answers = pages.store.ping().await.is_ok();
        fields.insert("store".to_owned(), Value::from(if answers { "serving" } else { "unreachable" }));
    }
    Json(status)
}
