use tracing::{Span, error_span};

/// The field of a span that says whose its lines are.
pub const ORGANIZATION: &str = "organization";

/// What is entered for work of one organization, so that the lines of the log say whose they are. None where there is one organization.
#[must_use]
pub fn organization_span(id: &str, is_one_of_several: bool) -> Span {
    // Of the highest level, so that no filter keeps it from the lines that are written.
    if is_one_of_several { error_span!("organization", organization = id) } else { Span::none() }
}
