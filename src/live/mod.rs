//! What is in force: the policy document, merged with the keys and pauses in the store's registry, and never older than a
//! published bound.

mod follower;
mod freshness;
mod registry;

pub use follower::{Follower, Unfresh};
pub use freshness::{Freshness, MAX_AGE};
pub use registry::Live;
pub(crate) use registry::{HASH_KEY, KEY, PAUSE};
