//! The admin listener: liveness, readiness and the state of the policy, over plain HTTP, apart from the gRPC port.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::Value;
use tokio::net::TcpListener;

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
pub async fn serve<S: Store, T: Status>(listener: TcpListener, store: S, status: T) -> std::io::Result<()> {
    let pages = Arc::new(Pages { store, status });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S, T>))
        .route("/status", get(show::<S, T>))
        .with_state(pages);
    axum::serve(listener, router).await
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
