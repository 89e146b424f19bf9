//! The admin listener: liveness, readiness and the state of the policy, over HTTP, apart from the gRPC port.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tower::ServiceExt as _;
use tracing::debug;

use super::{
    Connections, host,
    serving::{Protocol, Serving},
    tls::ListenerTls,
};
use crate::{
    access::{Authorization, Credentials, Guard, Kind},
    authorizer::Shared,
    domain::rbac::page_need,
    store::Store,
};

/// The state that the pages show.
pub trait Status: Send + Sync + 'static {
    /// The state as JSON: the policy's revision, when it was loaded, and why the newest file was refused.
    fn status(&self) -> Value;
}

struct Pages<S, T> {
    address: Option<SocketAddr>,
    guard: Guard,
    shared: Arc<Shared>,
    store: S,
    status: T,
}

/// Serves `/livez`, `/readyz` and `/status` until dropped, each to the callers that `guard` permits.
pub async fn serve<S: Store, T: Status>(
    listener: TcpListener,
    tls: Option<ListenerTls>,
    guard: Guard,
    shared: Arc<Shared>,
    connections: Connections,
    store: S,
    status: T,
) {
    let pages = Arc::new(Pages { address: listener.local_addr().ok(), guard, shared, store, status });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S, T>))
        .route("/status", get(show::<S, T>))
        .layer(middleware::from_fn_with_state(Arc::clone(&pages), admit::<S, T>))
        .with_state(pages);
    let service = router.map_request(|request: Request<Incoming>| request.map(axum::body::Body::new));
    // Never signalled: the listener ends with the process.
    let (_running, stop) = watch::channel(false);
    let connections = connections.of_pages();
    Serving { protocol: Protocol::Pages, tls, connections, service, stop }.run(listener).await;
}

/// Lets through callers that are permitted to see the page. An unknown page is not found for anyone.
async fn admit<S: Store, T: Status>(
    State(pages): State<Arc<Pages<S, T>>>,
    request: Request,
    next: Next,
) -> Response {
    // Without credentials, a page of another site in a browser on this machine could read these pages, under a name that it
    // points to this address.
    if !pages.guard.knows_callers() && !host::is_ours(&request, pages.address, pages.guard.is_open()) {
        let message = "this `Host` is none of this listener: use its address, or localhost";
        return (StatusCode::MISDIRECTED_REQUEST, Json(json!({ "error": message }))).into_response();
    }
    let Some(need) = page_need(request.uri().path()) else { return StatusCode::NOT_FOUND.into_response() };
    let Err(refusal) = pages.guard.admit(need, &credentials(&request)).await else {
        return next.run(request).await;
    };
    let page = request.uri().path();
    debug!(page, error = %refusal, "caller refused");
    let message = Json(json!({ "error": refusal.to_string() }));
    match refusal.kind() {
        Kind::Unauthenticated => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], message).into_response()
        }
        Kind::Forbidden => (StatusCode::FORBIDDEN, message).into_response(),
        Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, message).into_response(),
        Kind::Unknown => (StatusCode::NOT_FOUND, message).into_response(),
    }
}

fn credentials(request: &Request) -> Credentials<'_> {
    let mut headers = request.headers().get_all(AUTHORIZATION).iter();
    let authorization = match (headers.next(), headers.next()) {
        (None, _) => Authorization::Absent,
        (Some(header), None) => Authorization::Header(header.as_bytes()),
        (Some(_), Some(_)) => Authorization::Several,
    };
    Credentials { authorization, peer: request.extensions().get(), path: request.uri().path() }
}

async fn ready<S: Store, T: Status>(State(pages): State<Arc<Pages<S, T>>>) -> (StatusCode, &'static str) {
    match pages.store.ping().await {
        // Readiness follows the decisions, which would be refused here.
        Ok(()) if !pages.shared.live.freshness().is_fresh() => {
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
