//! Tests of the whole service: against real stores, over real gRPC, and of its real processes.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "what cannot be had in a test fails it"
)]

mod access;
mod alerts;
mod answers;
mod api_reference;
mod bad_input;
mod budgets;
mod chaos;
mod clients;
mod clock_steps;
mod commands;
mod concurrency;
mod conformance;
mod connections;
mod console;
mod contract;
mod cooldowns;
mod crash;
mod decision_log;
mod decision_stream;
mod decisions;
mod denials;
mod differential;
mod documents;
mod envoy;
mod errors;
mod first_denial;
mod focus;
mod forecast;
mod freshness;
mod gateways;
mod guard;
mod harness;
mod keys;
mod layering;
mod layouts;
mod limits;
mod log_fields;
mod model;
mod organizations;
mod outages;
mod pauses;
mod policy_document;
mod policy_history;
mod policy_replay;
mod reconcile;
mod redis_access;
mod redis_password;
mod redis_server;
mod reference;
mod replay;
mod replicas;
mod reports;
mod shadow;
mod shipping;
mod sign_in;
mod snapshot;
mod soak;
mod spend_oracle;
mod spent_ids;
mod spool;
mod status;
// What the suite shares with a unit test, an example and a benchmark is not in its directory.
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod tls;
mod topology;
mod unreported;
mod waiting;
mod wild;
mod windows;
