//! The calls of one connection: each is counted from its beginning to the end of its answer, and knows who sent it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, ServiceExt as _};

use super::{
    record::{OpenCall, Record},
    serving::Protocol,
    unread::{SMALL, Unread},
};
use crate::{
    access::Peer,
    domain::access::{Need, need_of},
};

/// Answers of up to a page that one connection may have made and not yet written: the others are made when it is their turn.
const LISTS: usize = 1;
/// Reflections of one connection, each of which has some of the contract's files in hand.
const REFLECTIONS: usize = 8;

/// What a call may have in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Small,
    /// A page.
    List,
    Reflection,
}

impl Size {
    fn of(path: &str) -> Self {
        let method = path.rsplit('/').next().unwrap_or_default();
        match method {
            "GetSpend" => Self::List,
            // As the contract names whatever answers in pages.
            _ if method.starts_with("List") => Self::List,
            _ if path.starts_with("/grpc.reflection.") => Self::Reflection,
            _ => Self::Small,
        }
    }
}

/// Whether a call is a reason to keep its connection once it was heard. What anyone may ask is none, and neither is reflection,
/// which is asked for by people at a terminal: their streams are open for as long as their clients like.
fn may_claim(path: &str) -> bool {
    matches!(need_of(path), Some(Need::Permission(_)))
}

/// A service for the calls of one connection.
#[derive(Clone)]
pub(super) struct Calls<S> {
    inner: S,
    peer: Peer,
    record: Arc<Record>,
    protocol: Protocol,
    lists: Arc<Semaphore>,
    reflections: Arc<Semaphore>,
}

impl<S> Calls<S> {
    /// Calls of `peer`, answered by `inner`.
    pub(super) fn new(inner: S, peer: Peer, record: Arc<Record>, protocol: Protocol) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { inner, peer, record, protocol, lists: semaphore(LISTS), reflections: semaphore(REFLECTIONS) }
    }

    fn turns(&self, size: Size) -> Option<Arc<Semaphore>> {
        match size {
            Size::Small => None,
            Size::List => Some(Arc::clone(&self.lists)),
            Size::Reflection => Some(Arc::clone(&self.reflections)),
        }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Calls<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin,
{
    type Response = Response<Answer<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let call = self.record.call();
        let turns = self.turns(Size::of(request.uri().path()));
        request.extensions_mut().insert(self.peer.clone());
        match self.protocol {
            // Raised by the body of the request: it is read by a handler, so only once the caller was let through.
            Protocol::Grpc if may_claim(request.uri().path()) => {
                request.extensions_mut().insert(call.claim());
            }
            Protocol::Grpc => {}
            // A page is made within moments, however its client behaves.
            Protocol::Pages => call.claim().raise(),
        }
        let inner = self.inner.clone();
        Box::pin(async move {
            let turn = match turns {
                // It is never closed.
                Some(turns) => turns.acquire_owned().await.ok(),
                None => None,
            };
            let answer = inner.oneshot(request).await?;
            Ok(answer.map(|body| Answer { body, call, is_small_held: false, _turn: turn }))
        })
    }
}

/// The body of an answer. Its call is open as long as this is there; what is in it is counted as unread until it is written.
pub(super) struct Answer<B> {
    body: B,
    call: OpenCall,
    /// Whether a small piece of it was made that the connection has not taken.
    is_small_held: bool,
    _turn: Option<OwnedSemaphorePermit>,
}

impl<B> Answer<B> {
    fn small_is_taken(&mut self) {
        if std::mem::take(&mut self.is_small_held) {
            self.call.unread().release(SMALL);
        }
    }
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.small_is_taken();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // It is asked for more once it has handed on what it had.
        self.small_is_taken();
        ready!(self.call.unread().poll_room(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_small = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Unread::is_small);
        if matches!(&frame, Some(Ok(frame)) if is_small(frame)) {
            self.call.unread().add(SMALL);
            self.is_small_held = true;
        }
        let count = |frame: Frame<Bytes>| frame.map_data(|piece| self.call.unread().count(piece));
        Poll::Ready(frame.map(|frame| frame.map(count)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
