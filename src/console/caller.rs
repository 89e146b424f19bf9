//! What stands before every page: the name it was asked by, who asks, and the headers that browsers are told to obey.

use axum::{
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, Method,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, SET_COOKIE,
            X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};

use super::{Console, fault::Fault, view::View};
use crate::{
    access::{Kind, Peer, Resumed},
    http::{PageError, credentials, is_ours, wants_json},
};

/// The console's name in the log of refusals.
const CONSOLE: &str = "/console";

/// Nothing but our own files, no inline code, and no page of others around ours.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Browsers send `Origin: null` with a form from a page that gives no referrer at all, so ours is given to our own pages.
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Answers only what is addressed to this listener.
pub(super) async fn addressed(State(console): State<Console>, request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    let answer = match console.is_addressed_by(&request) {
        true => next.run(request).await,
        false => PageError::foreign_host().answer(&headers),
    };
    guarded(answer)
}

/// The same, for callers that the guard recognises. The page finds its [`View`] in the request.
pub(super) async fn admitted(State(console): State<Console>, mut request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    if !console.is_addressed_by(&request) {
        return guarded(PageError::foreign_host().answer(&headers));
    }
    let view = console.view(&request);
    let (view, renewed) = match view.await {
        Ok(found) => found,
        Err(answer) => return guarded(answer),
    };
    view.count_open_alerts().await;
    request.extensions_mut().insert(view.clone());
    let mut answer = next.run(request).await;
    // What a page could not do is told within the frame.
    if let Some(fault) = answer.extensions_mut().remove::<Fault>() {
        answer = fault.answer(&view, &headers);
    }
    if let Some(renewed) = renewed {
        answer.headers_mut().append(SET_COOKIE, renewed);
    }
    guarded(answer)
}

impl Console {
    /// Where the settings say where the console is, it is asked for there. Else a page of another site, in a browser on this machine,
    /// could show these pages under a name that it points to this address. Beyond this machine and with callers that are known, the
    /// names of the console are many: its certificate has them.
    fn is_addressed_by(&self, request: &Request) -> bool {
        let (guard, door) = (&self.0.guard, &self.0.door);
        if door.is_named() {
            return !door.is_elsewhere(request.headers());
        }
        let is_local = self.0.address.is_some_and(|address| address.ip().is_loopback());
        let is_bound = is_local || !guard.knows_callers();
        !is_bound || is_ours(request, self.0.address, guard.is_open() && !guard.knows_callers())
    }

    /// What the page at `request` is made of, and the cookie of a session that is due for another; or the answer in place of it.
    fn view<'c>(
        &'c self,
        request: &Request,
    ) -> impl Future<Output = Result<(View, Option<HeaderValue>), Response>> + Send + use<'c> {
        let path = request.uri().path();
        let organization = path.split('/').nth(2).unwrap_or_default();
        let snapshot = self.0.live.snapshot();
        let unknown =
            (*organization != *snapshot.policy.organization.id).then(|| PageError::unknown_page(path));
        let peer: Option<Peer> = request.extensions().get().cloned();
        let guard = &self.0.guard;
        let headers = request.headers().clone();
        // A credential in the request itself goes before what the browser keeps.
        let door =
            Some(&self.0.door).filter(|_| guard.knows_callers() && !headers.contains_key(AUTHORIZATION));
        let session = door.and_then(|door| door.session(&headers, peer.as_ref()));
        let address = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        // A script that reads its page again is told that the session is over; and it keeps none from getting idle.
        let is_navigation = headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
        let is_read =
            matches!(*request.method(), Method::GET | Method::HEAD) && !wants_json(&headers) && is_navigation;
        let caller = guard.recognise(&credentials(request, CONSOLE));
        async move {
            if let Some(unknown) = unknown {
                return Err(unknown.answer(&headers));
            }
            let ended = match session {
                Some(Ok(Resumed { principal, signed_in, cookie })) => {
                    let renewed = cookie.filter(|_| is_navigation).zip(door);
                    let renewed =
                        renewed.and_then(|(cookie, door)| door.renewed(&headers, peer.as_ref(), &cookie));
                    let view = View::new(self.clone(), snapshot, Some(principal), peer);
                    return Ok((view.of_session(signed_in), renewed));
                }
                Some(Err(ended)) => Some(ended),
                None => None,
            };
            match (caller.await, door) {
                (Ok(caller), _) => Ok((View::new(self.clone(), snapshot, caller, peer), None)),
                // People are shown the way in; programs are told what is wrong.
                (Err(refusal), Some(door)) if is_read && refusal.kind() == Kind::Unauthenticated => {
                    Err(Redirect::to(&door.detour(&address, ended.as_ref())).into_response())
                }
                (Err(refusal), _) => {
                    guard.refusals().add(CONSOLE, refusal.reason());
                    Err(PageError::refused(refusal).answer(&headers))
                }
            }
        }
    }
}

/// Sets what holds for every page. Pages are kept by no cache; files say themselves how long they may be.
fn guarded(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}
