//! Answers of the door, and what browsers are told to obey with each of them.

use axum::{
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, SET_COOKIE,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse as _, Response},
};
use maud::Markup;

/// No inline code, no page of others around ours, and forms to ourselves alone. Browsers send `Origin: null` with a form from a page that
/// gives no referrer at all, so ours is given to our own pages.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// A page.
pub(super) fn shown(status: StatusCode, page: Markup) -> Response {
    closed((status, page).into_response())
}

/// Sends a browser to `address`, with these cookies.
pub(super) fn see_other(address: &str, cookies: &[String]) -> Response {
    let Ok(location) = HeaderValue::from_str(address) else {
        return closed(StatusCode::BAD_GATEWAY.into_response());
    };
    let mut answer = StatusCode::SEE_OTHER.into_response();
    answer.headers_mut().insert(LOCATION, location);
    for cookie in cookies.iter().filter_map(|cookie| cookie.parse().ok()) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    closed(answer)
}

/// Sets the headers of every answer.
pub(super) fn closed(mut answer: Response) -> Response {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
