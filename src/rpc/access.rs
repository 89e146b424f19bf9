//! Who may ask: a layer around all services that recognises the caller and looks at what the RPC needs.
//!
//! Who is calling is, in this order: the holder of the bearer token in `authorization`; else whom the client certificate
//! names; else, without `[access]` in the policy and on loopback only, anybody. A credential that names nobody is refused,
//! also where another one beside it would do.
//!
//! The layer knows no messages. Where a permission is bound to teams, the handler looks at the team, with [`scope`], and its
//! refusal brings along what was asked for, as an [`OtherTeam`].

mod refusal;
pub(super) mod unreserved;

use std::{
    convert::Infallible,
    error::Error as _,
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use thiserror::Error;
use tokio_util::either::Either;
use tonic::{
    Status,
    body::Body,
    codegen::http::{Extensions, Request, Response, header::AUTHORIZATION},
};
use tower::{Layer, Service};
use tracing::debug;

pub(super) use self::refusal::other_team;
use self::refusal::{closed, invalid, missing, unauthenticated, unknown_rpc};
use super::peer::Peer;
use crate::{
    audit::{Audit, Change, action},
    domain::{
        access::{AccessPolicy, Need, Permission, Principal, Scope, need_of, page_need},
        actor::Actor,
        policy::Policy,
    },
    identity::Verifier,
    store::clock::Clock,
};

/// Everything is permitted, as the policy has no `[access]`. It takes no room, so that nothing is allocated for it.
#[derive(Clone, Copy, Debug)]
struct Unrestricted;

/// Recognises callers and refuses what they may not ask.
#[derive(Clone, Debug)]
pub struct AccessLayer {
    /// The policy in force.
    pub policy: Arc<ArcSwap<Policy>>,
    /// Shared by all cores: a token that one has verified is known to the others.
    pub verifier: Arc<Verifier>,
    /// By which tokens end.
    pub clock: Clock,
    /// Whether, without `[access]`, callers from elsewhere may ask as well.
    pub open: bool,
    /// Where it is recorded whom their roles did not permit what they asked.
    pub audit: Audit,
}

impl AccessLayer {
    /// By the policy that is in `policy`, which `clock` tells the time of; `open`: without `[access]` callers from elsewhere may
    /// ask as well. Whom their roles do not permit what they ask is recorded in `audit`.
    #[must_use]
    pub fn new(policy: Arc<ArcSwap<Policy>>, clock: Clock, open: bool, audit: Audit) -> Self {
        Self { policy, verifier: Arc::default(), clock, open, audit }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { gate: Arc::new(self.clone()), inner }
    }
}

/// A service behind an [`AccessLayer`].
#[derive(Clone, Debug)]
pub struct Access<S> {
    /// Of one core: its count of clones is shared with no other.
    gate: Arc<AccessLayer>,
    inner: S,
}

type Answer = Result<Response<Body>, Infallible>;
/// What is answered at once, or after the token was verified.
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
        let policy = self.gate.policy.load();
        let need = need_of(request.uri().path()).ok_or_else(unknown_rpc);
        match need.and_then(|need| self.gate.judge(&policy, need, &request)) {
            Ok(Verdict::Anybody) => Either::Left(self.inner.call(request)),
            Ok(Verdict::Unrestricted) => {
                request.extensions_mut().insert(Unrestricted);
                Either::Left(self.inner.call(request))
            }
            Ok(Verdict::Known(principal)) if principal.is_bound() && !self.gate.audit.is_off() => {
                let (gate, mut inner) = (Arc::clone(&self.gate), self.take_ready());
                Either::Right(Either::Right(Box::pin(async move {
                    gate.watched(&mut inner, request, principal).await
                })))
            }
            Ok(Verdict::Known(principal)) => {
                request.extensions_mut().insert(principal);
                Either::Left(self.inner.call(request))
            }
            Ok(Verdict::Verify { token, need }) => {
                let (gate, policy) = (Arc::clone(&self.gate), Arc::clone(&policy));
                let mut inner = self.take_ready();
                Either::Right(Either::Right(Box::pin(async move {
                    let (from, path) = (address(&request), request.uri().path().to_owned());
                    match gate.verified(&policy, &token, need, from, &path).await {
                        Ok(principal) => gate.watched(&mut inner, request, principal).await,
                        Err(status) => Ok(refused(&request, &status)),
                    }
                })))
            }
            Err(status) => Either::Right(Either::Left(ready(Ok(refused(&request, &status))))),
        }
    }
}

impl<S: Clone> Access<S> {
    /// The service that was polled to be ready, which is the one to call.
    fn take_ready(&mut self) -> S {
        let next = self.inner.clone();
        std::mem::replace(&mut self.inner, next)
    }
}

/// That what was asked for is of a team out of the caller's reach, and what that was: as the parser left it, and so bounded.
/// It goes to the layer, for the audit log, and never to the caller: as the source of a [`Status`], or among the extensions
/// of an answer that refuses in words of another protocol.
#[derive(Clone, Debug, Error)]
#[error("the caller's teams are others")]
pub(super) enum OtherTeam {
    /// A team, named or shown by a key of it.
    Team(String),
    /// The key of this name, if there is one.
    Key(String),
    /// Something that names neither.
    Unnamed,
}

impl OtherTeam {
    fn found_in(answer: &Extensions) -> Option<&Self> {
        let source = || answer.get::<Status>()?.source()?.downcast_ref();
        answer.get().or_else(source)
    }

    /// As the audit log shows it.
    fn recorded(&self) -> Value {
        match self {
            Self::Team(team) => json!({ "team": team }),
            Self::Key(key) => json!({ "key": key }),
            Self::Unnamed => Value::Null,
        }
    }
}

/// What becomes of a call that is not refused at once.
enum Verdict {
    /// It needs nothing.
    Anybody,
    /// The policy knows no callers.
    Unrestricted,
    /// It is by somebody who may ask it.
    Known(Arc<Principal>),
    /// It is by a token that has to be verified first.
    Verify { token: String, need: Need },
}

impl AccessLayer {
    /// Whether whoever sent `request` may have what needs `need`, for what is not a call of gRPC.
    ///
    /// # Errors
    /// Where they may not, or it cannot be told.
    pub fn admit<'a, B>(
        &'a self,
        need: Need,
        request: &Request<B>,
    ) -> impl Future<Output = Result<(), Status>> + Send + use<'a, B> {
        let policy = self.policy.load_full();
        let verdict = self.judge(&policy, need, request);
        // The request itself is not kept: its body may be of one thread only.
        let (from, path) = (address(request), request.uri().path().to_owned());
        async move {
            match verdict? {
                Verdict::Verify { token, need } => {
                    self.verified(&policy, &token, need, from, &path).await.map(drop)
                }
                Verdict::Anybody | Verdict::Unrestricted | Verdict::Known(_) => Ok(()),
            }
        }
    }

    fn judge<B>(&self, policy: &Policy, need: Need, request: &Request<B>) -> Result<Verdict, Status> {
        if need == Need::Nothing {
            return Ok(Verdict::Anybody);
        }
        let peer = request.extensions().get::<Peer>();
        let Some(access) = &policy.access else {
            return match self.open || peer.is_some_and(|peer| peer.is_loopback) {
                true => Ok(Verdict::Unrestricted),
                false => Err(closed()),
            };
        };
        let mut headers = request.headers().get_all(AUTHORIZATION).iter();
        let principal = match (headers.next(), headers.next()) {
            (Some(header), None) => {
                let token = header.to_str().ok().and_then(bearer);
                let token = token.ok_or_else(|| invalid("`authorization` is not `Bearer` and a token"))?;
                match self.verifier.known(policy, access, token, self.clock.now()) {
                    Some(known) => known.map_err(unauthenticated)?,
                    None => return Ok(Verdict::Verify { token: token.to_owned(), need }),
                }
            }
            (Some(_), Some(_)) => return Err(invalid("there is more than one `authorization`")),
            (None, _) => by_certificate(access, peer)?,
        };
        self.permitted(&principal, need, address(request), request.uri().path())?;
        Ok(Verdict::Known(principal))
    }

    /// The holder of `token`, who may have what needs `need`.
    async fn verified(
        &self,
        policy: &Policy,
        token: &str,
        need: Need,
        from: Option<SocketAddr>,
        path: &str,
    ) -> Result<Arc<Principal>, Status> {
        let access = policy.access.as_ref().ok_or_else(closed)?;
        let verified = self.verifier.verify(policy, access, token, self.clock.now()).await;
        let principal = verified.map_err(unauthenticated)?;
        self.permitted(&principal, need, from, path).map(|()| principal)
    }

    fn permitted(
        &self,
        principal: &Principal,
        need: Need,
        from: Option<SocketAddr>,
        path: &str,
    ) -> Result<(), Status> {
        match need {
            Need::Permission(permission) if principal.scope(permission).is_none() => {
                denied(&self.audit, principal, from, path, "PERMISSION_MISSING", Value::Null);
                Err(missing(permission))
            }
            Need::Permission(_) | Need::Identity | Need::Nothing => Ok(()),
        }
    }

    /// Calls, and records where the handler found that the caller's teams are others.
    async fn watched<S>(&self, inner: &mut S, mut request: Request<Body>, principal: Arc<Principal>) -> Answer
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let (path, from) = (request.uri().path().to_owned(), address(&request));
        request.extensions_mut().insert(Arc::clone(&principal));
        let answer = inner.call(request).await?;
        if let Some(other) = OtherTeam::found_in(answer.extensions()) {
            denied(&self.audit, &principal, from, &path, "TEAM_NOT_PERMITTED", other.recorded());
        }
        Ok(answer)
    }
}

fn denied(
    audit: &Audit,
    who: &Principal,
    from: Option<SocketAddr>,
    path: &str,
    outcome: &'static str,
    asked: Value,
) {
    audit.denied(who, || Change {
        actor: Actor::caller(Some(who), from),
        action: action::ROLE_DENIED,
        subject: match page_need(path) {
            Some(_) => format!("GET {path}"),
            None => path.trim_start_matches('/').to_owned(),
        },
        before: Value::Null,
        after: asked,
        outcome,
    });
}

/// How far a caller reaches whose call goes on after it was let through, and where it is recorded that they went further.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) scope: Scope,
    /// `None`: nobody is told apart, and nothing is out of reach.
    caller: Option<Arc<Principal>>,
    from: Option<SocketAddr>,
    path: &'static str,
    audit: Audit,
}

impl Reach {
    /// Of whoever called the RPC at `path`.
    ///
    /// # Errors
    /// Where they have the permission over no team.
    pub(super) fn of(
        extensions: &Extensions,
        permission: Permission,
        path: &'static str,
        audit: Audit,
    ) -> Result<Self, Status> {
        let scope = scope(extensions, permission)?;
        let caller = extensions.get::<Arc<Principal>>().cloned();
        let from = extensions.get::<Peer>().and_then(|peer| peer.address);
        Ok(Self { scope, caller, from, path, audit })
    }

    /// Records that `other` is out of reach.
    pub(super) fn refuse(&self, other: &OtherTeam) {
        if let Some(caller) = &self.caller {
            denied(&self.audit, caller, self.from, self.path, "TEAM_NOT_PERMITTED", other.recorded());
        }
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn by_certificate(access: &AccessPolicy, peer: Option<&Peer>) -> Result<Arc<Principal>, Status> {
    let identities = peer.map(|peer| &*peer.identities).unwrap_or_default();
    let known = identities.iter().find_map(|identity| access.certificates.get(identity));
    known.cloned().ok_or_else(|| match identities.is_empty() {
        true => refusal::no_credential(),
        false => refusal::unknown_certificate(),
    })
}

fn address<B>(request: &Request<B>) -> Option<SocketAddr> {
    request.extensions().get::<Peer>().and_then(|peer| peer.address)
}

/// The teams over which whoever sent a request has `permission`.
///
/// # Errors
/// Where there are none. A request that passed no layer is one of nobody.
pub(super) fn scope(extensions: &Extensions, permission: Permission) -> Result<Scope, Status> {
    match extensions.get::<Arc<Principal>>() {
        Some(principal) => principal.scope(permission).ok_or_else(|| missing(permission)),
        None if extensions.get::<Unrestricted>().is_some() => Ok(Scope::All),
        None => Err(closed()),
    }
}

/// Who sent a request, for the audit log.
pub(super) fn actor(extensions: &Extensions) -> Actor {
    let principal = extensions.get::<Arc<Principal>>().map(AsRef::as_ref);
    Actor::caller(principal, extensions.get::<Peer>().and_then(|peer| peer.address))
}

/// Refuses what concerns a team that is not in `scope`. What is said is the same whether there is such a team or not.
pub(super) fn within(scope: &Scope, team: &str, permission: Permission) -> Result<(), Status> {
    match scope.holds(team) {
        true => Ok(()),
        false if team.is_empty() => Err(other_team(permission, OtherTeam::Unnamed)),
        false => Err(other_team(permission, OtherTeam::Team(team.to_owned()))),
    }
}

/// At debug, as anybody who reaches the port can cause as many lines as they like.
fn refused(request: &Request<Body>, status: &Status) -> Response<Body> {
    let peer = address(request);
    debug!(rpc = request.uri().path(), ?peer, code = ?status.code(), reason = status.message(), "caller refused");
    status.clone().into_http()
}
