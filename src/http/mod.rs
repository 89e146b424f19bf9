//! What all pages of the admin listener have in common: who asks, by which names it may be addressed, and how errors are told.

mod credentials;
mod host;
mod page_error;

pub use credentials::{credentials, organization};
pub use host::is_ours;
pub use page_error::{PageError, wants_json};
