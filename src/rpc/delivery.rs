//! Whether an answer was sent: only then does what it reserved belong to the caller.
//!
//! The end of a handler is too early to tell. The stream may have been reset by then, or be reset while the answer waits for
//! the peer's window; the answer is then dropped and the handler hears nothing. The moment when the answer is taken out of
//! the body is too early as well: hyper keeps it until the peer has a window for it. Hyper asks for what comes next, the
//! trailers, only once it has given the answer to the connection.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use tonic::{Response, body::Body, codegen::http::Response as HttpResponse};

use crate::{authorizer::PendingCheck, store::Store};

/// Something that waits for its answer to be sent, and undoes itself if it is dropped first.
trait Undelivered: Send + Sync {
    fn delivered(&self);
}

impl<S: Store + Clone> Undelivered for PendingCheck<S> {
    fn delivered(&self) {
        Self::delivered(self);
    }
}

/// Stored among the extensions of an answer.
#[derive(Clone)]
struct Pending(Arc<dyn Undelivered>);

/// Ties what `check` reserved to the fate of `answer`.
pub(super) fn tie<T, S: Store + Clone>(answer: &mut Response<T>, check: PendingCheck<S>) {
    answer.extensions_mut().insert(Pending(Arc::new(check)));
}

/// Watches the body of an answer that something was tied to. Belongs around all services.
#[must_use]
pub fn watched(mut answer: HttpResponse<Body>) -> HttpResponse<Body> {
    let Some(pending) = answer.extensions_mut().remove::<Pending>() else { return answer };
    let mut pending = Some(pending);
    answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if frame.is_trailers()
                && let Some(Pending(pending)) = pending.take()
            {
                pending.delivered();
            }
            frame
        }))
    })
}
