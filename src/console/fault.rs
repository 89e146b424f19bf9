//! Why a page cannot be shown, within the frame of the page.

use axum::{
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use maud::html;
use tonic::Status;

use super::{frame::Tab, view::View};
use crate::{
    access::Refusal,
    domain::rbac::Permission,
    http::{PageError, wants_json},
    rpc::{invalid_field, too_many_streams, too_many_streams_of_reader},
};

/// Why a page cannot be shown. A handler returns it, and what stands before the pages puts it into words.
#[derive(Clone, Debug)]
pub(super) struct Fault(PageError);

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self(PageError::told(status))
    }
}

impl From<PageError> for Fault {
    fn from(error: PageError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut answer = self.0.http().into_response();
        answer.extensions_mut().insert(self);
        answer
    }
}

impl Fault {
    /// The part `name` of the address is not what it has to be.
    pub(super) fn in_address(name: &str, expected: &str) -> Self {
        Self(PageError::told(invalid_field(name, &format!("`{name}` in the address has to be {expected}"))))
    }

    /// The reader lacks a permission that the page cannot do without.
    pub(super) fn missing(permission: Permission) -> Self {
        Self(PageError::refused(Refusal::Missing(permission)))
    }

    /// As many streams of events are open as may be.
    pub(super) fn too_many_streams() -> Self {
        Self(PageError::told(too_many_streams()))
    }

    /// The reader has `max` streams of events, which is as many as one may have.
    pub(super) fn too_many_streams_of_reader(max: usize) -> Self {
        Self(PageError::told(too_many_streams_of_reader(max)))
    }

    /// The address cannot be read: `why`.
    pub(super) fn unread_address(why: &str) -> Self {
        Self(PageError::told(invalid_field("address", why)))
    }

    /// The part `name` of the address is wrong, as `message` says.
    pub(super) fn wrong_in_address(name: &str, message: &str) -> Self {
        Self(PageError::told(invalid_field(name, message)))
    }

    /// The form came from a page of others, or from one of ours that is too old.
    pub(super) fn foreign_form() -> Self {
        Self(PageError::foreign_form())
    }

    /// The form could not be read to its end, or is longer than `max` bytes.
    pub(super) fn unreadable_form(max: usize) -> Self {
        Self(PageError::told(invalid_field(
            "form",
            &format!("it could not be read, or has more than {max} bytes"),
        )))
    }

    /// In JSON for programs that ask for it, else as a page.
    pub(super) fn answer(self, view: &View, headers: &HeaderMap) -> Response {
        if wants_json(headers) {
            return self.0.answer(headers);
        }
        let (http, message, header) = (self.0.http(), self.0.message(), self.0.header());
        let (title, advice) = match (http, self.0.reason().as_str()) {
            (_, "FOREIGN_FORM") => {
                ("Nothing was changed", "Load the page again, and send the form once more.")
            }
            (_, "OVERLOADED") => ("Too much is asked at once", "Try it again in a moment."),
            (_, "HISTORY_NOT_KEPT") => ("This is not kept any more", "Choose a later day or month."),
            (http, _) => words(http),
        };
        let body = html! {
            div.head { h1 { (title) } }
            div.banner.banner-over role="alert" { p { strong { (message) } " " (advice) } }
        };
        let mut answer = (http, view.page(Tab::None, title, body)).into_response();
        answer.headers_mut().extend(header);
        answer
    }
}

/// What an answer with this code is called, and what to do.
const fn words(http: StatusCode) -> (&'static str, &'static str) {
    match http {
        StatusCode::NOT_FOUND => ("There is no such page", "It may have been renamed, or ended."),
        StatusCode::FORBIDDEN => ("You may not see this", "The policy's [access] says who may."),
        StatusCode::BAD_REQUEST => {
            ("This address or form asks for what cannot be", "Correct it and try again.")
        }
        StatusCode::TOO_MANY_REQUESTS => {
            ("Too many are open at the moment", "Close some, or try again in a moment.")
        }
        StatusCode::SERVICE_UNAVAILABLE => (
            "The store does not answer",
            "Until it does, requests are refused. Load the page again in a moment.",
        ),
        _ => ("This page could not be made", "The service's log says more."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart_where_codes_are_not() {
        assert_eq!(Fault::foreign_form().0.reason(), "FOREIGN_FORM");
        assert_eq!(Fault::missing(Permission::ReadSpend).0.http(), StatusCode::FORBIDDEN);
        assert_ne!(Fault::missing(Permission::ReadSpend).0.reason(), "FOREIGN_FORM");
        assert_eq!(words(Fault::too_many_streams().0.http()).0, "Too many are open at the moment");
    }
}
