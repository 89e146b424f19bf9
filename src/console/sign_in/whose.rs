//! The organization that people come to, where there are several: one session is for all of them.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderMap, header::AUTHORIZATION},
    response::{IntoResponse as _, Redirect, Response},
};

use super::{Door, Parts, cookie};
use crate::{
    access::{Guard, Peer},
    http::PageError,
};

impl Door {
    /// The same door, as the organization of `guard` sees who comes.
    #[must_use]
    pub fn of(&self, guard: &Guard) -> Self {
        let Parts { sessions, provider, address } = &*self.0;
        Self(Arc::new(Parts {
            sessions: sessions.of(guard),
            provider: provider.clone(),
            address: address.clone(),
        }))
    }

    /// The same door, as the organization sees it whose page is at `address`; as this one does, if there is none.
    pub(super) fn toward(&self, address: Option<&str>) -> Self {
        let guard = address.and_then(|address| self.0.sessions.organizations().at(address));
        guard.map_or_else(|| self.clone(), |guard| self.of(guard))
    }

    /// Where a reader with these headers begins: at the pages of the organization that knows their session, or that needs none. `None`: they
    /// sign in first.
    pub(in crate::console) fn home(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Option<String> {
        let organizations = self.0.sessions.organizations();
        let guard = match organizations.guards() {
            [only] => Some(only),
            all => {
                let way = self.0.address.way(headers, peer).ok();
                let cookie = way.and_then(|way| cookie(headers, way.session()));
                let signed_in = cookie.and_then(|cookie| self.0.sessions.read(cookie));
                let known = signed_in.map(|signed_in| organizations.of_session(&signed_in));
                known.or_else(|| all.iter().find(|guard| !guard.knows_callers()))
            }
        };
        guard.map(root)
    }

    /// The answer to a request for a page of an organization that there is not: one who is not known learns no more than of one that there
    /// is.
    pub(in crate::console) fn unknown(&self, request: &Request) -> Response {
        let (path, headers) = (request.uri().path(), request.headers());
        let is_known =
            headers.contains_key(AUTHORIZATION) || self.home(headers, request.extensions().get()).is_some();
        match is_known {
            true => PageError::unknown_page(path).answer(headers),
            false => Redirect::to(&self.detour(path, None)).into_response(),
        }
    }

    /// How many organizations there are.
    pub(super) fn organizations(&self) -> usize {
        self.0.sessions.organizations().guards().len()
    }

    /// Where a person who was let in goes: to `return_to`, unless it is a page of an organization that is not theirs.
    pub(super) fn inside(&self, return_to: Option<&str>) -> String {
        let organizations = self.0.sessions.organizations();
        let is_theirs = |address: &&str| match organizations.at(address) {
            Some(guard) => guard.organization() == self.guard().organization(),
            None => true,
        };
        match (return_to.filter(is_theirs), organizations.guards()) {
            (Some(address), _) => address.to_owned(),
            (None, [_]) => "/".to_owned(),
            (None, _) => root(self.guard()),
        }
    }
}

/// The first page of an organization.
fn root(guard: &Guard) -> String {
    format!("/console/{}/", guard.organization())
}
