//! Which organization a line of the log is about.

use tracing::{Span, error_span};

/// The field of a span that names the organization.
pub const ORGANIZATION_FIELD: &str = "organization";

/// The span for work of one organization. There is none where it is the only one.
#[must_use]
pub fn organization_span(id: &str, is_one_of_several: bool) -> Span {
    // Of the highest level, so that no lower bound of the log keeps it from a line that is written.
    if is_one_of_several { error_span!("organization", organization = id) } else { Span::none() }
}
