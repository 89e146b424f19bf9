//! The gRPC services: the only place that sees protobuf.

mod answer;
mod parse;
mod policy_service;
mod status;

pub use policy_service::PolicyRpc;

/// The contract as generated from `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("tollgate.v1");
}

/// The other packages that the contract uses.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod google {
    /// `google.type`.
    pub mod r#type {
        tonic::include_proto!("google.r#type");
    }
}

/// The contract's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
