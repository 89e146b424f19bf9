//! Compiles the contract in `proto/`, and the part of Envoy's that is spoken, without `protoc`; keeps the descriptors for
//! gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const SERVICES: [&str; 4] = [
    "tollgate/v1/policy_service.proto",
    "tollgate/v1/key_service.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/ext_proc/v3/external_processor.proto",
];
/// Bodies stay in the buffer that they were received in.
const BODIES: [&str; 2] = [
    ".envoy.service.auth.v3.AttributeContext.HttpRequest.raw_body",
    ".envoy.service.ext_proc.v3.HttpBody.body",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    BODIES
        .into_iter()
        .fold(tonic_prost_build::configure(), tonic_prost_build::Builder::bytes)
        .codec_path("crate::rpc::codec::SmallBuffers")
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
