//! What is changed while the service runs: virtual keys and pauses. Each change is one compare-and-set of a record in the store's
//! registry, in force in this process when it is answered and in every other one a moment later.

mod key_change;
mod key_report;
mod keys;
mod pauses;

pub use key_change::{ChangedKey, KeyChange, KeyError, NewKey};
pub use key_report::{KeyPage, KeyQuery, KeyReport, KeyUsage, SecretReport};
pub use keys::Keys;
pub use pauses::{PauseChange, PauseError, Pauses};
