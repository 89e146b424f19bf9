//! A virtual key gets another secret under load without a failed request.

use serde_json::json;
use tempfile::TempDir;
use tollgate::rpc::proto::{
    GetKeyRequest, RevokeKeySecretRequest, RotateKeyRequest, key_service_client::KeyServiceClient,
};

use super::{
    edge::{chat, is_available},
    replay::{assert_success, mount, python, run, start_all},
};
use crate::harness::{connect, eventually, new_key};

const NAME: &str = "roomy-test-rotation";

/// While the official SDK goes on, for eight seconds, the key is rotated, the application takes the new secret, and the old
/// one is ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_key_is_rotated_under_load_without_a_failed_request() {
    if !is_available() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (process, mock, envoy) = start_all(directory.path()).await;
    let mut keys = KeyServiceClient::new(connect(process.address()).await);
    let new = new_key(NAME, "roomy");
    let old = keys.create_key(new).await.unwrap().into_inner().secret;
    let file = directory.path().join("secret");
    mount(&file, &old);
    let mut load = python("rotation.py");
    load.args([&format!("http://{}", envoy.address), &format!("@{}", file.display()), "8"]);
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
    mount(&file, &new);
    goes_on().await;
    let get = GetKeyRequest { name: NAME.to_owned(), ..Default::default() };
    let [first, second] =
        keys.get_key(get).await.unwrap().into_inner().key.unwrap().secrets.try_into().unwrap();
    assert!(first.live && second.live, "{first:?} {second:?}");
    // It was used in the last 24 hours, so it ends only where that is meant.
    let mut end = RevokeKeySecretRequest { name: NAME.to_owned(), secret_id: first.secret_id, force: false };
    keys.revoke_key_secret(end.clone()).await.unwrap_err();
    end.force = true;
    keys.revoke_key_secret(end).await.unwrap();
    goes_on().await;
    assert_eq!(chat("{}", &json!({"max_tokens": 3})).key(&old).send(envoy.address).await.status, 401);
    // It ends by itself, long after all this.
    assert!(!load.is_finished(), "the load was over too early");
    assert_success(&load.await.unwrap());
    for secret in [&old, &new] {
        assert!(!process.log().contains(&**secret), "a secret is in the log");
    }
}
