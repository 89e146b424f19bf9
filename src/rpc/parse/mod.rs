//! From the wire to the domain: every bound is checked here, once, and every breach is named.

mod alerts;
mod audit;
mod decisions;
mod drift;
mod limits;
mod lists;
mod size;
mod usage;
mod windows;

use std::time::Duration;

use tonic::Status;

pub(super) use self::{
    alerts::alerts,
    audit::audit,
    decisions::{DecisionFilter, decisions},
    drift::drift,
    limits::{budgets, limits},
    usage::{denials, usage},
    windows::counts,
};

use super::{
    convert,
    key_parse::{MAX_KEY_BYTES, key_caller},
    page::{ListContext, PageRequest, PageTokens, SpendCursor, SpendPlace},
    proto::{self, authorize_request, record_usage_request},
    status::{FieldErrors, MALFORMED},
};
use crate::{
    authorizer::ReservationName,
    domain::{
        bounds::Most,
        calendar,
        name::{MAX_MODEL_BYTES, MAX_NAME_BYTES, MAX_USER_BYTES},
        request::{
            AuthorizeRequest, Caller, Operation, Outcome, ServiceTier, Size, Unreserved, Usage,
            tokens_of_bytes,
        },
    },
    reports::SpendQuery,
};

/// The longest a call may wait: longer than any client keeps a call open without asking for it.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The longest cooldown that a report can ask for on Groq's word: Groq's longest window is a day.
const MAX_UPSTREAM_DELAY: Duration = Duration::from_secs(24 * 3600);
const NANOS_PER_SECOND: u32 = 1_000_000_000;
const MAX_LABELS: usize = 16;
const MAX_REQUEST_ID_BYTES: usize = 128;
/// A project's name, a slash and a digest.
const MAX_UPSTREAM_KEY_BYTES: usize = 128;
/// The HTTP status with which Groq refuses a key.
const UNAUTHORIZED: i32 = 401;
const MAX_LABEL_KEY_BYTES: usize = 64;
const MAX_LABEL_VALUE_BYTES: usize = 256;

/// A well-formed `AuthorizeRequest`, and which limits its answer lists.
pub(super) fn authorize(
    request: proto::AuthorizeRequest,
) -> Result<(AuthorizeRequest, proto::LimitView), Status> {
    let mut errors = FieldErrors::default();
    let caller = match request.caller {
        Some(authorize_request::Caller::Team(team)) => errors.team("team", team),
        Some(authorize_request::Caller::ApiKey(secret)) => errors.api_key("api_key", &secret),
        None => errors.missing("caller", "set `team` or `api_key`"),
    };
    let user = errors.text("user", request.user, 0, MAX_USER_BYTES);
    let request_id = errors.text("request_id", request.request_id, 0, MAX_REQUEST_ID_BYTES);
    let model = errors.text("model", request.model, 1, MAX_MODEL_BYTES);
    let operation = errors.operation(request.operation);
    let service_tier = errors.service_tier(request.service_tier).unwrap_or_default();
    let batch = errors.batch(request.batch, operation);
    let most = Most::of(batch.map_or(1, |batch| batch.request_count));
    let longest = Duration::from_millis(most.audio_ms);
    let input_tokens = errors.count("input_tokens", request.input_tokens, most.count);
    let input_bytes = errors.count("input_bytes", request.input_bytes, most.input_bytes);
    let size = Size {
        input_tokens: if input_tokens > 0 { input_tokens } else { tokens_of_bytes(input_bytes) },
        max_output_tokens: errors.count("max_output_tokens", request.max_output_tokens, most.count),
        audio_ms: errors.duration("audio_duration", request.audio_duration, longest),
        characters: errors.count("character_count", request.character_count, most.count),
    };
    let tools = errors.tools(request.tools);
    let max_wait_ms = errors.duration("max_wait", request.max_wait, MAX_WAIT);
    errors.labels(&request.labels);
    let view = proto::LimitView::try_from(request.limit_view).unwrap_or_else(|_| {
        errors.add("limit_view", format!("is {}; not a value of `LimitView`", request.limit_view));
        proto::LimitView::Unspecified
    });
    let (Some(caller), Some(operation), true) = (caller, operation, errors.is_empty()) else {
        return Err(errors.into_status());
    };
    let request = AuthorizeRequest {
        caller,
        user,
        request_id,
        model,
        operation,
        service_tier,
        batch,
        tools,
        size,
        unseen_input_tokens: 0,
        // What its lines ask for is already written in a file.
        fixed_output: operation == Operation::Batch,
        max_wait_ms,
        dry_run: request.dry_run,
        labels: request.labels,
    };
    Ok((request, view))
}

/// What a `RecordUsageRequest` reports.
pub(super) struct Report {
    /// The reservation, or what is known about usage without one.
    pub(super) subject: Subject,
    /// What was used.
    pub(super) usage: Option<Usage>,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// How long Groq said to wait, in milliseconds.
    pub(super) upstream_delay_ms: u64,
    /// The name of the Groq key that Groq refused.
    pub(super) refused_key: Option<String>,
}

/// What a report is about.
pub(super) enum Subject {
    /// A reservation.
    Reservation(ReservationName),
    /// Usage that was never authorized.
    Unreserved(Unreserved),
}

/// A well-formed `RecordUsageRequest`.
pub(super) fn record_usage(request: proto::RecordUsageRequest) -> Result<Report, Status> {
    let mut errors = FieldErrors::default();
    let outcome = errors.outcome(request.outcome);
    let lines = request.batch.as_ref().map_or(1, |batch| u64::try_from(batch.request_count).unwrap_or(1));
    // The operation of a reservation is known once it is found.
    let is_reserved = !request.reservation_id.is_empty();
    let most = if is_reserved { Most::largest() } else { Most::of(lines) };
    let usage = request.usage.map(|usage| errors.usage(usage, most));
    if outcome == Some(Outcome::Completed) && usage.is_none() {
        errors.add("usage", "required for OUTCOME_COMPLETED: copy it from Groq's answer");
    }
    let upstream_delay_ms =
        errors.duration("upstream_retry_delay", request.upstream_retry_delay, MAX_UPSTREAM_DELAY);
    if upstream_delay_ms > 0 && outcome.is_some_and(|outcome| outcome != Outcome::RateLimited) {
        errors.add("upstream_retry_delay", "only with OUTCOME_RATE_LIMITED");
    }
    let refused_key = errors.refused_key(request.upstream_status, request.upstream_key, outcome);
    let subject = if request.reservation_id.is_empty() {
        let caller = match request.caller {
            Some(record_usage_request::Caller::Team(team)) => errors.team("team", team),
            Some(record_usage_request::Caller::ApiKey(secret)) => errors.api_key("api_key", &secret),
            None => errors.missing(
                "reservation_id",
                "set it, or `team` or `api_key` with `request_id`, `model` and `operation`",
            ),
        };
        let user = errors.text("user", request.user, 0, MAX_USER_BYTES);
        let request_id = errors.text("request_id", request.request_id, 1, MAX_REQUEST_ID_BYTES);
        let model = errors.text("model", request.model, 1, MAX_MODEL_BYTES);
        let operation = errors.operation(request.operation);
        let service_tier = errors.service_tier(request.service_tier).unwrap_or_default();
        let batch = errors.batch(request.batch, operation);
        errors.labels(&request.labels);
        let labels = request.labels;
        caller.zip(operation).map(|(caller, operation)| {
            let subject =
                Unreserved { caller, user, request_id, model, operation, batch, service_tier, labels };
            Subject::Unreserved(subject)
        })
    } else {
        if request.batch.is_some() {
            errors.add("batch", "only without `reservation_id`: a reservation has its own");
        }
        if !request.labels.is_empty() {
            errors.add("labels", "only without `reservation_id`: a reservation has its own");
        }
        errors.reservation(&request.reservation_id)
    };
    match (subject, outcome) {
        (Some(subject), Some(outcome)) if errors.is_empty() => {
            Ok(Report { subject, usage, outcome, upstream_delay_ms, refused_key })
        }
        _ => Err(errors.into_status()),
    }
}

/// A well-formed `GetSpendRequest`: what to report, where to continue, and the tokens of the list.
pub(super) fn spend(
    mut request: proto::GetSpendRequest,
    context: &ListContext,
) -> Result<(SpendQuery, SpendPlace, PageTokens<SpendCursor>), Status> {
    let mut errors = FieldErrors::default();
    let PageRequest { size, after, tokens } = errors.page(&mut request, context);
    let team = errors.text("team", request.team, 0, MAX_NAME_BYTES);
    let month = match request.month.as_str() {
        "" => None,
        text => calendar::parse_month(text).map_err(|error| errors.add("month", error.to_string())).ok(),
    };
    let (month, place) =
        after.map_or_else(|| (month, SpendPlace::default()), |after| (Some(after.month), after.place));
    let (after, within) = (place.team.clone(), place.line.is_some());
    errors.or((SpendQuery { team, month, page_size: size, after, within }, place, tokens))
}

/// The checks of single fields. Each names the field in an error and returns a harmless value in its place.
impl FieldErrors {
    /// `value`, unless something is wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, Status> {
        if self.is_empty() { Ok(value) } else { Err(self.into_status()) }
    }

    /// The Groq key that Groq refused, if that is how the request failed.
    fn refused_key(&mut self, status: i32, key: String, outcome: Option<Outcome>) -> Option<String> {
        let key = self.text("upstream_key", key, 0, MAX_UPSTREAM_KEY_BYTES);
        if status != 0 && !(400..=599).contains(&status) {
            self.add("upstream_status", format!("is {status}; must be 0, or from 400 to 599"));
        } else if status != 0 && outcome.is_some_and(|outcome| outcome != Outcome::Failed) {
            self.add("upstream_status", "only with OUTCOME_FAILED");
        }
        (status == UNAUTHORIZED && !key.is_empty()).then_some(key)
    }

    fn missing(&mut self, field: &str, fix: &str) -> Option<Caller> {
        self.add(field, format!("required: {fix}"));
        None
    }

    fn team(&mut self, field: &str, team: String) -> Option<Caller> {
        Some(Caller::Team(self.text(field, team, 1, MAX_NAME_BYTES)))
    }

    fn api_key(&mut self, field: &str, secret: &str) -> Option<Caller> {
        let caller = key_caller(secret);
        if caller.is_none() {
            self.add(field, format!("must have 1 to {MAX_KEY_BYTES} bytes"));
        }
        caller
    }

    pub(super) fn text(&mut self, field: &str, text: String, least: usize, most: usize) -> String {
        if text.len() < least {
            self.add(field, "required: must not be empty");
        } else if text.len() > most {
            self.add(field, format!("has {} bytes; at most {most} are permitted", text.len()));
        } else if text.chars().any(char::is_control) {
            self.add(field, "must not contain control characters");
        }
        text
    }

    pub(super) fn count(&mut self, field: &str, value: i64, most: u64) -> u64 {
        match u64::try_from(value) {
            Ok(value) if value <= most => value,
            _ => {
                self.add(field, format!("is {value}; must be from 0 to {most}"));
                0
            }
        }
    }

    pub(super) fn duration(
        &mut self,
        field: &str,
        value: Option<prost_types::Duration>,
        most: Duration,
    ) -> u64 {
        let Some(value) = value else { return 0 };
        // By hand: the conversion of `prost_types` negates negative values, and the least integer has no opposite.
        let parts = u64::try_from(value.seconds).ok().zip(u32::try_from(value.nanos).ok());
        let duration =
            parts.filter(|(_, nanos)| *nanos < NANOS_PER_SECOND).map(|(s, nanos)| Duration::new(s, nanos));
        match duration {
            Some(duration) if duration <= most => {
                // Bounded above, so the milliseconds fit; a partial millisecond counts as a whole one.
                u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
            }
            _ => {
                self.add(field, format!("must be from 0s to {}s", most.as_secs()));
                0
            }
        }
    }

    fn operation(&mut self, value: i32) -> Option<Operation> {
        self.operation_in("operation", value)
    }

    pub(super) fn operation_in(&mut self, field: &str, value: i32) -> Option<Operation> {
        let Ok(operation) = proto::Operation::try_from(value) else {
            self.add(field, format!("{value} is not an operation"));
            return None;
        };
        let operation = convert::operation_of(operation);
        if operation.is_none() {
            self.add(field, "required, such as OPERATION_CHAT_COMPLETION");
        }
        operation
    }

    /// `None`: unspecified, or not a tier.
    pub(super) fn service_tier(&mut self, value: i32) -> Option<ServiceTier> {
        match proto::ServiceTier::try_from(value) {
            Ok(tier) => convert::service_tier_of(tier),
            Err(_) => {
                self.add("service_tier", format!("{value} is not a service tier"));
                None
            }
        }
    }

    fn outcome(&mut self, value: i32) -> Option<Outcome> {
        let Ok(outcome) = proto::Outcome::try_from(value) else {
            self.add("outcome", format!("{value} is not an outcome"));
            return None;
        };
        let outcome = convert::outcome_of(outcome);
        if outcome.is_none() {
            self.add("outcome", "required, such as OUTCOME_COMPLETED");
        }
        outcome
    }

    fn reservation(&mut self, text: &str) -> Option<Subject> {
        match text.parse() {
            Ok(id) => Some(Subject::Reservation(id)),
            Err(error) => {
                self.add("reservation_id", format!("{MALFORMED}: {error}"));
                None
            }
        }
    }

    fn labels(&mut self, labels: &std::collections::HashMap<String, String>) {
        if labels.len() > MAX_LABELS {
            self.add("labels", format!("has {} pairs; at most {MAX_LABELS} are permitted", labels.len()));
        }
        for (key, value) in labels.iter().take(MAX_LABELS) {
            if key.is_empty() || key.len() > MAX_LABEL_KEY_BYTES || value.len() > MAX_LABEL_VALUE_BYTES {
                self.add(
                    "labels",
                    format!(
                        "keys have 1 to {MAX_LABEL_KEY_BYTES} bytes, values at most {MAX_LABEL_VALUE_BYTES}"
                    ),
                );
            }
            if value.chars().any(char::is_control) {
                self.add("labels", format!("the value of `{}` has control characters", key.escape_debug()));
            }
        }
    }
}
