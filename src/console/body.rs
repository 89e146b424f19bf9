//! What a browser sends with a form, within bounds of size and time.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};

/// How long a form may take to arrive: its connection is one of few.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of `body`; `None`: it has more than `max` bytes, takes too long, or its sender left.
pub(super) async fn whole(body: Body, max: usize) -> Option<Bytes> {
    tokio::time::timeout(PATIENCE, to_bytes(body, max)).await.ok()?.ok()
}
