//! Asks the guard before any service: a layer that knows no messages.
//!
//! If a permission is bound to teams, the handler checks the team. Its refusal carries what was asked for, as an
//! [`OtherTeam`]: as the source of a [`Status`], or among the extensions of an answer that refuses in another protocol's
//! terms.

mod again;
mod refusal;

use std::{
    convert::Infallible,
    error::Error as _,
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio_util::either::Either;
use tonic::{
    Status,
    body::Body,
    codegen::http::{Extensions, HeaderMap, Request, Response, header::AUTHORIZATION},
};
use tower::{Layer, Service};
use tracing::{debug, field};

pub(super) use self::{
    again::Again,
    refusal::{status, within},
};
use crate::{
    access::{Authorization, Credentials, Guard, OtherTeam, Peer, Refusal, Session, Standing, Verdict},
    domain::rbac::{Principal, need_of},
};

/// Everything is permitted, because the policy has no `[access]`. It is zero-sized, so nothing is allocated for it.
#[derive(Clone, Copy, Debug)]
struct Unrestricted;

/// The caller of a request that comes from within the process, among its extensions: the guard recognised it before. Nothing that
/// arrives over a connection can carry it.
#[derive(Clone, Debug)]
pub struct SignedIn(pub Arc<Principal>);

/// Puts a [`Guard`] before a service.
#[derive(Clone, Debug)]
pub struct AccessLayer(Guard);

impl AccessLayer {
    /// A layer that asks `guard`.
    #[must_use]
    pub const fn new(guard: Guard) -> Self {
        Self(guard)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { guard: Arc::new(self.0.clone()), inner }
    }
}

/// A service behind an [`AccessLayer`].
#[derive(Clone, Debug)]
pub struct Access<S> {
    /// Belongs to one core: no other shares its reference count.
    guard: Arc<Guard>,
    inner: S,
}

type Answer = Result<Response<Body>, Infallible>;
/// What is answered at once, or after the token is verified.
type Refused = Either<Ready<Answer>, Pin<Box<dyn Future<Output = Answer> + Send>>>;

impl<S> Service<Request<Body>> for Access<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Refused>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let need = need_of(request.uri().path()).ok_or(Refusal::UnknownRpc);
        match need.and_then(|need| self.guard.judge(need, &credentials_of(&request))) {
            Ok(Verdict::Public) => Either::Left(self.inner.call(request)),
            Ok(Verdict::Unrestricted) => {
                request.extensions_mut().insert(Unrestricted);
                Either::Left(self.inner.call(request))
            }
            Ok(Verdict::Known(principal)) if principal.is_bound() && !self.guard.audit().is_off() => {
                let (guard, mut inner) = (Arc::clone(&self.guard), self.take_ready());
                Either::Right(Either::Right(Box::pin(async move {
                    watched(&guard, &mut inner, request, principal).await
                })))
            }
            Ok(Verdict::Known(principal)) => {
                request.extensions_mut().insert(principal);
                Either::Left(self.inner.call(request))
            }
            Ok(Verdict::Verify { token, need }) => {
                let (guard, mut inner) = (Arc::clone(&self.guard), self.take_ready());
                Either::Right(Either::Right(Box::pin(async move {
                    let (from, path) = (address(request.extensions()), request.uri().path().to_owned());
                    match guard.verified(&token, need, from, &path).await {
                        Ok(principal) => watched(&guard, &mut inner, request, principal).await,
                        Err(refusal) => Ok(refused(&guard, &request, refusal)),
                    }
                })))
            }
            Err(refusal) => Either::Right(Either::Left(ready(Ok(refused(&self.guard, &request, refusal))))),
        }
    }
}

impl<S: Clone> Access<S> {
    /// The service that was polled ready, which is the one to call.
    fn take_ready(&mut self) -> S {
        let next = self.inner.clone();
        std::mem::replace(&mut self.inner, next)
    }
}

/// Calls the service, and records a handler's finding that the caller may not act for that team.
async fn watched<S>(
    guard: &Guard,
    inner: &mut S,
    mut request: Request<Body>,
    principal: Arc<Principal>,
) -> Answer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let (path, from) = (request.uri().path().to_owned(), address(request.extensions()));
    request.extensions_mut().insert(Arc::clone(&principal));
    let answer = inner.call(request).await?;
    if let Some(other) = other_team_of(answer.extensions()) {
        guard.record_other_team(&principal, from, &path, other);
    }
    Ok(answer)
}

/// What was asked for outside the caller's teams, if a handler refused for that reason.
fn other_team_of(answer: &Extensions) -> Option<&OtherTeam> {
    let source = || answer.get::<Status>()?.source()?.downcast_ref();
    answer.get().or_else(source)
}

fn credentials_of(request: &Request<Body>) -> Credentials<'_> {
    credentials(request.headers(), request.extensions(), request.uri().path())
}

/// What a call of the RPC at `path` shows about its caller.
pub fn credentials<'r>(headers: &'r HeaderMap, extensions: &'r Extensions, path: &'r str) -> Credentials<'r> {
    let mut headers = headers.get_all(AUTHORIZATION).iter();
    let authorization = match (extensions.get(), headers.next(), headers.next()) {
        (Some(SignedIn(principal)), ..) => Authorization::Resumed(principal),
        (None, None, _) => Authorization::Absent,
        (None, Some(header), None) => Authorization::Header(header.as_bytes()),
        (None, Some(_), Some(_)) => Authorization::Several,
    };
    Credentials { authorization, peer: extensions.get(), path }
}

/// The caller of a request that the layer let through. A request that did not pass through a layer has no permission.
pub(super) fn session(extensions: &Extensions) -> Session<'_> {
    let standing = match extensions.get::<Arc<Principal>>() {
        Some(principal) => Standing::Known(principal),
        None if extensions.get::<Unrestricted>().is_some() => Standing::Unrestricted,
        None => Standing::Unguarded,
    };
    Session { standing, from: address(extensions) }
}

fn address(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<Peer>().and_then(|peer| peer.address)
}

/// At debug, because anyone who reaches the port can cause as many lines as they like.
fn refused(guard: &Guard, request: &Request<Body>, refusal: Refusal) -> Response<Body> {
    guard.refusals().add(request.uri().path(), refusal.reason());
    let address = address(request.extensions()).map(field::display);
    let status = status(refusal);
    debug!(rpc = request.uri().path(), address, code = ?status.code(), error = status.message(), "caller refused");
    status.into_http()
}
