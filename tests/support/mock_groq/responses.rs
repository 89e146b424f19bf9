//! The Responses API, at once and as a stream.

use axum::response::Response;
use serde_json::{Value, json};

use super::{
    Call, body,
    body::Event,
    directive::Directive,
    errors::ApiError,
    generation::{Generation, bound},
    now, text,
};

pub(crate) async fn answer(call: &Call<'_>) -> Result<Response, ApiError> {
    let request = call.json()?;
    let model = text(&request, "model")?;
    let directive = Directive::in_value(request.get("input"));
    let mut bill = call.begin(model, &directive).await?;
    let generation = Generation::new(call, &directive, bound(&request, &["max_output_tokens"]));
    let writer = Writer { call, request: &request, model, generation: &generation, created: now() };
    let usage = if directive.no_usage { Value::Null } else { usage(&generation) };
    let done = writer.response(writer.final_status(), writer.output("completed"), usage);
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        let events = writer.events(&done);
        return Ok(body::events(call, &directive, events, bill, generation.billed));
    }
    bill.settle_tokens(generation.billed);
    Ok(body::json(call, &directive, &done))
}

fn usage(generation: &Generation) -> Value {
    let tokens = generation.tokens;
    json!({
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    })
}

struct Writer<'a> {
    call: &'a Call<'a>,
    request: &'a Value,
    model: &'a str,
    generation: &'a Generation,
    created: u64,
}

impl Writer<'_> {
    const fn final_status(&self) -> &'static str {
        if self.generation.is_cut_short { "incomplete" } else { "completed" }
    }

    fn response(&self, status: &str, output: Vec<Value>, usage: Value) -> Value {
        json!({
            "id": format!("resp_{}", self.call.number),
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": (status == "incomplete").then(|| json!({"reason": "max_output_tokens"})),
            "instructions": self.request.get("instructions"),
            "max_output_tokens": self.request.get("max_output_tokens"),
            "model": self.model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": {"effort": null},
            "service_tier": "default",
            "store": false,
            "temperature": 1,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1,
            "truncation": "disabled",
            "metadata": {},
            "usage": usage,
            "user": null,
        })
    }

    fn output(&self, status: &str) -> Vec<Value> {
        let mut output = Vec::new();
        if self.generation.tokens.reasoning > 0 {
            output.push(self.reasoning_item(&self.generation.reasoning().collect::<String>()));
        }
        output.push(self.message_item(status, &self.generation.content().collect::<String>()));
        output
    }

    fn reasoning_item(&self, text: &str) -> Value {
        json!({
            "type": "reasoning",
            "id": format!("resp_rs_{}", self.call.number),
            "status": null,
            "summary": [],
            "content": [{"type": "reasoning_text", "text": text}],
        })
    }

    fn message_item(&self, status: &str, text: &str) -> Value {
        json!({
            "type": "message",
            "id": self.message_id(),
            "status": status,
            "role": "assistant",
            "content": [part(text)],
        })
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.call.number)
    }

    /// The events in Groq's order, with `done` in the last one. There is no `[DONE]`.
    fn events(&self, done: &Value) -> Vec<Event> {
        let mut stream = Numbered::default();
        let begun = self.response("in_progress", Vec::new(), Value::Null);
        stream.add("response.created", json!({"response": begun}), 0);
        stream.add("response.in_progress", json!({"response": begun}), 0);
        let mut index = 0;
        if self.generation.tokens.reasoning > 0 {
            self.reasoning_events(&mut stream);
            index = 1;
        }
        self.message_events(&mut stream, index);
        stream.add(&format!("response.{}", self.final_status()), json!({"response": done}), 0);
        stream.events
    }

    fn reasoning_events(&self, stream: &mut Numbered) {
        let id = format!("resp_rs_{}", self.call.number);
        let item = self.reasoning_item("");
        stream.add("response.output_item.added", json!({"output_index": 0, "item": item}), 0);
        for word in self.generation.reasoning() {
            let delta = json!({"item_id": id, "output_index": 0, "content_index": 0, "delta": word});
            stream.add("response.reasoning_text.delta", delta, 1);
        }
        let text: String = self.generation.reasoning().collect();
        let done = json!({"item_id": id, "output_index": 0, "content_index": 0, "text": text});
        stream.add("response.reasoning_text.done", done, 0);
        let item = self.reasoning_item(&text);
        stream.add("response.output_item.done", json!({"output_index": 0, "item": item}), 0);
    }

    fn message_events(&self, stream: &mut Numbered, index: u64) {
        let id = self.message_id();
        let text: String = self.generation.content().collect();
        let at = |field: &str, value: Value| {
            let mut fields = json!({"item_id": id, "output_index": index, "content_index": 0});
            fields[field] = value;
            fields
        };
        let item = json!({
            "type": "message", "id": id, "status": "in_progress", "role": "assistant", "content": [],
        });
        stream.add("response.output_item.added", json!({"output_index": index, "item": item}), 0);
        stream.add("response.content_part.added", at("part", part("")), 0);
        for word in self.generation.content() {
            let mut delta = at("delta", word.into());
            delta["logprobs"] = json!([]);
            stream.add("response.output_text.delta", delta, 1);
        }
        let mut done = at("text", text.clone().into());
        done["logprobs"] = json!([]);
        stream.add("response.output_text.done", done, 0);
        stream.add("response.content_part.done", at("part", part(&text)), 0);
        let item = self.message_item(self.final_status(), &text);
        stream.add("response.output_item.done", json!({"output_index": index, "item": item}), 0);
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// The events so far; each carries its number.
#[derive(Default)]
struct Numbered {
    events: Vec<Event>,
}

impl Numbered {
    fn add(&mut self, kind: &str, mut fields: Value, tokens: u64) {
        fields["type"] = kind.into();
        fields["sequence_number"] = self.events.len().into();
        self.events.push(Event { bytes: format!("event: {kind}\ndata: {fields}\n\n").into(), tokens });
    }
}
