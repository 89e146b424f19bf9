//! The admin listener: liveness, readiness, the state of the service, its metrics and the console, over HTTP, apart from the gRPC port.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tower::ServiceExt as _;
use tracing::{debug, error};

use super::{
    Connections,
    serving::{Protocol, Serving},
    tls::ListenerTls,
};
use crate::{
    access::{Chosen, Guard, Organizations, Refusal},
    console::Console,
    domain::rbac::{Need, VERBOSE_READINESS, page_of},
    http::{self, PageError},
    rpc::{PageFault, StatusFacts, proto::GetStatusResponse, to_json},
    spool::SpoolState,
    store::{Store, answers},
    telemetry::{Meters, ORGANIZATION, PAGE_TYPE},
};

/// What the pages tell of one organization.
pub struct PagesOf<S> {
    /// Who may see them.
    pub guard: Guard,
    /// The state of its service.
    pub status: StatusFacts,
    /// Its store, which is asked whether it answers.
    pub store: S,
    /// Its pages for people, where they are served.
    pub console: Option<Console>,
}

struct Pages<S> {
    address: Option<SocketAddr>,
    organizations: Organizations,
    /// In the same order.
    of: Vec<(StatusFacts, S)>,
    meters: Meters,
}

/// Serves the pages of `first` and `others` until told to stop, and then until the last request has been answered; each to the callers
/// that its organization's guard permits.
pub async fn serve<S: Store + Clone>(
    listener: TcpListener,
    tls: Option<ListenerTls>,
    (first, others, meters): (PagesOf<S>, Vec<PagesOf<S>>, Meters),
    connections: Connections,
    stop: watch::Receiver<bool>,
) {
    let address = listener.local_addr().ok();
    let guards = others.iter().map(|pages| pages.guard.clone());
    let organizations = Organizations::new(first.guard.clone(), guards);
    let (mut of, mut consoles) = (Vec::new(), Vec::new());
    for PagesOf { status, store, console, .. } in std::iter::once(first).chain(others) {
        of.push((status, store));
        consoles.extend(console);
    }
    let pages = Arc::new(Pages { address, organizations, of, meters });
    let mut consoles = consoles.into_iter();
    let console = consoles.next().map(|first| Console::router(first, consoles.collect()));
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S>))
        .route("/status", get(show::<S>))
        .route("/metrics", get(measure::<S>))
        // What no router knows is refused by what stands before the pages, as they are.
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(middleware::from_fn_with_state(Arc::clone(&pages), guarded::<S>))
        .with_state(pages)
        .merge(console.unwrap_or_default());
    let service = router.map_request(|request: Request<Incoming>| request.map(axum::body::Body::new));
    let connections = connections.of_pages();
    Serving { protocol: Protocol::Pages, tls, connections, service, stop }.run(listener).await;
}

/// The page that is asked for: its name, and the places of the organizations that it is to tell of.
#[derive(Clone)]
struct Page {
    name: &'static str,
    of: Arc<[usize]>,
}

/// Lets through callers that are permitted to see the page. No page, and no refusal, is kept by caches.
async fn guarded<S: Store + Clone>(
    State(pages): State<Arc<Pages<S>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut answer = match pages.find(&request) {
        Ok((name, need)) => match pages.admit(&request, name, need).await {
            Ok(_) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                PageError::method_not_allowed().answer(request.headers())
            }
            Ok(of) => {
                request.extensions_mut().insert(Page { name, of: of.into() });
                next.run(request).await
            }
            Err(refusal) => {
                pages.organizations.first().refusals().add(name, refusal.reason());
                debug!(page = name, error = %refusal, "caller refused");
                PageError::refused(refusal).answer(request.headers())
            }
        },
        Err(error) => error.answer(request.headers()),
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

impl<S: Store + Clone> Pages<S> {
    /// The page that is asked for, and what it requires. An unknown page is not found for anyone.
    fn find(&self, request: &Request) -> Result<(&'static str, Need), PageError> {
        // Without credentials, a page of another site in a browser on this machine could read these pages, under a name that it
        // points to this address.
        let is_open =
            |guard: &Guard| !guard.knows_callers() && !http::is_ours(request, self.address, guard.is_open());
        if self.organizations.guards().iter().any(is_open) {
            return Err(PageError::foreign_host());
        }
        page_of(request.uri().path(), request.uri().query())
            .ok_or_else(|| PageError::unknown_page(request.uri().path()))
    }

    /// The organizations that the page is to tell this caller of: all, of a page that is for anyone.
    fn admit<'p>(
        &'p self,
        request: &Request,
        name: &'static str,
        need: Need,
    ) -> impl Future<Output = Result<Vec<usize>, Refusal>> + Send + use<'p, S> {
        let credentials = http::credentials(request, name);
        let chosen = match need {
            Need::Nothing => Ok((0..self.of.len()).collect()),
            Need::Identity | Need::Permission(_) => {
                let chosen = self.organizations.choose(http::organization(request), &credentials);
                chosen.map(|chosen| match chosen {
                    Chosen::One(place) => vec![place],
                    Chosen::Several(places) => places,
                })
            }
        };
        let verdicts = chosen.map(|places: Vec<usize>| {
            let admitted = places.into_iter().filter_map(|place| {
                let guard = self.organizations.guards().get(place)?;
                Some((place, guard.admit(need, &credentials)))
            });
            admitted.collect::<Vec<_>>()
        });
        async move {
            let (mut admitted, mut refused) = (Vec::new(), None);
            for (place, verdict) in verdicts? {
                match verdict.await {
                    Ok(()) => admitted.push(place),
                    Err(refusal) => refused = refused.or(Some(refusal)),
                }
            }
            match refused.filter(|_| admitted.is_empty()) {
                Some(refusal) => Err(refusal),
                None => Ok(admitted),
            }
        }
    }
}

/// What decisions of an organization need, as they see it.
async fn checks<S: Store>(facts: StatusFacts, store: S) -> [Check; 2] {
    let is_there = answers(&store).await;
    let store = if is_there { Ok(()) } else { Err("the store does not answer".to_owned()) };
    let freshness = facts.shared.live.freshness();
    let age = freshness.age();
    let registry = match (freshness.is_fresh(), age) {
        (true, _) => Ok(()),
        (false, None) => Err("the store's registry was not read in time: not at all".to_owned()),
        (false, Some(age)) => {
            let seconds = age.as_secs_f64();
            Err(format!("the store's registry was not read in time: the last time {seconds:.1} s ago"))
        }
    };
    [
        Check { name: "store", fault: PageFault::StoreUnavailable, result: store },
        Check { name: "registry", fault: PageFault::SnapshotStale, result: registry },
    ]
}

/// One condition of readiness.
struct Check {
    name: &'static str,
    /// Why calls are refused because of it.
    fault: PageFault,
    result: Result<(), String>,
}

/// Readiness follows the decisions: where they would be refused, it is not given. With several organizations, one for which decisions can
/// be made is enough: the others are refused by every replica.
async fn ready<S: Store + Clone>(
    State(pages): State<Arc<Pages<S>>>,
    Extension(Page { name, of }): Extension<Page>,
    headers: HeaderMap,
) -> Response {
    let (mut lines, mut is_ready, mut failed) = (String::new(), false, None);
    let mut asked = JoinSet::new();
    for (place, (facts, store)) in of.iter().filter_map(|place| Some((*place, pages.of.get(*place)?))) {
        let (facts, store) = (facts.clone(), store.clone());
        asked.spawn(async move { (place, checks(facts, store).await) });
    }
    let mut found = Vec::new();
    while let Some(Ok((place, checks))) = asked.join_next().await {
        let is_enough = name != VERBOSE_READINESS && checks.iter().all(|check| check.result.is_ok());
        found.push((place, checks));
        // It is ready, whatever the others say.
        if is_enough {
            break;
        }
    }
    found.sort_by_key(|(place, _)| *place);
    for (place, checks) in found {
        let Some((facts, _)) = pages.of.get(place) else { continue };
        let suffix = match pages.of.len() {
            1 => String::new(),
            _ => format!(" of {}", facts.shared.live.peek().policy.organization.id),
        };
        for Check { name, result, .. } in &checks {
            // Writing to a string cannot fail.
            let _ = match result {
                Ok(()) => writeln!(lines, "ok {name}{suffix}"),
                Err(why) => writeln!(lines, "not ok {name}{suffix}: {why}"),
            };
        }
        // Beside them: a replica decides without it.
        if let Some(spool) = &facts.shared.spool {
            let _ = writeln!(lines, "{}", spool_line(&suffix, &spool.state()));
        }
        let fault = checks.into_iter().find_map(|check| Some((check.fault, check.result.err()?)));
        is_ready |= fault.is_none();
        failed = failed.or(fault);
    }
    let is_verbose = name == VERBOSE_READINESS;
    match failed.filter(|_| !is_ready) {
        None if is_verbose => lines.into_response(),
        None => "ok\n".into_response(),
        Some((fault, why)) => {
            let text = if is_verbose { lines } else { format!("{why}\n") };
            PageError::not_ready(fault, &why, text).answer(&headers)
        }
    }
}

/// What the spool says, which changes nothing about readiness.
fn spool_line(suffix: &str, state: &SpoolState) -> String {
    let SpoolState { records, refused, bytes, max_bytes, .. } = state;
    let kept = format!("{records} records in {bytes} of {max_bytes} bytes, {refused} refused");
    match state.fault() {
        fault if fault.is_empty() => format!("ok spool{suffix}: {kept}"),
        fault => format!("not ok spool{suffix}: {kept}: {fault}"),
    }
}

/// `GetStatus`, in protobuf's JSON.
async fn show<S: Store + Clone>(
    State(pages): State<Arc<Pages<S>>>,
    Extension(Page { of, .. }): Extension<Page>,
    headers: HeaderMap,
) -> Response {
    let [place] = &*of else {
        let refusal = Refusal::OrganizationRequired("the status is that of one organization");
        return PageError::refused(refusal).answer(&headers);
    };
    let Some((facts, store)) = pages.of.get(*place) else {
        return PageError::internal("the state cannot be shown").answer(&headers);
    };
    let status = Some(facts.read(store).await);
    match to_json(&GetStatusResponse { status }) {
        Ok(json) => Json(json).into_response(),
        Err(error) => {
            error!(%error, "the state cannot be shown");
            PageError::internal("the state cannot be shown").answer(&headers)
        }
    }
}

/// The metrics, in Prometheus' text format, without the rows of organizations that the caller is not of. They are made on a thread for
/// that, as many rows take long.
async fn measure<S: Store + Clone>(
    State(pages): State<Arc<Pages<S>>>,
    Extension(Page { of, .. }): Extension<Page>,
    headers: HeaderMap,
) -> Response {
    let meters = pages.meters.clone();
    let all = pages.organizations.guards().iter().enumerate();
    let hidden = all.filter(|(place, _)| !of.contains(place)).map(|(_, guard)| guard.organization());
    let hidden: Vec<_> = hidden.collect();
    match tokio::task::spawn_blocking(move || meters.page().map(|page| without(&page, &hidden))).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, PAGE_TYPE)], text).into_response(),
        Ok(Err(error)) => {
            error!(%error, "the metrics cannot be shown");
            PageError::internal("the metrics cannot be shown").answer(&headers)
        }
        Err(error) => {
            error!(%error, "making the page of metrics panicked");
            PageError::internal("the metrics cannot be shown").answer(&headers)
        }
    }
}

/// The page without the rows of these organizations.
fn without(page: &str, hidden: &[Arc<str>]) -> String {
    if hidden.is_empty() {
        return page.to_owned();
    }
    // Ids have no letter that would be escaped, and no label's name ends in this one.
    let labels: Vec<_> = hidden.iter().map(|id| format!("{ORGANIZATION}=\"{id}\"")).collect();
    let is_shown = |line: &&str| line.starts_with('#') || !labels.iter().any(|label| line.contains(label));
    page.split_inclusive('\n').filter(is_shown).collect()
}
