//! The admin listener: liveness, readiness and the state of the policy, over HTTP, apart from the gRPC port.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header::WWW_AUTHENTICATE},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tonic::Code;
use tower::ServiceExt as _;
use tracing::debug;

use super::{
    Connections, host,
    serving::{Protocol, Serving},
    tls::ListenerTls,
};
use crate::{authorizer::Shared, domain::access::page_need, rpc::AccessLayer, store::Store};

/// What the pages show.
pub trait Status: Send + Sync + 'static {
    /// The state as JSON: policy revision, when it was loaded, why the newest file was refused.
    fn status(&self) -> Value;
}

struct Pages<S, T> {
    address: Option<SocketAddr>,
    access: AccessLayer,
    shared: Arc<Shared>,
    store: S,
    status: T,
}

/// Serves `/livez`, `/readyz` and `/status` until dropped, each to whoever may see it by `access`.
pub async fn serve<S: Store, T: Status>(
    listener: TcpListener,
    tls: Option<ListenerTls>,
    access: AccessLayer,
    shared: Arc<Shared>,
    connections: Connections,
    store: S,
    status: T,
) {
    let pages = Arc::new(Pages { address: listener.local_addr().ok(), access, shared, store, status });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S, T>))
        .route("/status", get(show::<S, T>))
        .layer(middleware::from_fn_with_state(Arc::clone(&pages), guard::<S, T>))
        .with_state(pages);
    let service = router.map_request(|request: Request<Incoming>| request.map(axum::body::Body::new));
    // Never told: the listener ends with the process.
    let (_running, stop) = watch::channel(false);
    let connections = connections.of_pages();
    Serving { protocol: Protocol::Pages, tls, connections, service, stop }.run(listener).await;
}

/// Lets through whoever may see a page. What is no page is nobody's.
async fn guard<S: Store, T: Status>(
    State(pages): State<Arc<Pages<S, T>>>,
    request: Request,
    next: Next,
) -> Response {
    // Where there are no credentials, a page of another site that a browser on this machine shows could read what is here,
    // by a name that it lets point to this address.
    if pages.access.policy.load().access.is_none()
        && !host::is_ours(&request, pages.address, pages.access.open)
    {
        let message = "this `Host` is none of this listener: use its address, or localhost";
        return (StatusCode::MISDIRECTED_REQUEST, Json(json!({ "error": message }))).into_response();
    }
    let Some(need) = page_need(request.uri().path()) else { return StatusCode::NOT_FOUND.into_response() };
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
