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
use tokio::{net::TcpListener, sync::watch};
use tower::ServiceExt as _;
use tracing::{debug, error};

use super::{
    Connections,
    serving::{Protocol, Serving},
    tls::ListenerTls,
};
use crate::{
    access::Guard,
    console::Console,
    domain::rbac::{Need, VERBOSE_READINESS, page_of},
    http::{self, PageError},
    rpc::{PageFault, StatusFacts, proto::GetStatusResponse, to_json},
    spool::SpoolState,
    store::Store,
    telemetry::{Meters, PAGE_TYPE},
};

struct Pages<S> {
    address: Option<SocketAddr>,
    guard: Guard,
    facts: StatusFacts,
    meters: Meters,
    store: S,
}

/// What the pages tell.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The state of the service.
    pub status: StatusFacts,
    /// Its metrics.
    pub meters: Meters,
    /// The pages for people, where they are served.
    pub console: Option<Console>,
}

/// Serves the pages until told to stop, and then until the last request has been answered; each to the callers that `guard` permits.
pub async fn serve<S: Store>(
    listener: TcpListener,
    tls: Option<ListenerTls>,
    guard: Guard,
    Facts { status: facts, meters, console }: Facts,
    connections: Connections,
    store: S,
    stop: watch::Receiver<bool>,
) {
    let address = listener.local_addr().ok();
    let pages = Arc::new(Pages { address, guard, facts, meters, store });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready::<S>))
        .route("/status", get(show::<S>))
        .route("/metrics", get(measure::<S>))
        // What no router knows is refused by what stands before the pages, as they are.
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(middleware::from_fn_with_state(Arc::clone(&pages), guarded::<S>))
        .with_state(pages)
        .merge(console.map(Console::router).unwrap_or_default());
    let service = router.map_request(|request: Request<Incoming>| request.map(axum::body::Body::new));
    let connections = connections.of_pages();
    Serving { protocol: Protocol::Pages, tls, connections, service, stop }.run(listener).await;
}

/// The name of the page that is asked for.
#[derive(Clone, Copy)]
struct Page(&'static str);

/// Lets through callers that are permitted to see the page. No page, and no refusal, is kept by caches.
async fn guarded<S: Store>(State(pages): State<Arc<Pages<S>>>, mut request: Request, next: Next) -> Response {
    let mut answer = match pages.find(&request) {
        Ok((page, need)) => {
            let admitted = pages.guard.admit(need, &http::credentials(&request, page));
            match admitted.await {
                Ok(()) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                    PageError::method_not_allowed().answer(request.headers())
                }
                Ok(()) => {
                    request.extensions_mut().insert(Page(page));
                    next.run(request).await
                }
                Err(refusal) => {
                    pages.guard.refusals().add(page, refusal.reason());
                    debug!(page, error = %refusal, "caller refused");
                    PageError::refused(refusal).answer(request.headers())
                }
            }
        }
        Err(error) => error.answer(request.headers()),
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

impl<S: Store> Pages<S> {
    /// The page that is asked for, and what it requires. An unknown page is not found for anyone.
    fn find(&self, request: &Request) -> Result<(&'static str, Need), PageError> {
        // Without credentials, a page of another site in a browser on this machine could read these pages, under a name that it
        // points to this address.
        if !self.guard.knows_callers() && !http::is_ours(request, self.address, self.guard.is_open()) {
            return Err(PageError::foreign_host());
        }
        page_of(request.uri().path(), request.uri().query())
            .ok_or_else(|| PageError::unknown_page(request.uri().path()))
    }

    /// What decisions need, as they see it.
    async fn checks(&self) -> [Check; 2] {
        let store = self.store.ping().await.map_err(|_| "the store does not answer".to_owned());
        let freshness = self.facts.shared.live.freshness();
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
}

/// One condition of readiness.
struct Check {
    name: &'static str,
    /// Why calls are refused because of it.
    fault: PageFault,
    result: Result<(), String>,
}

/// Readiness follows the decisions: where they would be refused, it is not given.
async fn ready<S: Store>(
    State(pages): State<Arc<Pages<S>>>,
    Extension(Page(page)): Extension<Page>,
    headers: HeaderMap,
) -> Response {
    let checks = pages.checks().await;
    let mut lines = String::new();
    for Check { name, result, .. } in &checks {
        // Writing to a string cannot fail.
        let _ = match result {
            Ok(()) => writeln!(lines, "ok {name}"),
            Err(why) => writeln!(lines, "not ok {name}: {why}"),
        };
    }
    // Beside them: a replica decides without it.
    if let Some(spool) = &pages.facts.shared.spool {
        let _ = writeln!(lines, "{}", spool_line(&spool.state()));
    }
    let is_verbose = page == VERBOSE_READINESS;
    let failed = checks.iter().find_map(|check| Some((check.fault, check.result.as_ref().err()?)));
    match failed {
        None if is_verbose => lines.into_response(),
        None => "ok\n".into_response(),
        Some((fault, why)) => {
            let text = if is_verbose { lines } else { format!("{why}\n") };
            PageError::not_ready(fault, why, text).answer(&headers)
        }
    }
}

/// What the spool says, which changes nothing about readiness.
fn spool_line(state: &SpoolState) -> String {
    let SpoolState { records, refused, bytes, max_bytes, lost, .. } = state;
    let kept = format!("{records} records in {bytes} of {max_bytes} bytes, {refused} refused");
    match lost {
        Some(lost) => format!("not ok spool: {kept}: {lost}"),
        None => format!("ok spool: {kept}"),
    }
}

/// `GetStatus`, in protobuf's JSON.
async fn show<S: Store>(State(pages): State<Arc<Pages<S>>>, headers: HeaderMap) -> Response {
    let status = Some(pages.facts.read(&pages.store).await);
    match to_json(&GetStatusResponse { status }) {
        Ok(json) => Json(json).into_response(),
        Err(error) => {
            error!(%error, "the state cannot be shown");
            PageError::internal("the state cannot be shown").answer(&headers)
        }
    }
}

/// The metrics, in Prometheus' text format. They are made on a thread for that, as many rows take long.
async fn measure<S: Store>(State(pages): State<Arc<Pages<S>>>, headers: HeaderMap) -> Response {
    let meters = pages.meters.clone();
    match tokio::task::spawn_blocking(move || meters.page()).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, PAGE_TYPE)], text.to_string()).into_response(),
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
