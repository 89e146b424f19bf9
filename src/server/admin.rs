//! The admin listener: liveness, readiness and the state of the policy, over HTTP, apart from the gRPC port.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get, serve::Listener};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::transport::server::Connected as _;

use super::{connection::Connection, incoming, tls::ListenerTls};
use crate::store::Store;

/// What the pages show.
pub trait Status: Send + Sync + 'static {
    /// The state as JSON: policy revision, when it was loaded, why the newest file was refused.
    fn status(&self) -> Value;
}

struct Pages<S, T> {
    store: S,
    status: T,
}

/// Serves `/livez`, `/readyz` and `/status` until dropped.
///
/// # Errors
/// Where the listener fails.
pub async fn serve<S: Store, T: Status>(
    listener: TcpListener,
    tls: Option<ListenerTls>,
    store: S,
    status: T,
) -> io::Result<()> {
    let pages = Arc::new(Pages { store, status });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S, T>))
        .route("/status", get(show::<S, T>))
        .with_state(pages);
    match tls {
        None => axum::serve(listener, router).await,
        Some(tls) => {
            let address = listener.local_addr()?;
            let ready = incoming::start(listener, tls);
            axum::serve(TlsListener { address, ready }, router).await
        }
    }
}

/// Connections whose handshake is done.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<Connection>,
}

impl Listener for TlsListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(connection) => {
                let peer = connection.connect_info().address.unwrap_or(self.address);
                (connection, peer)
            }
            // The task that listens has ended, which it does with the process.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn ready<S: Store, T: Status>(State(pages): State<Arc<Pages<S, T>>>) -> (StatusCode, &'static str) {
    match pages.store.ping().await {
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
