//! Compiles the contract in `proto/`, and the part of Envoy's that is spoken, without `protoc`; keeps the descriptors for
//! gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic_prost_build::Config;

const FILES: [&str; 15] = [
    "google/rpc/error_details.proto",
    "tollgate/v1/alert_service.proto",
    "tollgate/v1/audit_service.proto",
    "tollgate/v1/budget_service.proto",
    "tollgate/v1/key_service.proto",
    "tollgate/v1/organization_service.proto",
    "tollgate/v1/pause_service.proto",
    "tollgate/v1/policy_document_service.proto",
    "tollgate/v1/policy_service.proto",
    "tollgate/v1/report_service.proto",
    "tollgate/v1/status_service.proto",
    "tollgate/v1/upstream_service.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/ext_proc/v3/external_processor.proto",
    "envoy/service/ratelimit/v3/rls.proto",
];
/// Fields that stay in the buffer that they were received in.
const IN_PLACE: [&str; 7] = [
    ".envoy.config.core.v3.HeaderValue",
    ".envoy.service.auth.v3.AttributeContext.HttpRequest.raw_body",
    ".envoy.service.auth.v3.AttributeContext.HttpRequest.HeadersEntry",
    ".envoy.service.ext_proc.v3.HttpBody.body",
    ".envoy.service.ext_proc.v3.ProcessingRequest.metadata_context",
    ".tollgate.v1.CheckPolicyRequest.document",
    ".tollgate.v1.ReplayPolicyRequest.document",
];
/// Fields whose bytes are taken as they are: headers are many and few are looked at, and the metadata comes again with
/// each piece of an answer.
const AS_BYTES: [(&str, &[&str], &[&str]); 3] = [
    ("envoy.config.core.v3", &["HeaderValue"], &["key", "value"]),
    ("envoy.service.auth.v3", &HEADERS, &["key", "value"]),
    ("envoy.service.ext_proc.v3", &["ProcessingRequest"], &["metadata_context"]),
];
/// The service whose server is made once more, with answers of these types instead of messages.
const WRITTEN: (&str, [(&str, &str); 1]) =
    ("PolicyService", [(".tollgate.v1.AuthorizeResponse", "crate::rpc::answer::AuthorizeAnswer")]);
/// An entry of the headers of a `Check`.
const HEADERS: [&str; 3] = ["AttributeContext", "HttpRequest", "HeadersEntry"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Encoded by the compiler: prost's own types have no place for options such as `google.api.field_behavior`.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let descriptors = compiler.file_descriptor_set();
    serve_written(descriptors.clone())?;
    IN_PLACE
        .into_iter()
        .fold(tonic_prost_build::configure(), |builder, field| builder.bytes(field))
        .codec_path("crate::rpc::codec::SmallBuffers")
        .include_file("packages.rs")
        .compile_fds_with_config(as_bytes(descriptors)?, named())?;
    Ok(())
}

/// Makes the server of [`WRITTEN`], in `written/tollgate.v1.rs`.
fn serve_written(mut descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let (service, answers) = WRITTEN;
    descriptors.file.retain(|file| file.package() == "tollgate.v1");
    for file in &mut descriptors.file {
        file.service.retain(|found| found.name() == service);
        // Its comments are by position.
        file.source_code_info = None;
    }
    let out = PathBuf::from(env::var("OUT_DIR")?).join("written");
    fs::create_dir_all(&out)?;
    let builder = answers.into_iter().fold(tonic_prost_build::configure(), |builder, (message, answer)| {
        builder.extern_path(message, answer)
    });
    builder
        .extern_path(".tollgate.v1", "crate::rpc::proto")
        .build_client(false)
        .codec_path("crate::rpc::codec::SmallBuffers")
        .out_dir(out)
        .compile_fds_with_config(descriptors, named())?;
    Ok(())
}

/// Each message knows its name in the contract, by which its descriptor is found.
fn named() -> Config {
    let mut config = Config::new();
    config.enable_type_names();
    config
}

/// The same messages on the wire, read with less work: of a string, of a message and of their bytes the encoding is one and
/// the same, and a map is a list of entries. Only the code is made of this; reflection has the types as they are.
fn as_bytes(mut descriptors: FileDescriptorSet) -> Result<FileDescriptorSet, Box<dyn Error>> {
    for (package, path, fields) in AS_BYTES {
        let found = message(&mut descriptors, package, path).ok_or_else(|| format!("no {path:?}"))?;
        for name in fields {
            let mut all = found.field.iter_mut();
            let field =
                all.find(|field| field.name() == *name).ok_or_else(|| format!("no {name} in {path:?}"))?;
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
        found.options = None;
    }
    // No one wrote the message of a map's entry, so there is no comment of it to be found.
    for file in descriptors.file.iter_mut().filter(|file| file.package().starts_with("envoy.")) {
        file.source_code_info = None;
    }
    Ok(descriptors)
}

fn message<'a>(
    descriptors: &'a mut FileDescriptorSet,
    package: &str,
    path: &[&str],
) -> Option<&'a mut DescriptorProto> {
    let (outermost, inner) = path.split_first()?;
    let files = descriptors.file.iter_mut().filter(|file| file.package() == package);
    let mut messages = files.flat_map(|file| &mut file.message_type);
    let mut found = messages.find(|message| message.name() == *outermost)?;
    for name in inner {
        found = found.nested_type.iter_mut().find(|message| message.name() == *name)?;
    }
    Some(found)
}
