//! What stands before every page: the name it was asked by, who asks, and the headers that browsers are told to obey.

use axum::{
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};

use super::{Console, fault::Fault, view::View};
use crate::http::{PageError, credentials, is_ours};

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
    let view = match view.await {
        Ok(view) => view,
        Err(error) => return guarded(error.answer(&headers)),
    };
    request.extensions_mut().insert(view.clone());
    let mut answer = next.run(request).await;
    // What a page could not do is told within the frame.
    if let Some(fault) = answer.extensions_mut().remove::<Fault>() {
        answer = fault.answer(&view, &headers);
    }
    guarded(answer)
}

impl Console {
    /// Without credentials, a page of another site in a browser on this machine could read these pages, under a name that it points to
    /// this address.
    fn is_addressed_by(&self, request: &Request) -> bool {
        let guard = &self.0.guard;
        guard.knows_callers() || is_ours(request, self.0.address, guard.is_open())
    }

    /// What the page at `request` is made of.
    fn view<'c>(
        &'c self,
        request: &Request,
    ) -> impl Future<Output = Result<View, PageError>> + Send + use<'c> {
        let path = request.uri().path();
        let organization = path.split('/').nth(2).unwrap_or_default();
        let snapshot = self.0.live.snapshot();
        let unknown =
            (*organization != *snapshot.policy.organization.id).then(|| PageError::unknown_page(path));
        let peer = request.extensions().get().cloned();
        let guard = &self.0.guard;
        let caller = guard.recognise(&credentials(request, CONSOLE));
        async move {
            if let Some(unknown) = unknown {
                return Err(unknown);
            }
            let caller = caller.await.map_err(|refusal| {
                guard.refusals().add(CONSOLE, refusal.reason());
                PageError::refused(refusal)
            })?;
            Ok(View::new(self.clone(), snapshot, caller, peer))
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
