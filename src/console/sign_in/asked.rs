//! What a request to the door says.

use std::net::SocketAddr;

use axum::{body::Body, extract::Request, http::HeaderMap};

use crate::{
    access::{Peer, Prompt},
    console::address::cookie,
};

/// What a request to the door says, taken from it.
pub(super) struct Asked {
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<Peer>,
    pub(super) query: String,
    pub(super) body: Body,
}

impl From<Request> for Asked {
    fn from(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get().cloned();
        Self { headers: parts.headers, peer, query: parts.uri.query().unwrap_or_default().to_owned(), body }
    }
}

impl Asked {
    pub(super) fn from(&self) -> Option<SocketAddr> {
        self.peer.as_ref().and_then(|peer| peer.address)
    }

    /// What the address says by this name.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        value(self.query.as_bytes(), name)
    }

    /// What the provider may ask, of a browser that is to leave for it.
    pub(super) fn prompt(&self) -> Option<Prompt> {
        match self.query("with")?.as_str() {
            "provider" => Some(Prompt::AsNeeded),
            // A session that the provider has to vouch for again, without the person noticing.
            "silent" => Some(Prompt::None),
            "another" => Some(Prompt::Login),
            _ => None,
        }
    }

    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        cookie(&self.headers, name)
    }
}

/// The first value of this name in a form or a query.
pub(super) fn value(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}
