//! Lines of the decision log, read back to be decided once more.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::line::{BatchFacts, Decision, Facts, Line, Settlement, Used, VERSION};
use crate::domain::{
    Timestamp,
    batch::Batch,
    request::{AuthorizeRequest, Caller, Operation, Outcome, Size, ToolUsage, Unreserved, Usage},
};

/// A line.
#[derive(Clone)]
pub enum Logged {
    /// A decision.
    Decided(Box<LoggedDecision>),
    /// What was booked.
    Settled(Box<LoggedSettlement>),
    /// A line of the process's log about something else.
    Other,
}

/// A decision as it was made.
#[derive(Clone)]
pub struct LoggedDecision {
    /// When.
    pub time: Timestamp,
    /// The name of the key; empty: none.
    pub key: String,
    /// The reasons of its violations; none: it was allowed.
    pub reasons: Vec<String>,
    /// Whether it reserved nothing by itself: a dry run, or the answer to an earlier request.
    pub is_extra: bool,
    /// The reservation, if one was made.
    pub reservation_id: Option<String>,
    /// Its worst case, in nano-USD.
    pub reserved_nanos: u64,
    /// The request, of its team, without its wait; `None` where the caller alone was enough to deny.
    pub request: Option<AuthorizeRequest>,
}

/// A settlement as it was booked.
#[derive(Clone)]
pub struct LoggedSettlement {
    /// When.
    pub time: Timestamp,
    /// The name of the key; empty: none.
    pub key: String,
    /// The reservation.
    pub reservation_id: String,
    /// What it was of, as if it had been reported without a reservation.
    pub subject: Unreserved,
    /// How the request ended.
    pub outcome: Outcome,
    /// Whether it had no reservation.
    pub is_unreserved: bool,
    /// Whether it released the reservation because no caller got it. What is reported of it later is booked all the same.
    pub is_release: bool,
    /// Whether an earlier line says the same.
    pub is_repeat: bool,
    /// What it cost, in nano-USD.
    pub cost_nanos: u64,
    /// What it used.
    pub usage: Option<Usage>,
}

/// A line that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// It is no JSON, or a field is missing or of another kind.
    #[error("{message}, at column {column}")]
    Malformed {
        /// Why.
        message: String,
        /// Where.
        column: usize,
    },
    /// A later release wrote it.
    #[error("version {0} of the decision log is later than this release reads, {VERSION}")]
    Later(u32),
    /// A value that this release does not know.
    #[error("`{value}` is not {kind}")]
    Unknown {
        /// What it should be.
        kind: &'static str,
        /// The value.
        value: String,
    },
}

/// Reads a line of the decision log, or of a process's log that contains it.
///
/// # Errors
/// What is wrong with it.
pub fn read_line(text: &str) -> Result<Logged, LineError> {
    /// What only lines of a process's log have.
    #[derive(Deserialize)]
    struct OfLog {
        level: String,
        target: String,
        #[serde(default)]
        event: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_str(text) {
        Ok(Line::Decision(decision)) => Ok(Logged::Decided(Box::new(decided(decision)?))),
        Ok(Line::Settlement(settlement)) => Ok(Logged::Settled(Box::new(settled(settlement)?))),
        Err(error) => match serde_json::from_str(text) {
            Ok(OfLog { event: None, level, target }) if !level.is_empty() && !target.is_empty() => {
                Ok(Logged::Other)
            }
            _ => {
                let message = error.to_string();
                let end = message.rfind(" at line ").unwrap_or(message.len());
                let message = message.get(..end).unwrap_or_default().to_owned();
                Err(LineError::Malformed { message, column: error.column() })
            }
        },
    }
}

fn decided(line: Decision) -> Result<LoggedDecision, LineError> {
    check_version(line.head.v)?;
    let (team, model) = (line.head.team, line.head.model);
    let operation = || named(&line.head.operation, "an operation");
    let request = match line.request {
        // Without a team there is no policy to decide by.
        Some(facts) if !team.is_empty() => Some(request(facts, (team, model, operation()?))?),
        _ => None,
    };
    let is_denied = match line.decision.as_str() {
        "allowed" => false,
        "denied" => true,
        other => return Err(unknown("a decision", other)),
    };
    if is_denied == line.violations.is_empty() {
        return Err(unknown("the decision on a request with these violations", &line.decision));
    }
    Ok(LoggedDecision {
        time: instant(line.head.time),
        key: line.head.key,
        reasons: line.violations.into_iter().map(|violation| violation.reason).collect(),
        is_extra: line.dry_run || line.repeated,
        reservation_id: line.reservation_id,
        reserved_nanos: line.reserved_nano_usd.unwrap_or(0),
        request,
    })
}

fn request(
    facts: Facts,
    (team, model, operation): (String, String, Operation),
) -> Result<AuthorizeRequest, LineError> {
    Ok(AuthorizeRequest {
        caller: Caller::Team(team),
        user: facts.user,
        // Each line is a request of its own.
        request_id: String::new(),
        model,
        operation,
        service_tier: named(&facts.service_tier, "a service tier")?,
        batch: facts.batch.map(batch).transpose()?,
        tools: facts.tools,
        size: Size {
            input_tokens: facts.input_tokens,
            max_output_tokens: facts.max_output_tokens,
            audio_ms: facts.audio_duration_seconds.map_or(0, millis),
            characters: facts.character_count,
        },
        unseen_input_tokens: facts.unseen_input_tokens,
        fixed_output: facts.fixed_output,
        max_wait_ms: 0,
        dry_run: false,
        labels: Default::default(),
    })
}

fn batch(facts: BatchFacts) -> Result<Batch, LineError> {
    Ok(Batch {
        line_operation: named(&facts.line_operation, "an operation")?,
        request_count: facts.request_count,
        window_ms: millis(facts.completion_window_seconds),
    })
}

fn settled(line: Settlement) -> Result<LoggedSettlement, LineError> {
    check_version(line.head.v)?;
    let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == line.outcome);
    let tier: Option<String> = line.service_tier;
    Ok(LoggedSettlement {
        time: instant(line.head.time),
        key: line.head.key,
        subject: Unreserved {
            caller: Caller::Team(line.head.team),
            user: line.user,
            request_id: line.reservation_id.clone(),
            model: line.head.model,
            operation: named(&line.head.operation, "an operation")?,
            batch: line.batch.map(batch).transpose()?,
            service_tier: tier.map(|tier| named(&tier, "a service tier")).transpose()?.unwrap_or_default(),
            labels: Default::default(),
        },
        reservation_id: line.reservation_id,
        outcome: outcome.ok_or_else(|| unknown("an outcome", &line.outcome))?,
        is_unreserved: line.result == "unreserved",
        is_release: line.result == "released",
        is_repeat: line.result == "repeated",
        cost_nanos: line.cost_nano_usd,
        usage: line.usage.map(usage),
    })
}

fn usage(used: Used) -> Usage {
    let tools = used.tool_calls.into_iter().map(|tool| ToolUsage {
        tool: tool.tool,
        calls: tool.call_count,
        run_ms: tool.run_duration_seconds.map_or(0, millis),
    });
    Usage {
        input_tokens: used.input_tokens,
        cached_input_tokens: used.cached_input_tokens,
        output_tokens: used.output_tokens,
        reasoning_tokens: used.reasoning_tokens,
        audio_ms: used.audio_duration_seconds.map_or(0, millis),
        characters: used.character_count,
        tools: tools.collect(),
        request_count: used.request_count,
    }
}

const fn check_version(version: u32) -> Result<(), LineError> {
    if version > VERSION { Err(LineError::Later(version)) } else { Ok(()) }
}

fn named<T: std::str::FromStr>(text: &str, kind: &'static str) -> Result<T, LineError> {
    text.parse().map_err(|_| unknown(kind, text))
}

fn unknown(kind: &'static str, value: &str) -> LineError {
    LineError::Unknown { kind, value: value.to_owned() }
}

fn instant(at: jiff::Timestamp) -> Timestamp {
    Timestamp(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

/// What is no length of time is none: the writer has only whole milliseconds.
fn millis(seconds: f64) -> u64 {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    u64::try_from((time + Duration::from_micros(500)).as_millis()).unwrap_or(u64::MAX)
}
