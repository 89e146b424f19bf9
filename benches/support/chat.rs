//! The chat request of the load.

/// The model of every request that is allowed.
pub(crate) const MODEL: &str = "openai/gpt-oss-120b";

/// The length of the body.
const BODY_BYTES: usize = 600;

/// The body of a chat request, with [`BODY_BYTES`].
pub(crate) fn chat_body(stream: bool) -> String {
    let body = |prompt: &str| {
        serde_json::json!({
            "messages": [
                {"role": "system", "content": "You answer briefly, and only what was asked."},
                {"role": "user", "content": prompt},
            ],
            "model": MODEL,
            "max_completion_tokens": 400,
            "temperature": 0.2,
            "stream": stream,
        })
        .to_string()
    };
    let prompt = "Which of these is the odd one out, and why? ".repeat(20);
    let rest = body("").len();
    body(&prompt[..BODY_BYTES - rest])
}
