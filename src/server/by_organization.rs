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
use tokio::task::JoinSet;
use tokio_util::either::Either;
use tonic::{Status, body::Body};
use tonic_health::server::HealthReporter;
use tower::Service;
use tracing::{Instrument as _, Span, debug, error, instrument::Instrumented};

use super::{OnCore, request_body::PREFIX, services::Services};
use crate::{
    access::{Chosen, Guard, Named, ORGANIZATION, Organizations, Refusal},
    authorizer::Shared,
    domain::rbac::{Need, Principal, need_of},
    rpc::{Access, Clue, Memberships, caller_refused, clue, credentials, has_clue, store_silent},
    runtime::ORGANIZATION_FIELD,
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
    S: Store + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Instrumented<A::Future>, Found>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All of them always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // What every call of most services takes.
        if let ([service], false) = (&mut *self.services, request.headers().contains_key(NAME)) {
            return Either::Left(service.call(request).instrument(Span::none()));
        }
        let chosen = match needs_one(&request) {
            true => self.organizations.choose(
                Named::of(request.headers().get_all(NAME)),
                &credentials(request.headers(), request.extensions(), request.uri().path()),
            ),
            false => Ok(Chosen::One(0)),
        };
        match chosen {
            // All that the caller is of, which may be none of those whose policies have its issuer.
            Ok(chosen) if request.uri().path() == LIST => {
                let of = match chosen {
                    Chosen::One(place) => vec![place],
                    Chosen::Several(of) => of,
                };
                Either::Right(Either::Right(Box::pin(self.clone().search(of, request))))
            }
            Ok(Chosen::One(place)) => match self.services.get_mut(place) {
                Some(service) => {
                    let span = span(&self.lookups, place);
                    Either::Left(service.call(request).instrument(span))
                }
                None => Either::Right(Either::Left(ready(Ok(missing().into_http())))),
            },
            Ok(Chosen::Several(of)) => {
                Either::Right(Either::Right(Box::pin(self.clone().search(of, request))))
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
    S: Store + Clone,
{
    /// Calls the service of the one of `candidates` that `request` is for.
    async fn search(mut self, candidates: Vec<usize>, request: Request<Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let (mut parts, body) = request.into_parts();
        let credentials = credentials(&parts.headers, &parts.extensions, &path);
        let of = match self.organizations.recognise(&candidates, &credentials).await {
            Ok(known) => permitted(&path, known),
            Err(refusal) => return Ok(self.refused(&path, refusal)),
        };
        let (chosen, body) = match &of[..] {
            _ if path == LIST => {
                let ids = of.iter().filter_map(|place| self.organizations.guards().get(*place));
                parts.extensions.insert(Memberships(ids.map(Guard::organization).collect()));
                (Ok(of.first().copied()), body)
            }
            [one] => (Ok(Some(*one)), body),
            // What is the same for all.
            [first, ..] if need_of(&path) == Some(Need::Identity) => (Ok(Some(*first)), body),
            _ if !has_clue(&path) => (Ok(None), body),
            _ => {
                let mut begun = Begun::new(body);
                let message = begun.first_message().await;
                let clue = message.map_or(Clue::None, |message| clue(&path, &message));
                (find(&self.organizations, &self.lookups, &of, clue).await, Body::new(begun))
            }
        };
        match chosen {
            Ok(Some(place)) => match self.services.get_mut(place) {
                Some(service) => {
                    let span = span(&self.lookups, place);
                    service.call(Request::from_parts(parts, body)).instrument(span).await
                }
                None => Ok(missing().into_http()),
            },
            Ok(None) => Ok(self.refused(&path, Refusal::OrganizationRequired(SEVERAL))),
            Err(Lost::Elsewhere) => Ok(self.refused(&path, Refusal::OtherOrganization)),
            Err(Lost::Silent) => Ok(store_silent().into_http()),
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

/// The span for a call of the organization at `place`. If the call is traced, its own span gets the name instead.
fn span<S>(lookups: &[Lookup<S>], place: usize) -> Span {
    let (current, Some(lookup)) = (Span::current(), lookups.get(place)) else { return Span::none() };
    let live = &lookup.shared.live;
    match (live.span().is_none(), current.has_field(ORGANIZATION_FIELD)) {
        (false, true) => {
            current.record(ORGANIZATION_FIELD, &*live.peek().policy.organization.id);
            Span::none()
        }
        _ => live.span().clone(),
    }
}

/// Why it is not known which organization a call is for, whatever it says.
enum Lost {
    /// It names one that its caller is not of.
    Elsewhere,
    /// A store that may know does not answer.
    Silent,
}

/// Of the organizations that know a caller, those in which it may make a call of the RPC at `path`; all, where it may in none: then the
/// first one says why.
fn permitted(path: &str, known: Vec<(usize, Option<Arc<Principal>>)>) -> Vec<usize> {
    let may = |caller: &Option<Arc<Principal>>| match (need_of(path), caller) {
        (Some(Need::Permission(permission)), Some(caller)) => caller.scope(permission).is_some(),
        _ => true,
    };
    let of: Vec<_> = known.iter().filter(|(_, caller)| may(caller)).map(|(place, _)| *place).collect();
    match (&of[..], &known[..]) {
        ([], [(first, _), ..]) => vec![*first],
        _ => of,
    }
}

/// The one of `of` that the clue leads to; `None`: none. What none of them has is refused by the first as by any.
async fn find<S: Store + Clone>(
    organizations: &Organizations,
    all: &[Lookup<S>],
    of: &[usize],
    clue: Clue,
) -> Result<Option<usize>, Lost> {
    let first = of.first().copied();
    let has_key = |digest: &[u8; 32]| {
        let mut lookups = of.iter().filter_map(|place| Some((*place, all.get(*place)?)));
        lookups.find(|(_, lookup)| lookup.shared.live.has_key(digest)).map(|(place, _)| place)
    };
    // One whose keys were not read yet may have it, and says so.
    let unread = || {
        let is_unread =
            |place: &&usize| all.get(**place).is_some_and(|lookup| lookup.shared.live.peek().is_pending);
        of.iter().find(is_unread).copied()
    };
    match clue {
        Clue::None => Ok(None),
        Clue::Any => Ok(first),
        Clue::Organization(id) => match organizations.find(id.as_bytes()) {
            Some(place) if of.contains(&place) => Ok(Some(place)),
            Some(_) => Err(Lost::Elsewhere),
            None => Ok(None),
        },
        Clue::Key(digest) => Ok(has_key(&digest).or_else(unread).or(first)),
        Clue::Bearer(digest) => Ok(has_key(&digest).or_else(unread)),
        Clue::Reservation(id) => {
            let mut asked = JoinSet::new();
            for (place, lookup) in of.iter().filter_map(|place| Some((*place, all.get(*place)?))) {
                let store = lookup.store.clone();
                asked.spawn(async move { (place, store.find(id).await) });
            }
            let (mut found, mut is_silent) = (Vec::new(), false);
            for (place, answer) in asked.join_all().await {
                match answer {
                    Ok(Some(_)) => found.push(place),
                    Ok(None) => {}
                    Err(_) => is_silent = true,
                }
            }
            match found[..] {
                // The one that is meant may be the one that does not answer.
                _ if is_silent => Err(Lost::Silent),
                [] => Ok(first),
                [one] => Ok(Some(one)),
                // One `request_id` makes one reservation in each organization.
                _ => Ok(None),
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
