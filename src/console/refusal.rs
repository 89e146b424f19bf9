//! Why what a form asks for was not done: told at the form, with what to do.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use maud::{Markup, html};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{fault::Fault, text::quoted::sentence};
use crate::http::PageError;

/// What to do beside what the service says, by the reason of its error.
const ADVICE: [(&str, &str); 12] = [
    (
        "KEY_EXISTS",
        "Choose another name. If you loaded this page again after the key was created: its secret is not shown again, and rotating \
         the key gives it another.",
    ),
    (
        "KEY_CHANGED",
        "What you filled in is kept below, and each field that differs says what the key has now. Save again to put yours in \
         its place.",
    ),
    ("KEY_REVOKED", "Create another key in its place."),
    ("SECRET_IN_USE", "Wait until its workloads have moved, or say below that it ends all the same."),
    ("ONLY_SECRET", "Rotate the key first, which gives it another secret, or revoke it as a whole."),
    ("UNKNOWN_SECRET", "It may have ended by itself, or by another person."),
    ("TOO_MANY_KEYS", "Revoked keys count, as their names are never given twice."),
    ("TOO_MANY_PAUSES", "Resume what no longer needs to be paused."),
    ("PAUSE_CHANGED", "Look at what is paused now, then try again."),
    ("UNKNOWN_COOLDOWN", "It has ended, or another person lifted it. Requests for the model pass."),
    ("STORE_UNAVAILABLE", "It may have been done: look before you repeat it."),
    ("DEADLINE_EXCEEDED", "It may have been done: look before you repeat it."),
];

/// What is wrong with a form that was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// What is wrong with all of it: the reason, and what the service says.
    whole: Option<(String, String)>,
    /// By the names of fields.
    fields: BTreeMap<String, String>,
    http: Option<StatusCode>,
}

impl Faults {
    /// What `status` says of a form, whose field of a name in the contract is called `field_of` it.
    ///
    /// # Errors
    /// It is nothing that can be mended at the form.
    pub(super) fn told(
        status: Status,
        field_of: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<Self, Fault> {
        use Code::{
            Aborted, AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound,
            ResourceExhausted, Unavailable,
        };
        let can_be_mended = [
            Aborted,
            AlreadyExists,
            DeadlineExceeded,
            FailedPrecondition,
            InvalidArgument,
            NotFound,
            ResourceExhausted,
            Unavailable,
        ];
        if !can_be_mended.contains(&status.code()) {
            return Err(status.into());
        }
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        let mut faults = Self::default();
        let mut others = Vec::new();
        for violation in details.bad_request().iter().flat_map(|request| &request.field_violations) {
            match field_of(&violation.field) {
                Some(name) => faults.add(name, &violation.description),
                None => others.push(format!("`{}`: {}", violation.field, violation.description)),
            }
        }
        if faults.fields.is_empty() || !others.is_empty() {
            let message = if others.is_empty() { status.message().to_owned() } else { others.join("; ") };
            faults.whole = Some((reason, message));
        }
        faults.http = Some(PageError::told(status).http());
        Ok(faults)
    }

    /// Says what is wrong with a field; what was said first stays.
    pub(super) fn add(&mut self, name: &str, message: &str) {
        self.fields.entry(name.to_owned()).or_insert_with(|| message.to_owned());
    }

    /// The same with what else is wrong.
    pub(super) fn and(mut self, others: Self) -> Self {
        others.fields.iter().for_each(|(name, message)| self.add(name, message));
        Self { whole: self.whole.or(others.whole), http: self.http.or(others.http), fields: self.fields }
    }

    /// Whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.fields.is_empty()
    }

    /// What is wrong with the field `name`.
    pub(super) fn of(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// Whether the service refused for `reason`.
    pub(super) fn is(&self, reason: &str) -> bool {
        self.whole.as_ref().is_some_and(|(known, _)| known == reason)
    }

    /// The code of the page that tells it.
    pub(super) fn http(&self) -> StatusCode {
        match (self.http, self.is_empty()) {
            (Some(http), _) => http,
            (None, false) => StatusCode::BAD_REQUEST,
            (None, true) => StatusCode::OK,
        }
    }

    /// At the head of the form.
    pub(super) fn banner(&self) -> Markup {
        let fields = self.fields.len();
        html! {
            @if let Some((reason, message)) = &self.whole {
                div.banner.banner-over role="alert" {
                    p {
                        strong { (sentence(message)) }
                        @if let Some((_, advice)) = ADVICE.iter().find(|(known, _)| known == reason) { " " (advice) }
                    }
                }
            } @else if fields > 0 {
                div.banner.banner-over role="alert" {
                    p {
                        strong { "Nothing was changed." }
                        @if fields == 1 { " One field is to be corrected." } @else { " " (fields) " fields are to be corrected." }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{ERRORS, invalid_field};

    #[test]
    fn advice_is_for_reasons_that_the_contract_has() {
        for (reason, _) in ADVICE {
            assert!(ERRORS.iter().any(|row| row.reason == reason), "{reason}");
        }
    }

    #[test]
    fn faults_are_told_at_their_fields_and_all_others_at_the_form() {
        let field_of = |path: &str| (path == "key.name").then_some("name");
        let faults = Faults::told(invalid_field("key.name", "is <b>`x`</b>"), field_of).unwrap();
        assert_eq!((faults.of("name"), faults.http()), (Some("is <b>`x`</b>"), StatusCode::BAD_REQUEST));
        assert!(faults.banner().into_string().contains("One field"));
        let faults = Faults::told(invalid_field("other", "is <b>`x`</b>"), field_of).unwrap();
        let banner = faults.banner().into_string();
        assert!(banner.contains("<code>other</code>: is &lt;b&gt;<code>x</code>&lt;/b&gt;."), "{banner}");
        assert!(Faults::told(Status::permission_denied("x"), field_of).is_err());
    }
}
