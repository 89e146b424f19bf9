//! How large a request is, what it enables, and what it used.

use std::time::Duration;

use super::proto;
use crate::{
    domain::{
        batch::{Batch, MAX_REQUESTS, MAX_WINDOW_MS, MIN_WINDOW_MS},
        bounds::Most,
        name::MAX_MODEL_BYTES,
        request::{Operation, ToolUsage, Usage},
    },
    rpc::status::FieldErrors,
};

/// Built-in tools that one request enables; Groq has fewer than ten.
const MAX_ENABLED_TOOLS: usize = 16;
/// Kinds of built-in tools in one report; Groq has fewer than ten.
const MAX_TOOLS: usize = 32;

/// The milliseconds of a completion window; `None` if Groq has none that short or long.
fn in_window(window: prost_types::Duration) -> Option<u64> {
    let ms = u64::try_from(window.seconds).ok()?.checked_mul(1000)?;
    let ms = ms.checked_add(u64::try_from(window.nanos).ok()?.div_ceil(1_000_000))?;
    (MIN_WINDOW_MS..=MAX_WINDOW_MS).contains(&ms).then_some(ms)
}

impl FieldErrors {
    pub(super) fn batch(
        &mut self,
        batch: Option<proto::Batch>,
        operation: Option<Operation>,
    ) -> Option<Batch> {
        let batch = batch?;
        if operation.is_some_and(|operation| operation != Operation::Batch) {
            self.add("batch", "only with OPERATION_BATCH");
        }
        let line_operation = self.operation_in("batch.line_operation", batch.line_operation);
        if line_operation == Some(Operation::Batch) {
            self.add("batch.line_operation", "what each line does, which is not OPERATION_BATCH");
        }
        let request_count = self.count("batch.request_count", batch.request_count, MAX_REQUESTS);
        if request_count == 0 && batch.request_count == 0 {
            self.add("batch.request_count", "required: how many lines the batch has");
        }
        let window_ms = batch.completion_window.map_or(Some(MIN_WINDOW_MS), in_window);
        if window_ms.is_none() {
            self.add("batch.completion_window", "must be from 24 hours to 7 days");
        }
        let window_ms = window_ms.unwrap_or_default();
        line_operation.map(|line_operation| Batch { line_operation, request_count, window_ms })
    }

    pub(super) fn tools(&mut self, mut tools: Vec<String>) -> Vec<String> {
        if tools.len() > MAX_ENABLED_TOOLS {
            self.add("tools", format!("has {}; at most {MAX_ENABLED_TOOLS} are permitted", tools.len()));
        }
        tools.truncate(MAX_ENABLED_TOOLS);
        let mut named = Vec::with_capacity(tools.len());
        for (index, tool) in tools.into_iter().enumerate() {
            let tool = self.text(&format!("tools[{index}]"), tool, 1, MAX_MODEL_BYTES);
            // A tool enabled twice is enabled once.
            if !named.contains(&tool) {
                named.push(tool);
            }
        }
        named
    }

    /// `most`: of the work that the report is about, as far as the report itself says; the rest is for [`Usage::excesses`].
    pub(super) fn usage(&mut self, usage: proto::Usage, most: Most) -> Usage {
        let longest = Duration::from_millis(most.audio_ms);
        let request_count = self.count("usage.request_count", usage.request_count, MAX_REQUESTS);
        let input_tokens = self.count("usage.input_tokens", usage.input_tokens, most.count);
        let cached_input_tokens =
            self.count("usage.cached_input_tokens", usage.cached_input_tokens, most.count);
        let output_tokens = self.count("usage.output_tokens", usage.output_tokens, most.count);
        let reasoning_tokens = self.count("usage.reasoning_tokens", usage.reasoning_tokens, most.count);
        if cached_input_tokens > input_tokens {
            self.add("usage.cached_input_tokens", "more than `usage.input_tokens`, which includes them");
        }
        if reasoning_tokens > output_tokens {
            self.add("usage.reasoning_tokens", "more than `usage.output_tokens`, which includes them");
        }
        if usage.tool_calls.len() > MAX_TOOLS {
            self.add("usage.tool_calls", format!("at most {MAX_TOOLS} tools"));
        }
        let tools = usage
            .tool_calls
            .into_iter()
            .take(MAX_TOOLS)
            .enumerate()
            .map(|(i, tool)| {
                let field = format!("usage.tool_calls[{i}]");
                ToolUsage {
                    tool: self.text(&format!("{field}.tool"), tool.tool, 1, MAX_MODEL_BYTES),
                    calls: self.count(&format!("{field}.call_count"), tool.call_count, most.tool_calls),
                    run_ms: self.duration(&format!("{field}.run_duration"), tool.run_duration, longest),
                }
            })
            .collect();
        Usage {
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            audio_ms: self.duration("usage.audio_duration", usage.audio_duration, longest),
            characters: self.count("usage.character_count", usage.character_count, most.count),
            tools,
            request_count,
        }
    }
}
