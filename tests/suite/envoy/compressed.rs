//! Request bodies that clients compress: Envoy decompresses them before anything is decided, within a bound.

use serde_json::json;

use super::{
    checks::{ask, check, status},
    edge::{Edge, KEY, chat_body, policy},
    http::Request,
};
use crate::{
    harness::{START, Server, StoreKind},
    support::mock_groq::body::gzip,
};

const CHAT: &str = "/openai/v1/chat/completions";
/// Bytes of one block of a zstd frame.
const BLOCK: usize = 128 << 10;

/// A zstd frame of blocks by their kind (0: as they are, 1: one byte, repeated), their length, and their bytes.
fn zstd(blocks: &[(u32, usize, &[u8])]) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd];
    // No size and no check sum; a window of 1 MiB.
    frame.extend([0, 10 << 3]);
    for (index, (kind, length, bytes)) in blocks.iter().enumerate() {
        let last = u32::from(index + 1 == blocks.len());
        let header = last | kind << 1 | u32::try_from(*length).unwrap() << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(*bytes);
    }
    frame
}

fn stored(plain: &[u8]) -> Vec<u8> {
    zstd(&[(0, plain.len(), plain)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_judged_clamped_and_metered_as_a_plain_one_is() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let body = chat_body(r#"{"completion_tokens":40}"#, &json!({"max_tokens": 100_000})).to_string();
    for (encoding, compressed) in
        [("zstd", stored(body.as_bytes())), ("gzip", gzip(body.as_bytes()).to_vec())]
    {
        let request = Request::post(CHAT, KEY, &compressed).header("content-encoding", encoding);
        // A client cannot have its body left as it is.
        for request in [request.clone(), request.header("cache-control", "no-transform")] {
            let answer = edge.send(&request).await;
            assert_eq!(answer.status, 200, "{encoding} {:?}", String::from_utf8_lossy(&answer.body));
            let received = edge.mock.requests().pop().unwrap();
            assert_eq!(received.headers.get("content-encoding"), None);
            let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
            assert_eq!(body["max_tokens"], 2048);
        }
    }
    assert_eq!(edge.agrees().await.requests, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grows_past_the_bound_or_cannot_be_decompressed_is_refused() {
    let Some(edge) = Edge::start(&policy(&[])).await else { return };
    let post = |body: &[u8], encoding| Request::post(CHAT, KEY, body).header("content-encoding", encoding);
    // 6 MiB of blanks, as they are and in 200 bytes.
    let blanks = vec![b' '; BLOCK];
    let plain: Vec<_> = (0..48).map(|_| (0, BLOCK, blanks.as_slice())).collect();
    assert_eq!(edge.send(&post(&zstd(&plain), "zstd")).await.status, 413);
    let repeated: Vec<_> = (0..48).map(|_| (1, BLOCK, b" ".as_slice())).collect();
    let answer = edge.send(&post(&zstd(&repeated), "zstd")).await;
    assert!(matches!(answer.status, 400 | 413), "{}", answer.status);
    assert_eq!(edge.send(&post(b"no frame", "zstd")).await.status, 400);
    let body = chat_body("{}", &json!({})).to_string();
    let answer = edge.send(&post(body.as_bytes(), "compress")).await;
    assert_eq!(answer.error(), "415 unsupported_content_encoding");
    assert_eq!(edge.mock.requests().len(), 0);
    assert_eq!(edge.spend().await.unsettled_requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_that_decompresses_it_a_compressed_body_is_refused() {
    let server = Server::start(StoreKind::Embedded, &policy(&[]), START).await;
    let bearer = format!("Bearer {KEY}");
    let body = json!({"model": "openai/gpt-oss-20b", "max_tokens": 10, "messages": []});
    for (number, encoding, expected) in [("1", "zstd", 415), ("2", "br", 415), ("3", "Identity", 200)] {
        let request = check(number, &[("authorization", &bearer), ("content-encoding", encoding)], &body);
        assert_eq!(status(&ask(&server, request).await), expected, "{encoding}");
    }
}
