//! The messages of a call as they arrive: bounded in size and in time.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use tokio::time::{Sleep, sleep};
use tokio_util::either::Either;
use tonic::Status;
use tower::Service;

use super::record::Claim;
use crate::rpc::{explain_end, message_too_large, request_too_slow};

/// The largest message. Messages carry numbers and names, never prompts.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The largest message of Envoy: an HTTP request with its body, which may be an audio file. Groq accepts 25 MB.
pub(super) const MAX_ENVOY_BYTES: usize = 32 << 20;
/// The largest message with a proposed policy: as large as a policy's file may be.
pub(super) const MAX_PROPOSAL_BYTES: usize = 32 << 20;
/// The RPCs that take one.
const CHECK_POLICY: &str = "/tollgate.v1.PolicyDocumentService/CheckPolicy";
const REPLAY_POLICY: &str = "/tollgate.v1.PolicyDocumentService/ReplayPolicy";
/// The largest message with a report of drift: the most that it may tell, with room.
pub(super) const MAX_REPORT_BYTES: usize = 1 << 20;
/// The RPC that takes one.
const REPORT_DRIFT: &str = "/tollgate.v1.AlertService/ReportDrift";
/// The bytes before each gRPC message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// A service that holds messages to each RPC's bounds, and lets them take no longer than its patience.
#[derive(Clone, Debug)]
pub(super) struct Bounded<S> {
    pub(super) inner: S,
    /// How long a request may take to arrive.
    pub(super) patience: Duration,
}

/// Why a stream of messages broke off.
type Failure = Arc<OnceLock<Status>>;

impl<S> Service<Request<Incoming>> for Bounded<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let claim = request.extensions_mut().remove::<Claim>();
        let path = request.uri().path();
        let max = match path {
            CHECK_POLICY | REPLAY_POLICY => MAX_PROPOSAL_BYTES,
            REPORT_DRIFT => MAX_REPORT_BYTES,
            path if path.starts_with("/envoy.") => MAX_ENVOY_BYTES,
            _ => MAX_MESSAGE_BYTES,
        };
        let is_stream = path.starts_with("/envoy.service.ext_proc.") || path.starts_with("/grpc.reflection.");
        let failure = is_stream.then(Failure::default);
        let body = |inner| RequestBody {
            inner,
            messages: Messages::new(max),
            patience: Some(self.patience),
            failure: failure.clone(),
            claim: claim.clone(),
            sleep: None,
        };
        let call = self.inner.call(request.map(|inner| tonic::body::Body::new(body(inner))));
        match failure {
            // The handler answers with the error that it reads.
            None => Either::Left(call),
            Some(failure) => Either::Right(Box::pin(async move {
                let answer = call.await?;
                Ok(answer.map(|inner| tonic::body::Body::new(StreamAnswer { inner, failure })))
            })),
        }
    }
}

/// The answer to a stream of messages. Handlers treat a stream that breaks off as one that its caller gave up. If the caller did
/// not, the answer says why it broke off. Any other error at its end has a reason, too.
struct StreamAnswer {
    inner: tonic::body::Body,
    failure: Failure,
}

impl Body for StreamAnswer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match (frame.into_trailers(), self.failure.get()) {
            (Err(frame), _) => Ok(frame),
            (Ok(_), Some(status)) => {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
            }
            (Ok(mut trailers), None) => {
                explain_end(&mut trailers);
                Ok(Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// The body of a request.
struct RequestBody {
    inner: Incoming,
    messages: Messages,
    /// `None`: the next bytes may take as long as they like.
    patience: Option<Duration>,
    /// Set for a stream of messages; such a stream has a time limit only until its first message.
    failure: Option<Failure>,
    /// Raised with the first message.
    claim: Option<Claim>,
    /// Set only during a wait. A usual request never waits, as it arrives in one piece.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    fn fail(&self, status: Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(failure) = &self.failure {
            // The first is why it broke off.
            let _ = failure.set(status.clone());
        }
        Poll::Ready(Some(Err(status)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let Some(patience) = this.patience else { return Poll::Pending };
            let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(sleep.as_mut().poll(cx));
            return this.fail(request_too_slow(patience));
        };
        let Some(frame) = frame.transpose().map_err(|error| Status::from_error(error.into()))? else {
            return Poll::Ready(None);
        };
        if let Some(piece) = frame.data_ref() {
            if let Err(length) = this.messages.take(piece) {
                return this.fail(message_too_large(length, this.messages.max));
            }
            if this.messages.is_one_complete
                && let Some(claim) = this.claim.take()
            {
                claim.raise();
            }
            if this.failure.is_some() {
                (this.patience, this.sleep) = (None, None);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The position within a stream of messages after the bytes so far.
struct Messages {
    max: usize,
    prefix: [u8; PREFIX],
    /// The bytes of the prefix that have arrived.
    known: usize,
    /// The bytes of the message still to come.
    rest: usize,
    is_one_complete: bool,
}

impl Messages {
    const fn new(max: usize) -> Self {
        Self { max, prefix: [0; PREFIX], known: 0, rest: 0, is_one_complete: false }
    }

    /// Advances over `piece`. The error is the length of the first message in it that is too large.
    fn take(&mut self, mut piece: &[u8]) -> Result<(), usize> {
        loop {
            let skipped = self.rest.min(piece.len());
            self.rest -= skipped;
            piece = piece.get(skipped..).unwrap_or_default();
            self.is_one_complete |= skipped > 0 && self.rest == 0;
            let Some((first, others)) = piece.split_first() else { return Ok(()) };
            if let Some(place) = self.prefix.get_mut(self.known) {
                *place = *first;
            }
            self.known += 1;
            piece = others;
            if self.known == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.known = 0;
                self.rest = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if self.rest > self.max {
                    return Err(self.rest);
                }
                self.is_one_complete |= self.rest == 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(PREFIX + length as usize, 7);
        bytes
    }

    #[test]
    fn lengths_are_found_wherever_a_stream_is_cut() {
        let stream = [message(3), message(0), message(10), message(11)].concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::new(10);
            let result = stream.chunks(size).try_for_each(|piece| messages.take(piece));
            assert_eq!(result, Err(11), "in pieces of {size}");
            let mut messages = Messages::new(11);
            assert_eq!(stream.chunks(size).try_for_each(|piece| messages.take(piece)), Ok(()));
        }
    }

    #[test]
    fn a_message_is_complete_with_its_last_byte() {
        for length in [0, 1, 3] {
            let mut messages = Messages::new(10);
            let (last, head) =
                message(length).split_last().map(|(last, head)| (*last, head.to_vec())).unwrap();
            messages.take(&head).unwrap();
            assert!(!messages.is_one_complete, "{length}");
            messages.take(&[last]).unwrap();
            assert!(messages.is_one_complete, "{length}");
        }
    }
}
