//! The fields of a form, and proof that it came from a page of ours.

use axum::{
    extract::{FromRequest, Request},
    http::{header::AUTHORIZATION, request::Parts},
};
use subtle::ConstantTimeEq as _;

use super::{Console, address::Way, body, fault::Fault, view::View};

/// The name of the field that holds [`View::form_token`].
pub(super) const TOKEN: &str = "form_token";
/// The most bytes of a form. Proposed policies have a bound of their own.
const MAX_BYTES: usize = 64 * 1024;

/// Where a form came from.
pub(super) struct Sender {
    view: View,
    /// What sends its credential by itself is no browser that another page could make send it.
    is_program: bool,
}

impl Sender {
    /// The sender of a request.
    ///
    /// # Errors
    /// It is a browser, and shows a page of others.
    pub(super) fn of(parts: &Parts) -> Result<Self, Fault> {
        let view = parts.extensions.get::<View>().cloned().ok_or_else(Fault::foreign_form)?;
        // A proxy may add one to what browsers send, and those say where a form comes from.
        let is_program = parts.headers.contains_key(AUTHORIZATION) && Way::is_from_no_page(&parts.headers);
        match is_program || view.is_from_own_page(&parts.headers) {
            true => Ok(Self { view, is_program }),
            false => Err(Fault::foreign_form()),
        }
    }

    /// Holds a browser to `token`, the form's [`TOKEN`].
    ///
    /// # Errors
    /// It is not that of the reader's pages.
    pub(super) fn hold_to(&self, token: &[u8]) -> Result<(), Fault> {
        let mut expected = self.view.form_tokens().into_iter();
        let is_ours = expected.any(|expected| expected.as_bytes().ct_eq(token).into());
        match self.is_program || is_ours {
            true => Ok(()),
            false => Err(Fault::foreign_form()),
        }
    }
}

/// The fields of a form, in the order in which they came.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// The trimmed value of a field; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim())
    }

    /// Whether there is a field of this name, be it empty. Browsers send each text field of a form.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Reads the form of `request`, of at most `max` bytes.
    ///
    /// # Errors
    /// It did not come from a page of ours, it is too long, or its sender left.
    pub(super) async fn read(request: Request, max: usize) -> Result<Self, Fault> {
        let (parts, body) = request.into_parts();
        let sender = Sender::of(&parts)?;
        let body = body::whole(body, max).await.ok_or_else(|| Fault::unreadable_form(max))?;
        let fields = Self(form_urlencoded::parse(&body).into_owned().collect());
        sender.hold_to(fields.text(TOKEN).as_bytes())?;
        Ok(fields)
    }
}

impl FromRequest<Console> for Fields {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &Console) -> Result<Self, Fault> {
        Self::read(request, MAX_BYTES).await
    }
}
