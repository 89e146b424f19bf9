//! A text as it was asked for: how many tokens, which ones, and what they cost.

use serde_json::{Value, json};

use super::{Call, directive::Directive, ledger::Tokens};

const DEFAULT_COMPLETION_TOKENS: u64 = 20;

/// Three bytes each. Among them are a character of three bytes, and two that JSON escapes.
const WORDS: [&str; 5] = ["ab ", "cd ", "€", "e\"f", "gh\n"];

/// What will be answered.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) tokens: Tokens,
    /// Whether the request's bound ended it.
    pub(crate) is_cut_short: bool,
    /// What is billed. It differs from `tokens` where the answer does not tell them.
    pub(crate) billed: Tokens,
}

impl Generation {
    /// By the directive, within the `bound` of the request.
    pub(crate) fn new(call: &Call<'_>, directive: &Directive, bound: Option<u64>) -> Self {
        let wanted = directive.completion_tokens.unwrap_or(DEFAULT_COMPLETION_TOKENS);
        let output = bound.map_or(wanted, |bound| wanted.min(bound));
        let input = directive.prompt_tokens.unwrap_or_else(|| call.counted_input());
        let tokens = Tokens {
            input,
            cached: directive.cached_tokens.min(input),
            output,
            reasoning: directive.reasoning_tokens.min(output),
        };
        let billed = if directive.no_usage {
            Tokens { input: call.counted_input(), output, ..Default::default() }
        } else {
            tokens
        };
        Self { tokens, is_cut_short: output < wanted, billed }
    }

    pub(crate) fn reasoning(&self) -> impl Iterator<Item = &'static str> {
        words(self.tokens.reasoning)
    }

    pub(crate) fn content(&self) -> impl Iterator<Item = &'static str> {
        words(self.tokens.output - self.tokens.reasoning)
    }
}

fn words(count: u64) -> impl Iterator<Item = &'static str> {
    WORDS.into_iter().cycle().take(usize::try_from(count).unwrap_or(usize::MAX))
}

/// The larger of the bounds that the request gives under these names.
pub(crate) fn bound(request: &Value, names: &[&str]) -> Option<u64> {
    names.iter().filter_map(|name| request.get(name).and_then(Value::as_u64)).max()
}

/// The `usage` of chat completions.
pub(crate) fn chat_usage(tokens: Tokens) -> Value {
    json!({
        "queue_time": 0.037_493_2,
        "prompt_tokens": tokens.input,
        "prompt_time": 0.000_680_594,
        "completion_tokens": tokens.output,
        "completion_time": 0.463_333_333,
        "total_tokens": tokens.input + tokens.output,
        "total_time": 0.464_013_927,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    })
}
