//! Tollgate decides, before each Groq request, whether an organization's policy permits it, and afterwards books what it really
//! cost.
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
//! Behind Envoy, `ext_authz` asks the same authorizer with the HTTP request as it stands, and `ext_proc` tells it the usage that
//! Groq's answer reports:
//!
//! ```text
//! client ─► Envoy ── Check ───► rpc::ext_authz ──► groq: path, body → request ──► authorizer.authorize
//!             │  ◄── Process ──► rpc::ext_proc ───► groq: answer → usage ────────► authorizer.settle
//!             └─► api.groq.com
//! ```
//!
//! The policy turns a request into a list of *holds*; a store knows counters, amounts and bounds, and nothing about teams, models
//! or money. A new kind of limit is a new line in the policy compiler and needs no change to any store.
//!
//! Keys created and pauses ordered at run time are records in the store's registry. Each process follows it and puts it in
//! force beside the policy document as one immutable [`domain::snapshot::Snapshot`]. A request takes one snapshot and finds its
//! caller in it once; only a request that waits takes later ones:
//!
//! ```text
//! KeyService ────► control::Keys ────┬─► store.registry_write ···► every process: live::Follower ──► live::Live::snapshot
//! PauseService ──► control::Pauses ──┘
//! ```
//!
//! # Invariants of the architecture
//!
//! - [`domain`] is pure: no `async`, no clock, no I/O, no logging, no protobuf.
//! - [`groq`] is pure as well: bytes of Groq's HTTP API in, facts out. A body that could be read two ways is refused.
//! - [`access`] says who is calling and whether [`domain::rbac`] lets them ask; it knows no transport. A layer in [`rpc`] and
//!   the pages of [`server`] ask it before anything else.
//! - [`store`] sees opaque counters and records, and usage lines, which are dimensions and amounts to it. Of what a reservation carries it
//!   reads one thing: in whose row it counts if it is never reported.
//! - [`rpc`] is the only place that sees protobuf; [`telemetry`] pushes OpenTelemetry's through a library.
//! - [`telemetry`] looks nothing up when something happens: counts hang on what is counted ([`domain::tally`]), and readers walk them.
//! - [`app`] is the only place where a service is put together: `serve`, `simulate` and the tests run the same assembly.
//! - Decisions take their time and their random numbers from [`runtime`]; tests and simulations replace both.
//! - Every amount is an integer of at most [`domain::MAX_AMOUNT`]; anything larger is refused.
//! - A denial is a value; `Err` means that no decision could be made.
//!
//! An arrow is the only permitted direction of a `use`; every module may use [`domain`]. `tests/suite/layering.rs` has the whole
//! table and holds the code to it:
//!
//! ```text
//! main ─► cli ─► app ─► server ─► console ─► http ─► rpc      each may use what it leads to, and so on
//!
//! rpc ─► authorizer ─► live, spool, store             data plane: decide, settle
//! rpc ─► control ────► live, store                    control plane: keys, pauses
//! rpc ─► reports ────► live, replicas, store          control plane: spend
//! rpc ─► access ─────► audit, live, watch             who is calling, and whether they may; sessions
//! rpc ─► audit ──────► store                          what was changed, and who was refused
//! rpc ─► upstream ───► watch                          Groq's own keys
//! rpc ─► alerts ─────► replicas, policy_file, settings  what operators are told of, and its way to receivers
//! rpc ─► replicas ───► live, upstream, spool, store   the processes that share a store
//! rpc ─► revisions ──► policy_file, live, store         the policies that were in force
//! rpc ─► groq                                         Groq's HTTP API, pure
//! rpc ─► policy_file ─► watch, syntax                 the document, and what is wrong with it
//!
//! cli, rpc ─► replay ► authorizer, live, store        recorded decisions and usage, played to another policy
//! cli ─► reconcile                                    what was booked, compared with Groq's bill, pure
//! cli, console ─► report_text ─► rpc                  reports as CSV and FOCUS, and the days they are about, pure
//!
//! sim ─► authorizer, control, alerts, live, spool     tests only: whole worlds in one thread, over stores
//!
//! authorizer, replicas ─► spool ─► store              reports that were acknowledged while the store did not answer
//! live ─► store ─► runtime ─► domain                  what is in force; counters; time; the pure core
//! store ─► syntax                                     addresses of Redis
//! store, authorizer, server ─► telemetry ─► domain    metrics: what is recorded as it happens
//! app, server ─► settings ─► syntax                   the process
//! ```

// The plain model of a store is part of the suite, which knows this crate by its name.
#[cfg(test)]
extern crate self as tollgate;

pub mod access;
pub mod alerts;
pub mod app;
pub mod audit;
pub mod authorizer;
pub mod cli;
pub mod console;
pub mod control;
pub mod domain;
pub mod groq;
pub mod http;
pub mod live;
pub mod policy_file;
pub mod reconcile;
pub mod replay;
pub mod replicas;
mod report_text;
pub mod reports;
pub mod revisions;
pub mod rpc;
pub mod runtime;
pub mod server;
pub mod settings;
#[cfg(test)]
mod sim;
pub mod spool;
pub mod store;
mod syntax;
pub mod telemetry;
pub mod upstream;
mod watch;
