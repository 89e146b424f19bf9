//! Lists whose answers would be larger than a client takes.

use prost::Message as _;
use tollgate::rpc::proto::{self, key_service_client::KeyServiceClient};

use super::{MODEL, limits};
use crate::harness::{Server, connect};

const MIB: usize = 1 << 20;
const KEYS: usize = 6_000;

fn name(index: usize) -> String {
    format!("key-{index:0>60}")
}

/// A team with many keys, each of which may do much.
fn policy() -> String {
    let head = "[organization]\nid = \"acme\"\n[teams.t]\nmodels = [\"*\"]\nmax_output_tokens = 9\n";
    let models: Vec<String> = (0..4).map(|index| format!("\"{index:x<60}\"")).collect();
    let models = models.join(", ");
    let key = |index| {
        format!(
            "[teams.t.keys.{}]\nsha256 = \"{index:064x}\"\nmodels = [{models}, \"{MODEL}\"]\n",
            name(index)
        )
    };
    head.to_owned() + &(0..KEYS).map(key).collect::<String>()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_at_most_a_mebibyte_and_every_key_comes_once() {
    let server = Server::start_bounded(&policy(), limits());
    let mut client = KeyServiceClient::new(connect(server.address()).await);
    let mut request = proto::ListKeysRequest { page_size: 1_000, ..Default::default() };
    let mut keys = Vec::new();
    loop {
        let page = client.list_keys(request.clone()).await.unwrap().into_inner();
        assert!(page.encoded_len() < MIB && !page.keys.is_empty(), "{}", page.encoded_len());
        keys.extend(page.keys.into_iter().map(|key| key.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(keys, (0..KEYS).map(name).collect::<Vec<_>>());
}
