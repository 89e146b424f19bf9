//! The calls of one connection: each is counted from its start to the end of its answer, and knows its peer.

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
    domain::rbac::{Need, need_of},
};

/// The answers of up to a page that one connection may hold unwritten; further ones wait for their turn.
const LISTS: usize = 1;
/// The reflection calls of one connection, each of which holds some of the contract's files.
const REFLECTIONS: usize = 8;
/// The longest piece of an answer that h2 copies behind the frames before it: one of 1,024 bytes is written by itself, which costs
/// server and client as much as a decision each.
const GATHERED: usize = 1023;
/// The longest answer that is cut into such pieces: with all limits that a request can have. For a page it makes no difference.
const CUT: usize = 8 * 1024;

/// How much memory a call may hold.
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
            "GetSpend" | "QueryUsage" | "QueryDenials" => Self::List,
            // The contract names every method that answers in pages this way.
            _ if method.starts_with("List") => Self::List,
            _ if path.starts_with("/grpc.reflection.") => Self::Reflection,
            _ => Self::Small,
        }
    }
}

/// Whether the page at `path` is one of the console's.
fn is_of_people(path: &str) -> bool {
    ["/console", "/auth/", "/assets/"].iter().any(|place| path.starts_with(place))
}

/// Whether a call is a reason to keep its connection once a handler reads it. Calls that anyone may make are not, and neither are
/// reflection and decisions that are watched: people ask for these, and their streams stay open for as long as their clients like.
fn may_claim(path: &str) -> bool {
    !path.ends_with("/StreamDecisions") && matches!(need_of(path), Some(Need::Permission(_)))
}

/// A service for the calls of one connection. The one behind it is always ready.
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
        if self.protocol == Protocol::Grpc {
            call.is_of(request.uri().path());
        }
        match self.protocol {
            // The request's body raises it: a handler reads the body, so this happens only after the guard let the caller
            // through.
            Protocol::Grpc if may_claim(request.uri().path()) => {
                request.extensions_mut().insert(call.claim());
            }
            Protocol::Grpc => {}
            // What probes and monitors ask for is made within moments, whatever its client does. A form may be sent slowly, a file be
            // left unread, and a stream of events never ends: those are the first to make room.
            Protocol::Pages if is_of_people(request.uri().path()) => {}
            Protocol::Pages => call.claim().raise(),
        }
        let mut inner = self.inner.clone();
        let Some(turns) = turns else {
            // Called here, as a future that calls it later has room for the request twice.
            let answer = inner.call(request);
            let is_cut = self.protocol == Protocol::Grpc;
            return Box::pin(async move { Ok(Answer::to(answer.await?, call, None, is_cut)) });
        };
        Box::pin(async move {
            // The semaphore is never closed.
            let turn = turns.acquire_owned().await.ok();
            let answer = inner.oneshot(request).await?;
            Ok(Answer::to(answer, call, turn, false))
        })
    }
}

/// The body of an answer. Its call is open while this exists; its content counts as unread until it is written.
pub(super) struct Answer<B> {
    body: B,
    call: OpenCall,
    /// Whether a small piece was made that the connection has not yet taken.
    is_small_held: bool,
    /// Whether it is handed on in pieces that the connection gathers.
    is_cut: bool,
    /// What follows the pieces that were handed on.
    rest: Bytes,
    _turn: Option<OwnedSemaphorePermit>,
}

impl<B> Answer<B> {
    fn to(
        answer: Response<B>,
        call: OpenCall,
        turn: Option<OwnedSemaphorePermit>,
        is_cut: bool,
    ) -> Response<Self>
    where
        B: Body,
    {
        // A refusal has its status here, any other answer behind its body.
        if answer.body().is_end_stream() {
            call.ends_with(answer.headers());
        }
        let whole = |body| Self { body, call, is_small_held: false, is_cut, rest: Bytes::new(), _turn: turn };
        answer.map(whole)
    }

    /// Takes from what is to be handed on as much as goes at once.
    fn next_piece(&mut self) -> Bytes {
        let length = self.rest.len();
        let is_cut = self.is_cut && length <= CUT && length > GATHERED;
        self.rest.split_to(if is_cut { GATHERED } else { length })
    }

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
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.next_piece()))));
        }
        // The connection asks for more only once it has handed on what it had.
        self.small_is_taken();
        ready!(self.call.unread().poll_room(cx));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(trailers) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.trailers_ref()) {
            self.call.ends_with(trailers);
        }
        let is_small = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Unread::is_small);
        if matches!(&frame, Some(Ok(frame)) if is_small(frame)) {
            self.call.unread().add(SMALL);
            self.is_small_held = true;
        }
        let hand_on = |frame: Frame<Bytes>| {
            frame.map_data(|piece| {
                self.rest = self.call.unread().count(piece);
                self.next_piece()
            })
        };
        Poll::Ready(frame.map(|frame| frame.map(hand_on)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
