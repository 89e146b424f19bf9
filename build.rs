//! Compiles the contract in `proto/` without `protoc`, and keeps its descriptors for gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const CONTRACT: &str = "tollgate/v1/policy_service.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile([CONTRACT], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::rpc::codec::SmallBuffers")
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
