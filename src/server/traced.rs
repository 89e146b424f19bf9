//! Calls that are traced, before anything else looks at them.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{Request, Response};
use tokio_util::either::Either;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument as _, error_span, field};

use crate::{
    domain::rbac::{RPCS, rpc_number},
    telemetry::{CODES, trace::Tracing},
};

/// The RPC whose trace may come with what it is about.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// What calls of no RPC of ours are called, as paths are chosen by callers.
const OTHER: &str = "_OTHER";

/// A service whose calls are traced where their callers trace them, or where the dice say so.
#[derive(Clone, Debug)]
pub(super) struct Traced<S> {
    pub(super) inner: S,
    pub(super) tracing: Tracing,
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.tracing.is_on() {
            return Either::Left(self.inner.call(request));
        }
        let header = |name| request.headers().get(name);
        let parent = header("traceparent").map(|header| header.as_bytes());
        let state = header("tracestate").and_then(|header| header.to_str().ok());
        let path = request.uri().path();
        if path == CHECK && parent.is_none() {
            return Either::Left(self.inner.call(request));
        }
        let known = rpc_number(path).and_then(|number| RPCS.get(number));
        let rpc = known.map_or(OTHER, |(path, _)| path.trim_start_matches('/'));
        let Some(traced) = self.tracing.begin(rpc, parent, state) else {
            return Either::Left(self.inner.call(request));
        };
        let names = traced.names();
        // So that every line of the log that the call causes has them, at whatever level lines begin. The organization is added once it is known.
        let (trace_id, span_id) = (names.trace(), names.span());
        let span = error_span!("call", trace_id, span_id, organization = field::Empty);
        let answer = span.in_scope(|| self.inner.call(request));
        let answer = traced.within(answer).instrument(span);
        Either::Right(Box::pin(async move {
            let answer = answer.await;
            if let Ok(told) = &answer {
                traced.ends_with(code(told));
            }
            answer
        }))
    }
}

/// The code of an answer: a refusal has it in its headers. What else is answered is good, as far as is known before its end.
pub(super) fn code<B>(answer: &Response<B>) -> &'static str {
    let code = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<usize>().ok());
    CODES.get(code.unwrap_or(0)).copied().unwrap_or("UNKNOWN")
}
