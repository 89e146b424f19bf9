//! What is served is what the table of permissions has.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorProto;
use tollgate::domain::rbac::{RPCS, table};

use super::{policy, secret};
use crate::{
    access::by,
    harness::{START, Server, StoreKind, connect},
};

/// The RPCs that one version of reflection tells of. Each knows the other only by its own name.
macro_rules! served {
    ($channel:expr, $version:ident) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = async |question: MessageRequest| {
            let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
            let request = by(&secret("viewer"), tokio_stream::iter([request]));
            let mut client = ServerReflectionClient::new($channel.clone());
            let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
            answers.message().await.unwrap().expect("an answer").message_response.expect("an answer")
        };
        let MessageResponse::ListServicesResponse(listed) =
            ask(MessageRequest::ListServices(String::new())).await
        else {
            panic!("no list of services")
        };
        let mut served = BTreeSet::new();
        for service in listed.service {
            let answer = ask(MessageRequest::FileContainingSymbol(service.name.clone())).await;
            let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
            for bytes in files.file_descriptor_proto {
                served
                    .extend(rpcs_of(&FileDescriptorProto::decode(bytes.as_slice()).unwrap(), &service.name));
            }
        }
        served
    }};
}

fn rpcs_of(file: &FileDescriptorProto, service: &str) -> Vec<String> {
    let described = file.service.iter().filter(|s| format!("{}.{}", file.package(), s.name()) == service);
    described.flat_map(|s| s.method.iter().map(|method| format!("/{service}/{}", method.name()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_in_the_table() {
    let server = Server::start(StoreKind::Embedded, &policy(), START).await;
    let channel = connect(server.address()).await;
    let mut served: BTreeSet<String> = served!(channel, v1);
    served.extend(served!(channel, v1alpha));
    let table: BTreeSet<String> = RPCS.iter().map(|(path, _)| (*path).to_owned()).collect();
    let missing: Vec<_> = served.difference(&table).collect();
    assert!(missing.is_empty(), "served, and not in `RPCS` of src/domain/rbac/needs.rs: {missing:?}");
    let gone: Vec<_> = table.difference(&served).collect();
    assert!(gone.is_empty(), "in `RPCS` of src/domain/rbac/needs.rs, and not served: {gone:?}");
    assert!(server.stop().await);
}

#[test]
fn the_documentation_has_the_table() {
    let table = table();
    assert!(
        include_str!("../../../../docs/access.md").contains(&table),
        "the table of docs/access.md is to be:\n\n{table}\n"
    );
}
