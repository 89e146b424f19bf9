//! The policy document that people write, read once at the edge.
//!
//! It becomes a [`crate::domain::policy::Policy`], or a list of all its faults, each with its place and a fix. Reading has
//! four steps:
//!
//! ```text
//! text ─► document (TOML or JSON as one tree, with positions) ─► read (typed, key by key) ─► check (what cannot hold) ─► Policy
//! ```

mod access;
mod alerts;
mod attempt;
mod batch;
mod bounds;
mod check;
mod difference;
mod document;
mod envoy;
mod findings;
mod json;
mod keys;
mod limits;
mod load;
mod masked;
mod mode;
mod narrow;
mod outage;
mod place;
mod prices;
mod proposal;
mod read;
mod reports;
mod schema;
mod section;
mod source;
mod tools;
mod upstream;
mod values;
mod words;

pub use attempt::{LoadSource, PolicyAttempt, ReloadOutcome};
pub use difference::{Differences, KeyChange};
pub use findings::{Finding, PolicyReport, Severity};
pub use load::{document_differences, load_policy, parse_policy, parse_policy_at, read_file};
pub use masked::{masked, shown_document};
pub use proposal::{Proposal, ProposalReport, TookTooLong};
pub use schema::schema;
pub use source::{
    MAX_ORGANIZATIONS, Neighbours, PolicyDirectory, PolicySource, PolicySourceError, PolicyStatus, Rejection,
    load_directory,
};
pub use words::{Described, describe_organization, describe_team};

pub use crate::watch::Reload;

/// The policy that the server uses when it is given none: three teams, explained line by line.
pub const EXAMPLE_POLICY: &str = include_str!("../../examples/policy.toml");

#[cfg(test)]
mod tests;
