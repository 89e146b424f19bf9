//! Answers that broke off, by Groq or by the client.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::running::{Scene, chat};

/// Nano-dollars that a token of output costs at the small model.
const OUTPUT: u64 = 300;

fn bounded(stream: bool) -> Value {
    json!({"stream": stream, "max_completion_tokens": 100})
}

fn count(text: &str) -> usize {
    text.matches("\"delta\":{\"content\":\"").count()
}

/// Where all that Groq made came as far as the gateway, it knows the bill to the token.
pub(super) async fn cost_what_went_both_ways(scene: &Scene) {
    // Groq breaks off.
    for cut in [0, 1, 7] {
        let directive = json!({"completion_tokens": 50, "cut_after": cut});
        let answer = scene.send(&chat("roomy", &directive, &bounded(true))).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
    }
    // The client leaves while nothing more comes.
    for stall in [1_usize, 9, 20] {
        let directive = json!({"completion_tokens": 50, "stall_after": stall});
        let mut exchange = scene.begin(&chat("roomy", &directive, &bounded(true))).await;
        // The first piece carries no token.
        exchange.until(|text| count(text) > stall).await;
    }
    // It leaves before there is any answer. Of one in one piece the team's rule is to charge the input.
    for (stream, tokens) in [(true, 41), (false, 43)] {
        let directive = json!({"delay_ms": 20_000, "completion_tokens": tokens});
        let exchange = scene.begin(&chat("roomy", &directive, &bounded(stream))).await;
        scene.is_at_groq(&format!(r#"\"completion_tokens\":{tokens}"#)).await;
        drop(exchange);
    }
    // It leaves while it waits for room: nothing is sent, and the place is free for others.
    let stalled = json!({"completion_tokens": 50, "stall_after": 2});
    let mut first = scene.begin(&chat("single", &stalled, &bounded(true))).await;
    first.until(|text| count(text) > 2).await;
    let before = scene.mock.ledger().requests;
    let second = scene.begin(&chat("single", &json!({}), &bounded(false))).await;
    scene.waiting("single", 1).await;
    drop(second);
    scene.waiting("single", 0).await;
    drop(first);
    let answer = scene.send(&chat("single", &json!({}), &bounded(false))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(scene.mock.ledger().requests, before + 1);
}

/// Where Groq writes on, what was on its way to the gateway when that hung up is billed and was never seen. So the books are short of
/// the bill by that, and never above it. The answer is how much that was, in nano-dollars.
pub(super) async fn at_any_moment_cost_no_more_than_groq_bills(scene: &Scene) -> u64 {
    const LEFT: u64 = 12;
    /// Tokens, 5 ms apart: what a busy machine may take to see that a connection closed.
    const ON_THE_WAY: u64 = 60;
    let mut asked = JoinSet::new();
    for after in 0..usize::try_from(LEFT).unwrap() {
        let directive = json!({"completion_tokens": 400, "chunk_ms": 5});
        let fields = json!({"stream": true, "max_completion_tokens": 500});
        let mut exchange = scene.begin(&chat("roomy", &directive, &fields)).await;
        asked.spawn(async move { exchange.until(|text| count(text) > after).await });
    }
    let mut seen = 0;
    while let Some(text) = asked.join_next().await {
        seen += u64::try_from(count(&text.unwrap()) - 1).unwrap();
    }
    let before = scene.settled().await;
    let billed = scene.mock.ledger();
    let missing = billed.nanos.checked_sub(before).expect("no more is charged than billed");
    assert!(missing <= LEFT * ON_THE_WAY * OUTPUT, "{missing} nano-dollars are missing: {billed:?}");
    assert!(billed.aborted >= LEFT, "{billed:?}, after {seen} tokens");
    missing
}
