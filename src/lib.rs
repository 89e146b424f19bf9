//! Tollgate decides, before each Groq request, whether an organization's policy permits it, and books afterwards what it
//! really cost.
//!
//! # The hot path
//!
//! ```text
//! gateway ── Authorize ──► rpc ──► authorizer ──► domain::plan    pure: request + policy → holds, or a refusal
//!                                     │
//!                                     └────────► store.reserve    one atomic step: all holds, or every limit that refuses
//! gateway ── RecordUsage ► rpc ──► authorizer ──► domain::price   pure: usage + price → cost
//!                                     └────────► store.settle     one atomic step, exactly once
//! ```
//!
//! Behind Envoy the same authorizer is asked by `ext_authz` with the HTTP request as it stands, and told by `ext_proc` what
//! Groq's answer says was used:
//!
//! ```text
//! client ─► Envoy ── Check ───► rpc::ext_authz ──► groq: path, body → request ──► authorizer.authorize
//!             │  ◄── Process ──► rpc::ext_proc ───► groq: answer → usage ────────► authorizer.settle
//!             └─► api.groq.com
//! ```
//!
//! The policy turns a request into a list of *holds*; a store knows counters, amounts and bounds, and nothing of teams,
//! models or money. A new kind of limit is a new line in the policy compiler and no change to any store.
//!
//! Keys that are created and pauses that are ordered while the service runs are records in the store's registry. Each process
//! follows it and merges it with the policy document, so that the hot path reads one policy and asks nobody about either:
//!
//! ```text
//! KeyService ────► control::Keys ────┬─► store.registry_write ···► every process: live::Follower ──► Live::policy
//! AdminService ──► control::Pauses ──┘
//! ```
//!
//! # Invariants of the architecture
//!
//! - [`domain`] is pure: no `async`, no clock, no I/O, no logging, no protobuf.
//! - [`groq`] is pure as well: bytes of Groq's HTTP API in, facts out. A body that could be read two ways is refused.
//! - [`access`] tells who is calling and whether [`domain::access`] lets them ask; it knows no transport. A layer in [`rpc`] and the
//!   pages of [`server`] ask it before anything else.
//! - [`store`] sees counters and opaque records only; [`rpc`] is the only place that sees protobuf.
//! - Every amount is an integer of at most [`domain::MAX_AMOUNT`]; what would pass it is refused.
//! - A denial is a value; `Err` means that no decision could be made.
//!
//! An arrow is the only permitted direction of a `use` (`tests/suite/layering.rs` holds the code to it):
//!
//! ```text
//! main ─► cli ─► server ─► rpc ─► authorizer ─► live ─► store ─► domain
//!                   │       ├────► groq ─► domain
//!                   │       ├────► control ─► live
//!                   │       ├────► reports ─► store, domain
//!                   │       ├────► access ─► audit, store, domain
//!                   │       ├────► upstream ─► domain
//!                   │       └────► audit ─► domain
//!                   ├────► store::{embedded, redis} ─► store ─► domain
//!                   └────► config ─► domain
//! ```

pub mod access;
pub mod audit;
pub mod authorizer;
pub mod cli;
pub mod config;
pub mod control;
pub mod domain;
pub mod groq;
pub mod live;
pub mod reports;
pub mod rpc;
pub mod server;
pub mod store;
pub mod upstream;
