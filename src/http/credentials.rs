//! What a request over HTTP shows about its caller.

use axum::{extract::Request, http::header::AUTHORIZATION};

use crate::access::{Authorization, Credentials, Named, ORGANIZATION};

/// The credentials of `request`; `path` is the name of its page, for the audit log.
#[must_use]
pub fn credentials<'a>(request: &'a Request, path: &'a str) -> Credentials<'a> {
    let mut headers = request.headers().get_all(AUTHORIZATION).iter();
    let authorization = match (headers.next(), headers.next()) {
        (None, _) => Authorization::Absent,
        (Some(header), None) => Authorization::Header(header.as_bytes()),
        (Some(_), Some(_)) => Authorization::Several,
    };
    Credentials { authorization, peer: request.extensions().get(), path }
}

/// The organization that `request` names.
#[must_use]
pub fn organization(request: &Request) -> Named<'_> {
    Named::of(request.headers().get_all(ORGANIZATION))
}
