//! The lines of the decision log in JSON: one for each decision and one for each settlement, with the names of the contract's
//! `DecisionEvent`. Amounts of money are nano-dollars and times seconds, as everywhere in logs. What is not known or does not
//! apply is left out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{
    batch::Batch,
    decision::{Retry, Violation},
    limit::LimitScope,
    request::{AuthorizeRequest, Usage},
};

/// The version of the lines that this release writes. Fields are added without raising it.
pub(crate) const VERSION: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    Decision(Decision),
    Settlement(Settlement),
}

/// What every line has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) v: u32,
    /// Grows with time, and is unique among all replicas.
    pub(crate) id: String,
    pub(crate) time: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) replica: String,
    pub(crate) organization: String,
    /// Absent: the caller is unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) team: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) key: String,
    /// Absent, like the operation: the caller alone was enough to deny.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) operation: String,
    pub(crate) policy_revision: String,
    /// Of a call that is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) span_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decision {
    #[serde(flatten)]
    pub(crate) head: Head,
    /// `allowed` or `denied`.
    pub(crate) decision: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) violations: Vec<Refusal>,
    /// What is in shadow and would have refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shadow_violations: Vec<Refusal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reservation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reserved_nano_usd: Option<u64>,
    /// As granted; `request` has what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_output_tokens: Option<u64>,
    pub(crate) degraded: bool,
    /// It reserved nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) dry_run: bool,
    /// An answer that was given before, told again: it reserved nothing more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) repeated: bool,
    /// Of a request that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wait_duration_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<Facts>,
}

/// A limit that refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) limit_id: String,
    /// Absent, like the three amounts in its unit: it is none that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requested: Option<u64>,
    pub(crate) retryable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_delay_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) project: String,
    /// Only for those who watch decisions live: the log has the numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// What a replay needs to know of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) request_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    pub(crate) service_tier: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) input_tokens: u64,
    /// The part of it that Groq may add by itself, which rates do not count in advance.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) unseen_input_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) max_output_tokens: u64,
    /// It cannot be granted less output.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) fixed_output: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audio_duration_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) character_count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<BatchFacts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tools: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BatchFacts {
    pub(crate) line_operation: String,
    pub(crate) request_count: u64,
    pub(crate) completion_window_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settlement {
    #[serde(flatten)]
    pub(crate) head: Head,
    /// The decision that it is about has the same.
    pub(crate) reservation_id: String,
    pub(crate) outcome: String,
    /// `settled`, `late` (after the reservation's expiry), `unreserved`, `released` (no caller got the answer), or `repeated`: what an
    /// earlier line has, or would have if it was not lost.
    pub(crate) result: String,
    pub(crate) cost_nano_usd: u64,
    /// Like the next two of what has no reservation: no decision says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    /// Absent in lines of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_tier: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<BatchFacts>,
    /// As reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Used>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Used {
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) input_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) cached_input_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) output_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) reasoning_tokens: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audio_duration_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) character_count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tool_calls: Vec<ToolCalls>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) request_count: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToolCalls {
    pub(crate) tool: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) call_count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_duration_seconds: Option<f64>,
}

/// A line of the process's log: what all its lines have stands first.
#[derive(Debug, Serialize)]
pub(crate) struct InLog<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) level: &'static str,
    pub(crate) target: &'static str,
    pub(crate) message: &'static str,
    #[serde(flatten)]
    pub(crate) line: &'a Line,
}

impl Refusal {
    pub(crate) fn new(violation: &Violation) -> Self {
        let counts = violation.quantity.name();
        let amount = |amount: u64| counts.map(|_| amount);
        let retry = match violation.retry {
            Retry::After(ms) => Some(seconds(ms)),
            Retry::Never => None,
        };
        Self {
            reason: violation.reason.name().to_owned(),
            scope: violation.scope.map(LimitScope::name).map(str::to_owned),
            limit_id: violation.limit_id.clone(),
            quantity: counts.map(str::to_owned),
            limit: amount(violation.limit),
            used: amount(violation.used),
            requested: amount(violation.requested),
            retryable: retry.is_some(),
            retry_delay_seconds: retry,
            project: violation.project.clone(),
            message: String::new(),
        }
    }

    /// The same with its message.
    pub(crate) fn with_message(violation: &Violation) -> Self {
        Self { message: violation.message.clone(), ..Self::new(violation) }
    }
}

impl Facts {
    pub(crate) fn new(request: &AuthorizeRequest) -> Self {
        let size = &request.size;
        Self {
            request_id: request.request_id.clone(),
            user: request.user.clone(),
            service_tier: request.service_tier.name().to_owned(),
            input_tokens: size.input_tokens,
            unseen_input_tokens: request.unseen_input_tokens,
            max_output_tokens: size.max_output_tokens,
            fixed_output: request.fixed_output,
            audio_duration_seconds: unless_zero(size.audio_ms),
            character_count: size.characters,
            batch: request.work().batch().map(BatchFacts::new),
            tools: request.tools.clone(),
        }
    }
}

impl BatchFacts {
    pub(crate) fn new(batch: &Batch) -> Self {
        Self {
            line_operation: batch.line_operation.name().to_owned(),
            request_count: batch.request_count,
            completion_window_seconds: seconds(batch.window_ms),
        }
    }
}

impl Used {
    pub(crate) fn new(usage: &Usage) -> Self {
        let tools = usage.tools.iter().map(|tool| ToolCalls {
            tool: tool.tool.clone(),
            call_count: tool.calls,
            run_duration_seconds: unless_zero(tool.run_ms),
        });
        Self {
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            audio_duration_seconds: unless_zero(usage.audio_ms),
            character_count: usage.characters,
            tool_calls: tools.collect(),
            request_count: usage.request_count,
        }
    }
}

/// Milliseconds as seconds.
pub(crate) fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

fn unless_zero(ms: u64) -> Option<f64> {
    (ms > 0).then(|| seconds(ms))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as a release wrote them: they are read, and written the same.
    #[test]
    fn lines_of_each_version_are_read() {
        let head = r#""v":1,"id":"019ac5d3a17b0000000011111111","time":"2026-11-24T10:00:00.123Z","replica":"gate-1:42","#
            .to_owned()
            + r#""organization":"acme","team":"chatbot","key":"chatbot-web","model":"openai/gpt-oss-20b","#
            + r#""operation":"chat_completion","policy_revision":"5e9fedb300e80eb4/42""#;
        let bare = r#""v":1,"id":"019ac5d3a17b0000000011111111","time":"2026-11-24T10:00:00.123Z","organization":"acme","policy_revision":"r/0""#;
        for line in [
            format!(
                "{{\"event\":\"decision\",{head},\"decision\":\"allowed\",\"reservation_id\":\"01ab\",\"reserved_nano_usd\":9007199254740993,\
                 \"max_output_tokens\":100,\"degraded\":false,\"wait_duration_seconds\":0.25,\"labels\":{{\"env\":\"prod\"}},\
                 \"request\":{{\"request_id\":\"r-1\",\"user\":\"u-1\",\"service_tier\":\"on_demand\",\"input_tokens\":1200,\
                 \"max_output_tokens\":500,\"tools\":[\"browser_search\"]}}}}"
            ),
            format!(
                "{{\"event\":\"decision\",{head},\"decision\":\"denied\",\"violations\":[{{\"reason\":\"token_rate_exceeded\",\
                 \"scope\":\"team\",\"limit_id\":\"teams.chatbot.tokens_per_minute\",\"quantity\":\"tokens\",\"limit\":1000,\"used\":900,\
                 \"requested\":200,\"retryable\":true,\"retry_delay_seconds\":1.5}}],\"degraded\":false,\"dry_run\":true,\
                 \"request\":{{\"service_tier\":\"flex\",\"audio_duration_seconds\":61.5,\"character_count\":9,\
                 \"batch\":{{\"line_operation\":\"transcription\",\"request_count\":3,\"completion_window_seconds\":86400.0}}}}}}"
            ),
            format!(
                "{{\"event\":\"decision\",{bare},\"decision\":\"denied\",\"violations\":[{{\"reason\":\"invalid_key\",\"retryable\":false}}],\
                 \"degraded\":false}}"
            ),
            format!(
                "{{\"event\":\"settlement\",{head},\"reservation_id\":\"01ab\",\"outcome\":\"completed\",\"result\":\"settled\",\
                 \"cost_nano_usd\":123,\"usage\":{{\"input_tokens\":1200,\"cached_input_tokens\":1,\"output_tokens\":80,\
                 \"tool_calls\":[{{\"tool\":\"browser_search\",\"call_count\":2}}]}}}}"
            ),
            format!(
                "{{\"event\":\"settlement\",{head},\"reservation_id\":\"01ab\",\"outcome\":\"completed\",\"result\":\"unreserved\",\
                 \"cost_nano_usd\":123,\"user\":\"u-1\",\"service_tier\":\"flex\",\
                 \"batch\":{{\"line_operation\":\"transcription\",\"request_count\":3,\"completion_window_seconds\":86400.0}},\
                 \"usage\":{{\"input_tokens\":1200}}}}"
            ),
        ] {
            let read: Line = serde_json::from_str(&line).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), line);
            // Of a later version, what is known is read.
            let later = line.replacen("\"v\":1", "\"more\":[1],\"v\":2", 1);
            assert!(serde_json::from_str::<Line>(&later).is_ok(), "{later}");
        }
    }
}
