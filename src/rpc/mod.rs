//! The gRPC services: the only place that sees protobuf.

mod answer;
mod codec;
mod parse;
mod policy_service;
mod status;

pub use policy_service::PolicyRpc;

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

/// `google.type`, which the contract uses.
pub use generated::google::r#type as google_type;
/// The contract as generated from `proto/`.
pub use generated::tollgate::v1 as proto;

/// The contract's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
