//! What errors tell beside their reason.

use std::{collections::HashMap, time::Duration};

use tonic_types::{ErrorDetails, FieldViolation};

use super::{Effect, cut};
use crate::{
    domain::rbac::Permission,
    store::{LAYOUT, OLDEST_LAYOUT, ReservationId, Unsupported},
};

/// When to retry after an outage: connections are rebuilt within a second or two.
const OUTAGE_RETRY: Duration = Duration::from_secs(1);
/// The longest description in a detail, in bytes. A status travels in HTTP headers, twice in full and encoded each time; clients
/// accept 16 KiB of headers and tear down the stream past that.
const MAX_DESCRIPTION_BYTES: usize = 256;

/// `text`, cut where it is longer than a description may be.
pub(in crate::rpc) fn shortened(text: String) -> String {
    cut(text, MAX_DESCRIPTION_BYTES)
}

/// What an error tells beside its reason.
pub(in crate::rpc) trait Detail {
    /// The message of `google.rpc` that has it; empty: none.
    const MESSAGE: &'static str = "";
    /// The keys of the metadata that it can set.
    const METADATA: &'static [&'static str] = &[];
    /// The most that can have happened.
    const EFFECT: Effect = Effect::None;

    /// Puts it into the details, and into the metadata of `ErrorInfo`.
    fn tell(
        self,
        reason: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        metadata: &mut HashMap<String, String>,
    );
}

fn put(metadata: &mut HashMap<String, String>, key: &str, value: impl ToString) {
    metadata.insert(key.to_owned(), value.to_string());
}

/// Nothing beside the reason, and nothing was changed.
pub(in crate::rpc) struct Nothing;

impl Detail for Nothing {
    fn tell(self, _: &'static str, _: &str, _: &mut ErrorDetails, _: &mut HashMap<String, String>) {}
}

/// Nothing beside the reason; a change may have been made.
pub(in crate::rpc) struct Unsure;

impl Detail for Unsure {
    const EFFECT: Effect = Effect::Unknown;

    fn tell(self, _: &'static str, _: &str, _: &mut ErrorDetails, _: &mut HashMap<String, String>) {}
}

/// The malformed fields of the request.
pub(in crate::rpc) struct Fields(pub(in crate::rpc) Vec<FieldViolation>);

impl Detail for Fields {
    const MESSAGE: &'static str = "BadRequest";

    fn tell(self, _: &'static str, _: &str, details: &mut ErrorDetails, _: &mut HashMap<String, String>) {
        details.set_bad_request(self.0);
    }
}

/// What the request is about: its type in the contract, and its name as the caller gave it. The name is empty where it must not
/// be repeated, as with a secret.
pub(in crate::rpc) struct Resource(pub(in crate::rpc) &'static str, pub(in crate::rpc) String);

impl Detail for Resource {
    const MESSAGE: &'static str = "ResourceInfo";

    fn tell(
        self,
        _: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        _: &mut HashMap<String, String>,
    ) {
        details.set_resource_info(self.0, shortened(self.1), "", shortened(message.to_owned()));
    }
}

/// The request id whose request is over, and its reservation.
pub(in crate::rpc) struct Spent(pub(in crate::rpc) Resource, pub(in crate::rpc) ReservationId);

impl Detail for Spent {
    const MESSAGE: &'static str = Resource::MESSAGE;
    const METADATA: &'static [&'static str] = &["reservationId"];

    fn tell(
        self,
        reason: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        metadata: &mut HashMap<String, String>,
    ) {
        self.0.tell(reason, message, details, metadata);
        put(metadata, "reservationId", self.1);
    }
}

/// What is not in the state that the call needs.
pub(in crate::rpc) struct Precondition(pub(in crate::rpc) String);

impl Detail for Precondition {
    const MESSAGE: &'static str = "PreconditionFailure";

    fn tell(
        self,
        reason: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        _: &mut HashMap<String, String>,
    ) {
        let (subject, description) = (shortened(self.0), shortened(message.to_owned()));
        details.add_precondition_failure_violation(reason, subject, description);
    }
}

/// What there is too much of.
pub(in crate::rpc) struct Quota(pub(in crate::rpc) &'static str);

impl Detail for Quota {
    const MESSAGE: &'static str = "QuotaFailure";

    fn tell(
        self,
        _: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        _: &mut HashMap<String, String>,
    ) {
        details.add_quota_failure_violation(self.0, shortened(message.to_owned()));
    }
}

/// The most bytes that a message may have.
pub(in crate::rpc) struct Size(pub(in crate::rpc) usize);

impl Detail for Size {
    const MESSAGE: &'static str = Quota::MESSAGE;
    const METADATA: &'static [&'static str] = &["maxBytes"];

    fn tell(
        self,
        reason: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        metadata: &mut HashMap<String, String>,
    ) {
        Quota("message").tell(reason, message, details, metadata);
        put(metadata, "maxBytes", self.0);
    }
}

/// The permission that the caller lacks, and the roles that have it.
pub(in crate::rpc) struct Needs(pub(in crate::rpc) Permission);

impl Detail for Needs {
    const METADATA: &'static [&'static str] = &["permission", "roles"];

    fn tell(self, _: &'static str, _: &str, _: &mut ErrorDetails, metadata: &mut HashMap<String, String>) {
        put(metadata, "permission", self.0);
        put(metadata, "roles", self.0.roles());
    }
}

/// The service cannot answer at the moment. This is what the call may have changed.
pub(in crate::rpc) struct Outage(pub(in crate::rpc) Effect);

impl Detail for Outage {
    const MESSAGE: &'static str = "RetryInfo";
    const METADATA: &'static [&'static str] = &["effect"];
    const EFFECT: Effect = Effect::Unknown;

    fn tell(
        self,
        _: &'static str,
        _: &str,
        details: &mut ErrorDetails,
        metadata: &mut HashMap<String, String>,
    ) {
        details.set_retry_info(Some(OUTAGE_RETRY));
        put(metadata, "effect", self.0.name());
    }
}

/// The service cannot answer at the moment, whatever the call, and changed nothing.
pub(in crate::rpc) struct Retry;

impl Detail for Retry {
    const MESSAGE: &'static str = Outage::MESSAGE;
    const METADATA: &'static [&'static str] = Outage::METADATA;

    fn tell(
        self,
        reason: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        metadata: &mut HashMap<String, String>,
    ) {
        Outage(Effect::None).tell(reason, message, details, metadata);
    }
}

/// What is stored in a way that this release does not know. It changed nothing; another replica may answer.
pub(in crate::rpc) struct Layout(pub(in crate::rpc) Unsupported);

impl Detail for Layout {
    const MESSAGE: &'static str = Outage::MESSAGE;
    const METADATA: &'static [&'static str] = &["effect", "foundLayout", "knownLayout"];

    fn tell(
        self,
        reason: &'static str,
        message: &str,
        details: &mut ErrorDetails,
        metadata: &mut HashMap<String, String>,
    ) {
        Retry.tell(reason, message, details, metadata);
        let (found, known) = match self.0 {
            Unsupported::Newer { found } => (found, LAYOUT),
            Unsupported::Older { found } => (found, OLDEST_LAYOUT),
            Unsupported::Entry => return,
        };
        put(metadata, "foundLayout", found);
        put(metadata, "knownLayout", known);
    }
}
