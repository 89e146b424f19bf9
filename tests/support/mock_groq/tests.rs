//! The mock itself, over real HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{MockGroq, UPSTREAM_KEY};

const MODEL: &str = "openai/gpt-oss-120b";

/// Writes a request, and gives what came up to the connection's end: the head, and the body with its chunks put together.
fn exchange(address: SocketAddr, key: &str, path: &str, body: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    send(&mut stream, key, path, body);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let body = answer.split_off(end);
    let body = if head.contains("transfer-encoding: chunked") { dechunk(&body) } else { body };
    (head, body)
}

fn send(stream: &mut TcpStream, key: &str, path: &str, body: &str) {
    let request = format!(
        "POST /openai/v1{path} HTTP/1.1\r\nhost: mock\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
}

/// The data of a chunked body, as far as it came.
fn dechunk(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        data.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    data
}

fn chat(directive: &Value, more: &Value) -> String {
    let mut body =
        json!({"model": MODEL, "messages": [{"role": "user", "content": format!("mock:{directive}")}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

/// The JSON of each `data:` line; `[DONE]` is a string.
fn data(stream: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(stream).unwrap().lines();
    lines
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into()))
        .collect()
}

async fn ask(mock: &MockGroq, path: &'static str, body: String) -> (String, Vec<u8>) {
    let address = mock.address();
    tokio::task::spawn_blocking(move || exchange(address, UPSTREAM_KEY, path, &body)).await.unwrap()
}

#[tokio::test]
async fn a_completion_tells_its_usage_and_the_ledger_bills_it() {
    let mock = MockGroq::start().await;
    let directive =
        json!({"prompt_tokens": 100, "cached_tokens": 8, "completion_tokens": 40, "reasoning_tokens": 10});
    let (head, body) = ask(&mock, "/chat/completions", chat(&directive, &json!({}))).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("x-ratelimit-remaining-tokens: "), "{head}");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 8);
    assert_eq!(answer["usage"]["completion_tokens"], 40);
    assert_eq!(answer["choices"][0]["message"]["content"].as_str().unwrap().len(), 30 * 3);
    // 92 × 150 + 8 × 75 + 40 × 600
    assert_eq!(mock.ledger().nanos, 38_400);
}

#[tokio::test]
async fn the_bound_of_the_request_holds() {
    let mock = MockGroq::start().await;
    let more = json!({"max_tokens": 3, "max_completion_tokens": 4});
    let (_, body) = ask(&mock, "/chat/completions", chat(&json!({}), &more)).await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&answer["usage"]["completion_tokens"], &answer["choices"][0]["finish_reason"]),
        (&json!(4), &json!("length"))
    );
}

#[tokio::test]
async fn a_stream_is_the_same_however_it_is_split() {
    let mock = MockGroq::start().await;
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    for split in [Value::Null, json!(1), json!(7), json!(10_000)] {
        let directive =
            json!({"prompt_tokens": 9, "completion_tokens": 6, "reasoning_tokens": 2, "split": split});
        let (_, body) = ask(&mock, "/chat/completions", chat(&directive, &more)).await;
        let chunks = data(&body);
        assert_eq!(chunks.len(), 1 + 6 + 3, "role, tokens, end, usage, [DONE]: {chunks:?}");
        assert!(chunks[0]["x_groq"]["id"].is_string());
        assert_eq!(chunks[2]["choices"][0]["delta"]["reasoning"], "cd ");
        assert_eq!(chunks[5]["choices"][0]["delta"]["content"], "€");
        assert_eq!(chunks[7]["x_groq"]["usage"]["total_tokens"], 15);
        assert_eq!(
            (&chunks[8]["choices"], &chunks[8]["usage"]["completion_tokens"]),
            (&json!([]), &json!(6))
        );
        assert_eq!(chunks[9], "[DONE]");
    }
    let ledger = mock.ledger();
    assert_eq!((ledger.nanos, ledger.aborted), (4 * (9 * 150 + 6 * 600), 0));
}

#[tokio::test]
async fn a_stream_of_responses_ends_with_its_usage() {
    let mock = MockGroq::start().await;
    let request = json!({"model": MODEL, "stream": true, "input": "mock:{\"completion_tokens\":5,\"prompt_tokens\":7}"});
    let (_, body) = ask(&mock, "/responses", request.to_string()).await;
    let events = data(&body);
    let last = events.last().unwrap();
    assert_eq!(
        (&events[0]["type"], &last["type"]),
        (&json!("response.created"), &json!("response.completed"))
    );
    assert_eq!(last["response"]["usage"]["total_tokens"], 12);
    assert_eq!(events.iter().filter(|event| event["type"] == "response.output_text.delta").count(), 5);
    assert_eq!(mock.ledger().nanos, 7 * 150 + 5 * 600);
}

#[tokio::test]
async fn cut_and_abandoned_streams_cost_what_went_both_ways() {
    let mock = MockGroq::start().await;
    let cut = chat(&json!({"cut_after": 3}), &json!({"stream": true}));
    let input = u64::try_from(cut.len()).unwrap().div_ceil(3);
    let (_, body) = ask(&mock, "/chat/completions", cut).await;
    assert_eq!(data(&body).len(), 1 + 3);
    assert_eq!(mock.ledger().nanos, input * 150 + 3 * 600);

    let stalled = chat(&json!({"stall_after": 2}), &json!({"stream": true}));
    let input = u64::try_from(stalled.len()).unwrap().div_ceil(3);
    let address = mock.address();
    tokio::task::spawn_blocking(move || leave_after(address, &stalled, "cd ")).await.unwrap();
    let started = Instant::now();
    while mock.ledger().aborted < 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "the abort was not noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(mock.ledger().models[MODEL].output, 3 + 2);
    assert!(mock.ledger().models[MODEL].input > input);
}

/// Leaves as soon as `text` came.
fn leave_after(address: SocketAddr, body: &str, text: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    send(&mut stream, UPSTREAM_KEY, "/chat/completions", body);
    let (mut seen, mut some) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = stream.read(&mut some).unwrap();
        assert!(count > 0, "the stream ended");
        seen.extend_from_slice(&some[..count]);
    }
}

#[tokio::test]
async fn errors_have_groqs_shape_and_cost_nothing() {
    let mock = MockGroq::start().await;
    for (status, code) in [
        (400, Value::Null),
        (413, json!("rate_limit_exceeded")),
        (429, json!("rate_limit_exceeded")),
        (498, json!("capacity_exceeded")),
        (500, Value::Null),
        (503, Value::Null),
    ] {
        let body = chat(&json!({"status": status, "retry_after": 3}), &json!({}));
        let (head, body) = ask(&mock, "/chat/completions", body).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert_eq!(head.contains("retry-after: 3"), status == 429, "{head}");
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    assert_eq!((mock.ledger().nanos, mock.ledger().errors.len()), (0, 6));
}

#[tokio::test]
async fn a_key_is_taken_until_it_is_rotated_out() {
    let mock = MockGroq::start().await;
    let address = mock.address();
    let status = move |key: &'static str| async move {
        let ask = move || exchange(address, key, "/chat/completions", &chat(&json!({}), &json!({}))).0;
        tokio::task::spawn_blocking(ask).await.unwrap()[9..12].to_owned()
    };
    assert_eq!((status(UPSTREAM_KEY).await.as_str(), status("gsk_new").await.as_str()), ("200", "401"));
    mock.accept_keys(&["gsk_new"]);
    assert_eq!((status(UPSTREAM_KEY).await.as_str(), status("gsk_new").await.as_str()), ("401", "200"));
    assert_eq!(mock.requests().len(), 4);
    assert_eq!(mock.requests()[1].headers["authorization"], "Bearer gsk_new");
}
