//! A simulator: whole worlds of replicas, clients, an operator and a store, in one thread, at a time that stands still and jumps, each
//! decided by one seed.
//!
//! The authorizer, its queue, its releases, the registry's follower, keys, pauses and the dispatcher of alerts are the ones that ship.
//! The store is the plain model of `tests/suite/model` (or another one), reached over a network that delays, loses and cuts off; it goes
//! away, comes back, and may have lost its tail. `history` has what truly happened, and `verdict` what has to hold then.
//!
//! What differs between two runs of one seed is a fault of the simulator: the code that it runs draws its time from the runtime's clock
//! and its numbers from a seed, and its `select!`s are `biased`.

mod alerts;
mod client;
mod faults;
mod history;
mod machine;
#[path = "../../tests/suite/model/mod.rs"]
#[allow(dead_code, reason = "the suite uses the rest of it")]
mod model;
mod mutant;
mod operator;
mod passing;
mod records;
mod redis;
mod replica;
mod rng;
mod rules;
mod spools;
mod store;
mod tests;
mod two_phase;
mod verdict;
mod world;

/// The earliest beginning of a world: ten days before a month ends.
const START_MS: u64 = 1_795_132_800_000;
