//! Chat completions, at once and as a stream.

use axum::response::Response;
use serde_json::{Value, json};

use super::{
    Call, body,
    body::Event,
    directive::Directive,
    errors::ApiError,
    generation::{Generation, bound, chat_usage},
    now, text,
};

pub(crate) async fn answer(call: &Call<'_>) -> Result<Response, ApiError> {
    let request = call.json()?;
    let model = text(&request, "model")?;
    let directive = Directive::in_value(request.get("messages"));
    let mut bill = call.begin(model, &directive).await?;
    let generation =
        Generation::new(call, &directive, bound(&request, &["max_tokens", "max_completion_tokens"]));
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        let include_usage = request.pointer("/stream_options/include_usage").and_then(Value::as_bool);
        let chunks = Chunks::new(call, model, !directive.no_usage);
        let events = chunks.all(&generation, include_usage == Some(true));
        return Ok(body::events(call, &directive, events, bill, generation.billed));
    }
    bill.settle_tokens(generation.billed);
    Ok(body::json(call, &directive, &completion(call, model, &directive, &generation)))
}

fn completion(call: &Call<'_>, model: &str, directive: &Directive, generation: &Generation) -> Value {
    let mut message = json!({"role": "assistant", "content": generation.content().collect::<String>()});
    if generation.tokens.reasoning > 0 {
        message["reasoning"] = generation.reasoning().collect::<String>().into();
    }
    let mut answer = json!({
        "id": format!("chatcmpl-{}", call.number),
        "object": "chat.completion",
        "created": now(),
        "model": model,
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason(generation),
        }],
        "usage_breakdown": null,
        "system_fingerprint": "fp_mock",
        "x_groq": {"id": format!("req_{}", call.number)},
        "service_tier": "on_demand",
    });
    if !directive.no_usage {
        answer["usage"] = chat_usage(generation.tokens);
    }
    answer
}

const fn finish_reason(generation: &Generation) -> &'static str {
    if generation.is_cut_short { "length" } else { "stop" }
}

/// Writes the chunks of one stream.
struct Chunks {
    /// What every chunk begins with, up to its choices.
    head: String,
    request_id: String,
    tells_usage: bool,
}

impl Chunks {
    fn new(call: &Call<'_>, model: &str, tells_usage: bool) -> Self {
        let head = format!(
            r#"data: {{"id":"chatcmpl-{}","object":"chat.completion.chunk","created":{},"model":{},"system_fingerprint":"fp_mock""#,
            call.number,
            now(),
            json!(model),
        );
        Self { head, request_id: format!("req_{}", call.number), tells_usage }
    }

    /// One token a chunk, the reasoning first.
    fn all(&self, generation: &Generation, include_usage: bool) -> Vec<Event> {
        let (id, usage) = (&self.request_id, chat_usage(generation.tokens));
        let mut events = vec![self.choice(
            &json!({"role": "assistant", "content": ""}),
            None,
            &format!(r#","x_groq":{}"#, json!({"id": id})),
        )];
        let reasoning = generation.reasoning().map(|word| json!({"reasoning": word, "channel": "analysis"}));
        let content = generation.content().map(|word| json!({"content": word}));
        events.extend(
            reasoning.chain(content).map(|delta| Event { tokens: 1, ..self.choice(&delta, None, "") }),
        );
        let x_groq = if self.tells_usage { json!({"id": id, "usage": usage}) } else { json!({"id": id}) };
        events.push(self.choice(
            &json!({}),
            Some(finish_reason(generation)),
            &format!(r#","x_groq":{x_groq}"#),
        ));
        if include_usage && self.tells_usage {
            events.push(self.event(&format!(
                r#","choices":[],"usage":{usage},"x_groq":{}"#,
                json!({"id": id, "usage": usage}),
            )));
        }
        events.push(Event { bytes: "data: [DONE]\n\n".into(), tokens: 0 });
        events
    }

    fn choice(&self, delta: &Value, finish_reason: Option<&str>, rest: &str) -> Event {
        self.event(&format!(
            r#","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{}}}]{rest}"#,
            json!(finish_reason),
        ))
    }

    fn event(&self, fields: &str) -> Event {
        Event { bytes: format!("{}{fields}}}\n\n", self.head).into(), tokens: 0 }
    }
}
