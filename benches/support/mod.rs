//! What both benchmarks need: requests, a policy that allows them, processes under measurement, and latencies.

pub(crate) mod chat;
pub(crate) mod histogram;
pub(crate) mod policy;
pub(crate) mod process;
pub(crate) mod teams;
