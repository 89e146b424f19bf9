//! The console: pages for people, on the admin listener.
//!
//! ```text
//! browser ─► caller: who asks? ─► View ─► api: the gRPC services, in process, behind their guard ─► overview, team, … ─► frame ─► HTML
//! ```
//!
//! A page has no data of its own. It asks the services as its reader would over gRPC, so what a reader may see, which team's rows they
//! get and what the audit log says of a change have one home. Pages are whole when they come: a script only keeps them up to date.

mod address;
mod alerts;
mod api;
mod asked;
mod assets;
mod audit;
mod body;
mod caller;
mod decisions;
mod events;
mod fault;
mod fields;
mod frame;
mod keys;
mod overview;
mod parts;
mod pauses;
mod policy;
mod refusal;
mod reports;
mod sign_in;
mod team;
mod text;
mod view;

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse as _, Redirect},
    routing::{any, get, post},
};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use tracing::Instrument as _;

pub use address::ConsoleAddress;
pub use api::InProcess;
pub use events::Streams;
pub use sign_in::Door;

use self::alerts::OpenAlerts;
use crate::{
    access::{Guard, Peer},
    http::PageError,
    live::Live,
    runtime::Runtime,
};

/// The most pages that ask for usage at the same time. Answers are made one after another, and past some that wait for theirs others are
/// refused: a page asks for up to five of them at once.
const USAGE_PAGES: usize = 3;

/// The pages. Cheap to clone.
#[derive(Clone)]
pub struct Console(Arc<Parts>);

struct Parts {
    services: InProcess,
    guard: Guard,
    live: Arc<Live>,
    runtime: Runtime,
    /// Where the listener is, whose names are the console's.
    address: Option<SocketAddr>,
    streams: Streams,
    /// Where people sign in.
    door: Door,
    /// Proposed policies that are received or answered at the same time: each may have 32 MiB.
    proposals: Arc<Semaphore>,
    /// Pages that ask for usage at the same time: see [`USAGE_PAGES`].
    usage: Arc<Semaphore>,
    /// How many alerts are open, for the heads of pages.
    open_alerts: OpenAlerts,
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Console {
    /// Pages that ask `services` for callers that `guard` recognises, on a listener at `address`. What is in `live` names the
    /// organization, its time zone and what is paused. Its streams of events are among `streams`, and people sign in at `door`.
    #[must_use]
    pub fn new(
        services: InProcess,
        guard: Guard,
        live: Arc<Live>,
        runtime: Runtime,
        address: Option<SocketAddr>,
        streams: Streams,
        door: Door,
    ) -> Self {
        let proposals = Arc::new(Semaphore::new(policy::MAX_PROPOSALS));
        let (usage, open_alerts) = (Arc::new(Semaphore::new(USAGE_PAGES)), OpenAlerts::default());
        let parts =
            Parts { services, guard, live, runtime, address, streams, door, proposals, usage, open_alerts };
        Self(Arc::new(parts))
    }

    /// The addresses of the consoles of several organizations; what is the same for all is asked of `first`. Unknown ones are left to others:
    /// they are not found before anyone is asked who they are.
    pub fn router(first: Self, others: Vec<Self>) -> Router {
        let door = first.0.door.clone().router();
        let addressed = middleware::from_fn_with_state(first.clone(), caller::addressed);
        let open = first.clone().open().merge(door.route_layer(addressed));
        if others.is_empty() {
            return open.merge(first.pages());
        }
        let entry = first.0.door.clone();
        let unknown = async |request: Request| {
            let path = request.uri().path().to_owned();
            PageError::unknown_page(&path).answer(request.headers())
        };
        let consoles = std::iter::once(first).chain(others).map(|one| {
            let (organization, span) = (one.0.guard.organization(), one.0.live.span().clone());
            (organization, (one.pages().fallback(unknown), span))
        });
        let routers: Arc<HashMap<_, _>> = Arc::new(consoles.collect());
        let pages = any(move |request: Request| {
            let asked = request.uri().path().split('/').nth(2).and_then(|id| routers.get(id)).cloned();
            let entry = entry.clone();
            async move {
                match asked {
                    // It never fails.
                    Some((router, span)) => {
                        router.oneshot(afresh(request)).instrument(span).await.into_response()
                    }
                    None => entry.unknown(&request),
                }
            }
        });
        open.route("/console/{organization}/", pages.clone()).route("/console/{organization}/{*page}", pages)
    }

    /// The pages of its organization.
    fn pages(self) -> Router {
        let pages = Router::new()
            .route("/console/{organization}/", get(overview::show))
            .route("/console/{organization}/decisions", get(decisions::show))
            .route("/console/{organization}/events", get(events::show))
            .merge(keys::routes())
            .merge(pauses::routes())
            .route("/console/{organization}/teams", get(overview::teams))
            .route("/console/{organization}/teams/{team}", get(team::show))
            .route("/console/{organization}/reports", get(reports::show))
            .route("/console/{organization}/reports.csv", get(reports::csv))
            .route("/console/{organization}/reports.json", get(reports::json))
            .route("/console/{organization}/reports.focus.csv", get(reports::focus))
            .route("/console/{organization}/alerts", get(alerts::show))
            .route("/console/{organization}/alerts/receivers/{receiver}/test", post(alerts::test))
            .route("/console/{organization}/audit", get(audit::show))
            .merge(policy::router())
            .route_layer(middleware::from_fn_with_state(self.clone(), caller::admitted));
        pages.with_state(self)
    }

    /// What is served to anyone.
    fn open(self) -> Router {
        let open = Router::new()
            .route("/", get(home))
            .route("/console", get(home))
            .route("/console/", get(home))
            .route("/assets/{name}", get(assets::show))
            .route("/favicon.ico", get(assets::icon))
            .route_layer(middleware::from_fn_with_state(self.clone(), caller::addressed));
        open.with_state(self)
    }
}

/// The same request without what a router has found in its path: another router would add to it.
fn afresh(request: Request) -> Request {
    let (parts, body) = request.into_parts();
    let mut fresh = Request::new(body);
    *fresh.method_mut() = parts.method;
    *fresh.uri_mut() = parts.uri;
    *fresh.version_mut() = parts.version;
    *fresh.headers_mut() = parts.headers;
    if let Some(peer) = parts.extensions.get::<Peer>() {
        fresh.extensions_mut().insert(peer.clone());
    }
    fresh
}

async fn home(State(console): State<Console>, request: Request) -> Redirect {
    let home = console.0.door.home(request.headers(), request.extensions().get());
    Redirect::to(&home.unwrap_or_else(|| console.0.door.detour("", None)))
}
