//! What the address of a page asks for.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::fault::Fault;

/// The query of the address, as a page reads it. What cannot be read is told within the frame.
#[derive(Clone, Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let query =
            Query::try_from_uri(&parts.uri).map_err(|error| Fault::unread_address(&error.body_text()))?;
        Ok(Self(query.0))
    }
}
