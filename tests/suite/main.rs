//! Tests of the whole service: against real stores, over real gRPC, and of its real processes.

mod bad_input;
mod clients;
mod concurrency;
mod conformance;
mod crash;
mod decisions;
mod differential;
mod harness;
mod layering;
mod model;
mod redis_server;
mod spend_oracle;
mod windows;
