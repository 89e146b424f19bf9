//! A virtual key gets another secret under load without a failed request.

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::proto::{
    CreateKeyRequest, GetKeyRequest, RevokeKeyRequest, RotateKeyRequest, key_service_client::KeyServiceClient,
};

use super::{
    edge::{Envoy, chat, is_available},
    replay::{assert_success, python, run, start_process},
};
use crate::{
    harness::{connect, eventually},
    mock_groq::MockGroq,
};

const NAME: &str = "roomy-test-rotation";

/// Written beside and moved, as secrets are mounted.
fn mount(directory: &Path, secret: &str) {
    let (beside, at) = (directory.join(".secret"), directory.join("secret"));
    fs::write(&beside, secret).unwrap();
    fs::rename(beside, at).unwrap();
}

/// While the official SDK goes on, for eight seconds, the key is rotated, the application takes the new secret, and the old
/// one is ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_key_is_rotated_under_load_without_a_failed_request() {
    if !is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let process = start_process(directory.path()).await;
    let mock = MockGroq::start().await;
    let envoy = Envoy::start(&[process.address()], mock.address(), &[]).await.unwrap();
    let mut keys = KeyServiceClient::new(connect(process.address()).await);
    let new = CreateKeyRequest { name: NAME.to_owned(), team: "roomy".to_owned(), ..Default::default() };
    let old = keys.create_key(new).await.unwrap().into_inner().secret;
    mount(directory.path(), &old);
    let mut load = python("rotation.py");
    let file = format!("@{}", directory.path().join("secret").display());
    load.args([&format!("http://{}", envoy.address), &file, "8"]);
    let load = tokio::spawn(run(load));
    let goes_on = async || {
        let sent = mock.ledger().requests;
        eventually("requests go on", || async { mock.ledger().requests > sent + 64 }).await;
    };
    goes_on().await;
    let rotate = RotateKeyRequest { name: NAME.to_owned(), ..Default::default() };
    let new = keys.rotate_key(rotate).await.unwrap().into_inner().secret;
    // The application does not know of it yet.
    goes_on().await;
    mount(directory.path(), &new);
    goes_on().await;
    let get = GetKeyRequest { name: NAME.to_owned() };
    let [first, second] =
        keys.get_key(get).await.unwrap().into_inner().key.unwrap().secrets.try_into().unwrap();
    assert!(first.live && second.live, "{first:?} {second:?}");
    // It was used in the last 24 hours, so it ends only where that is meant.
    let mut end = RevokeKeyRequest { name: NAME.to_owned(), secret_id: first.secret_id, force: false };
    keys.revoke_key(end.clone()).await.unwrap_err();
    end.force = true;
    keys.revoke_key(end).await.unwrap();
    goes_on().await;
    assert_eq!(chat("{}", &json!({"max_tokens": 3})).key(&old).send(envoy.address).await.status, 401);
    // It ends by itself, long after all this.
    assert!(!load.is_finished(), "the load was over too early");
    assert_success(&load.await.unwrap());
    for secret in [&old, &new] {
        assert!(!process.log().contains(&**secret), "a secret is in the log");
    }
}
