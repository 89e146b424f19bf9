//! The configuration that people write, read once at the edge: the policy document and the server's settings.
//!
//! A policy document becomes a [`crate::domain::policy::Policy`], or a list of all its faults, each with its place and a
//! fix. Reading has four steps:
//!
//! ```text
//! text ─► document (TOML or JSON as one tree, with positions) ─► read (typed, key by key) ─► check (what cannot hold) ─► Policy
//! ```

mod access;
mod address;
mod attempt;
mod batch;
mod bounds;
mod check;
mod connections;
mod difference;
mod document;
mod envoy;
mod findings;
mod json;
mod layer;
mod limits;
mod load;
mod narrow;
mod place;
mod prices;
mod read;
mod section;
mod settings;
mod source;
mod store_url;
mod tls;
mod tools;
mod units;
mod upstream;
mod values;
mod watch;

pub use attempt::{Became, PolicyAttempt};
pub use connections::{ConnectionFlags, ConnectionLimits};
pub use difference::{Differences, KeyChange};
pub use findings::{Finding, PolicyReport, Severity};
pub use load::{load_policy, parse_policy, parse_policy_at};
pub use settings::{LogFormat, Settings, SettingsError, SettingsFlags};
pub use source::{PolicySource, PolicySourceError, PolicyStatus, Rejection, Reload};
pub use store_url::{StoreUrl, StoreUrlError};
pub use tls::{ClientAuth, TlsFiles};
pub(crate) use units::parse_duration;

/// The policy that the server uses when it is given none: three teams, explained line by line.
pub const EXAMPLE_POLICY: &str = include_str!("../examples/policy.toml");

#[cfg(test)]
mod tests;
