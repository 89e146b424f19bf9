//! Which organization a call is for.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Frame},
    header::HeaderName,
};
use tokio_util::either::Either;
use tonic::{Status, body::Body};
use tonic_health::server::HealthReporter;
use tower::Service;
use tracing::{debug, error};

use super::{OnCore, request_body::PREFIX, services::Services};
use crate::{
    access::{Chosen, Named, ORGANIZATION, Organizations, Refusal},
    authorizer::Shared,
    domain::rbac::{Need, need_of},
    rpc::{Access, Clue, Memberships, caller_refused, clue, credentials},
    store::Store,
};

/// The RPC that tells of all organizations of its caller.
const LIST: &str = "/tollgate.v1.OrganizationService/ListOrganizations";
const NAME: HeaderName = HeaderName::from_static(ORGANIZATION);
const SEVERAL: &str = "the caller may be of several organizations";

/// Where the organization of a key or a reservation is looked for.
#[derive(Debug)]
struct Lookup<S> {
    shared: Arc<Shared>,
    store: S,
}

/// The services of one organization, behind its guard.
pub(super) type Guarded<S> = Access<Services<S>>;

/// The guarded services of each organization, by their places in `organizations`.
#[derive(Debug)]
pub(super) struct ByOrganization<A, S> {
    organizations: Organizations,
    services: Vec<A>,
    lookups: Arc<[Lookup<S>]>,
}

impl<S: Store + Clone> ByOrganization<Guarded<S>, S> {
    /// The services of `first` and `others` on this core.
    pub(super) fn new(first: &OnCore<S>, others: &[OnCore<S>], health: &HealthReporter) -> Self {
        let all = || std::iter::once(first).chain(others);
        let guards = others.iter().map(|one| one.parts.guard.clone());
        let lookup = |one: &OnCore<S>| Lookup { shared: Arc::clone(&one.shared), store: one.store.clone() };
        Self {
            organizations: Organizations::new(first.parts.guard.clone(), guards),
            services: all().map(|one| one.guarded(health)).collect(),
            lookups: all().map(lookup).collect(),
        }
    }
}

impl<A: Clone, S> Clone for ByOrganization<A, S> {
    fn clone(&self) -> Self {
        let (organizations, lookups) = (self.organizations.clone(), Arc::clone(&self.lookups));
        Self { organizations, services: self.services.clone(), lookups }
    }
}

type Answer = Result<Response<Body>, Infallible>;
/// What is answered at once, or after the organization was looked for.
type Found = Either<Ready<Answer>, Pin<Box<dyn Future<Output = Answer> + Send>>>;

impl<A, S> Service<Request<Body>> for ByOrganization<A, S>
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    A::Future: Send,
    S: Store,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<A::Future, Found>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All of them always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // What every call of most services takes.
        if let ([service], false) = (&mut *self.services, request.headers().contains_key(NAME)) {
            return Either::Left(service.call(request));
        }
        let chosen = match needs_one(&request) {
            true => self.organizations.choose(
                Named::of(request.headers().get_all(NAME)),
                &credentials(request.headers(), request.extensions(), request.uri().path()),
            ),
            false => Ok(Chosen::One(0)),
        };
        match chosen {
            Ok(Chosen::One(place)) => match self.services.get_mut(place) {
                Some(service) => Either::Left(service.call(request)),
                None => Either::Right(Either::Left(ready(Ok(missing().into_http())))),
            },
            Ok(Chosen::Several(of)) => {
                let searching = self.clone();
                Either::Right(Either::Right(Box::pin(searching.search(of, request))))
            }
            Err(refusal) => {
                Either::Right(Either::Left(ready(Ok(self.refused(request.uri().path(), refusal)))))
            }
        }
    }
}

impl<A, S> ByOrganization<A, S>
where
    A: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Store,
{
    /// Calls the service of the one of `candidates` that `request` is for.
    async fn search(mut self, candidates: Vec<usize>, request: Request<Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let (mut parts, body) = request.into_parts();
        let known = self
            .organizations
            .recognise(&candidates, &credentials(&parts.headers, &parts.extensions, &path))
            .await;
        let of: Vec<_> = match known {
            Ok(known) => known.into_iter().map(|(place, _)| place).collect(),
            Err(refusal) => return Ok(self.refused(&path, refusal)),
        };
        let (chosen, body) = match &of[..] {
            [one] => (Some(*one), body),
            [first, ..] if path == LIST => {
                let ids = of.iter().filter_map(|place| self.organizations.guards().get(*place));
                parts.extensions.insert(Memberships(ids.map(crate::access::Guard::organization).collect()));
                (Some(*first), body)
            }
            // What is the same for all.
            [first, ..] if need_of(&path) == Some(Need::Identity) => (Some(*first), body),
            _ => {
                let mut begun = Begun::new(body);
                let message = begun.first_message().await;
                let clue = message.map_or(Clue::None, |message| clue(&path, &message));
                (find(&self.organizations, &self.lookups, &of, clue).await, Body::new(begun))
            }
        };
        match chosen {
            Some(place) => match self.services.get_mut(place) {
                Some(service) => service.call(Request::from_parts(parts, body)).await,
                None => Ok(missing().into_http()),
            },
            None => Ok(self.refused(&path, Refusal::OrganizationRequired(SEVERAL))),
        }
    }
}

impl<A, S> ByOrganization<A, S> {
    fn refused(&self, path: &str, refusal: Refusal) -> Response<Body> {
        if let Some(guard) = self.organizations.guards().first() {
            guard.refusals().add(path, refusal.reason());
        }
        debug!(rpc = path, error = %refusal, "caller refused");
        caller_refused(refusal).into_http()
    }
}

/// The one of `of` that the clue leads to. What none of them has is refused by the first as by any.
async fn find<S: Store>(
    organizations: &Organizations,
    all: &[Lookup<S>],
    of: &[usize],
    clue: Clue,
) -> Option<usize> {
    let lookups = || of.iter().filter_map(|place| Some((*place, all.get(*place)?)));
    let first = of.first().copied();
    match clue {
        Clue::None => None,
        Clue::Any => first,
        Clue::Organization(id) => organizations.find(id.as_bytes()).filter(|place| of.contains(place)),
        Clue::Key(digest) => {
            let has = lookups().find(|(_, lookup)| lookup.shared.live.has_key(&digest));
            has.map(|(place, _)| place).or(first)
        }
        Clue::Reservation(id) => {
            let (mut found, mut silent) = (Vec::new(), None);
            for (place, lookup) in lookups() {
                match lookup.store.find(id).await {
                    Ok(Some(_)) => found.push(place),
                    Ok(None) => {}
                    // Its answer says that it could not be found out.
                    Err(_) => silent = silent.or(Some(place)),
                }
            }
            match found[..] {
                [] => silent.or(first),
                [one] if silent.is_none() => Some(one),
                // One `request_id` makes one reservation in each organization.
                _ => None,
            }
        }
    }
}

/// Whether a call is for an organization. What needs no caller, and what there is not, is the same for all.
fn needs_one(request: &Request<Body>) -> bool {
    !matches!(need_of(request.uri().path()), None | Some(Need::Nothing))
}

fn missing() -> Status {
    error!("an organization has no services");
    Status::internal("an organization has no services")
}

/// A body whose beginning was read, and is read once more.
struct Begun {
    /// The pieces that were read, and what became of the reading in the end.
    read: VecDeque<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl Begun {
    const fn new(rest: Body) -> Self {
        Self { read: VecDeque::new(), rest }
    }

    /// The first message, without the prefix that gRPC gives it. The body bounds its size. `None`: it ends before, or fails.
    async fn first_message(&mut self) -> Option<Bytes> {
        let mut bytes = Vec::new();
        loop {
            if let Some([_, length @ ..]) = bytes.first_chunk::<PREFIX>() {
                let end = PREFIX.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
                if let Some(message) = bytes.get(PREFIX..end) {
                    return Some(Bytes::copy_from_slice(message));
                }
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx)).await?;
            let piece = frame.as_ref().ok().and_then(Frame::data_ref);
            let is_data = piece.inspect(|piece| bytes.extend_from_slice(piece)).is_some();
            self.read.push_back(frame);
            if !is_data {
                return None;
            }
        }
    }
}

impl hyper::body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}
