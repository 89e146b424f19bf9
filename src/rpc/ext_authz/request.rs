//! An HTTP request as Envoy describes it.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use tonic::Status;

use super::super::{
    envoy::{
        config::core::v3::Address,
        service::auth::v3::{AttributeContext, CheckRequest, attribute_context::HttpRequest as Http},
    },
    status::FieldErrors,
};
use crate::{domain::policy::envoy::ROUTE_ORGANIZATION, groq::error::ApiError};

/// Set by Envoy when it passed on only the beginning of a body.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// An HTTP request to be decided.
pub(super) struct HttpRequest {
    http: Http,
    /// The identity that the client's certificate proves; empty: none.
    pub(super) principal: String,
    /// What the operator wrote beside the route.
    pub(super) extensions: HashMap<String, String>,
    /// Distinguishes this request from any other, and stays the same when Envoy asks again. Empty if Envoy sent nothing to
    /// tell it by.
    pub(super) request_id: String,
}

impl HttpRequest {
    /// Reads it from Envoy's question.
    pub(super) fn new(check: CheckRequest) -> Result<Self, Status> {
        let missing = || {
            let mut errors = FieldErrors::default();
            errors.add("attributes.request.http", "required");
            errors.into_status()
        };
        let AttributeContext { source, request, context_extensions, .. } =
            check.attributes.ok_or_else(missing)?;
        let request = request.ok_or_else(missing)?;
        let http = request.http.ok_or_else(missing)?;
        let source = source.unwrap_or_default();
        let mut parsed = Self {
            http,
            principal: source.principal,
            extensions: context_extensions,
            request_id: String::new(),
        };
        parsed.request_id = parsed.identify(request.time, source.address);
        Ok(parsed)
    }

    /// `x-request-id` may be a client's own and be used again, so the stream, its first instant and the client's socket count
    /// as well.
    fn identify(&self, time: Option<prost_types::Timestamp>, source: Option<Address>) -> String {
        let from_client = self.header("x-request-id").unwrap_or_default();
        if self.http.id.is_empty() && from_client.is_empty() {
            return String::new();
        }
        let time = time.unwrap_or_default();
        let socket = source.and_then(|address| address.socket_address).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        for part in [self.http.id.as_bytes(), from_client.as_bytes(), socket.address.as_bytes()] {
            hasher.update(&part.len().to_le_bytes()).update(part);
        }
        hasher.update(&socket.port_value.to_le_bytes());
        hasher.update(&time.seconds.to_le_bytes()).update(&time.nanos.to_le_bytes());
        format!("envoy/{}", hasher.finalize().to_hex())
    }

    /// The organization that the route names.
    pub(super) fn organization(&self) -> Option<&str> {
        self.extensions.get(ROUTE_ORGANIZATION).map(String::as_str).filter(|id| !id.is_empty())
    }

    /// The method.
    pub(super) fn method(&self) -> &str {
        &self.http.method
    }

    /// The path, with its query.
    pub(super) fn path(&self) -> &str {
        &self.http.path
    }

    /// A header by its lower-case name; several of one name are joined by commas, as Envoy does.
    pub(super) fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        // If a name comes twice in a map, the last entry counts.
        if let Some(header) = self.http.headers.iter().rfind(|header| header.key == name) {
            return Some(String::from_utf8_lossy(&header.value));
        }
        let raw = self.http.header_map.as_ref()?.headers.iter();
        let mut values =
            raw.filter(|header| header.key == name).map(|header| match header.raw_value.is_empty() {
                true => String::from_utf8_lossy(&header.value),
                false => String::from_utf8_lossy(&header.raw_value),
            });
        let first = values.next()?;
        Some(values.fold(first, |all, next| Cow::Owned(format!("{all},{next}"))))
    }

    /// The whole body.
    ///
    /// # Errors
    /// If it is incomplete or compressed.
    pub(super) fn body(&mut self) -> Result<Bytes, ApiError> {
        if self.header(PARTIAL_BODY).is_some_and(|value| value == "true") {
            return Err(ApiError::too_large(
                "the body is larger than what the gateway passes on to be decided",
            ));
        }
        let encoding = self.header("content-encoding").unwrap_or_default();
        if !encoding.trim().is_empty() && !encoding.trim().eq_ignore_ascii_case("identity") {
            let message = "the body is compressed, and this gateway does not decompress it; send it without \
                           `content-encoding`";
            return Err(ApiError::unsupported_encoding(message));
        }
        let declared = self.header("content-length").and_then(|length| length.trim().parse::<usize>().ok());
        let body = match self.http.raw_body.is_empty() {
            true => Bytes::from(std::mem::take(&mut self.http.body)),
            false => std::mem::take(&mut self.http.raw_body),
        };
        match declared {
            Some(declared) if declared != body.len() => {
                let passed = body.len();
                Err(ApiError::too_large(format!(
                    "the gateway passed on {passed} of the body's {declared} bytes to be decided (`with_request_body`)"
                )))
            }
            _ => Ok(body),
        }
    }
}
