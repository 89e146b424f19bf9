//! A case as a file says it: `tests/decisions/<behaviour>.toml`. A key that is not known is an error, never ignored.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tollgate::{domain::Timestamp, rpc::proto};

use super::{expect::Expect, units::Millis};

/// One case, ready to be played.
pub(crate) struct Case {
    /// The file's name without `.toml`: the behaviour.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) start: Timestamp,
    pub(crate) policy: String,
    pub(crate) steps: Vec<Step>,
}

/// One call, or one change of the policy, at one time.
pub(crate) struct Step {
    /// Since the start.
    pub(crate) at: Millis,
    pub(crate) action: Action,
    pub(crate) expect: Expect,
    /// What later steps call the reservation, or the page.
    pub(crate) name: Option<String>,
    pub(crate) repeat: u32,
    /// How far the clock moves while the call waits.
    pub(crate) advance_while_waiting: Option<Millis>,
    /// What is recorded while the call waits.
    pub(crate) record_while_waiting: Option<Record>,
}

impl Step {
    /// Whether something happens while the call waits.
    pub(crate) const fn waits(&self) -> bool {
        self.advance_while_waiting.is_some() || self.record_while_waiting.is_some()
    }
}

pub(crate) enum Action {
    Authorize(Authorize),
    Record(Record),
    Spend(Spend),
    Policy(String),
}

impl Action {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Authorize(_) => "authorize",
            Self::Record(_) => "record",
            Self::Spend(_) => "spend",
            Self::Policy(_) => "policy",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    description: String,
    start: toml_edit::Datetime,
    policy: String,
    /// What every `authorize` asks unless it says otherwise.
    #[serde(default)]
    request: Map<String, Value>,
    steps: Vec<StepEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepEntry {
    at: Millis,
    authorize: Option<Map<String, Value>>,
    record: Option<Value>,
    spend: Option<Value>,
    policy: Option<String>,
    #[serde(rename = "as")]
    name: Option<String>,
    repeat: Option<u32>,
    advance_while_waiting: Option<Millis>,
    record_while_waiting: Option<Value>,
    #[serde(default)]
    expect: Map<String, Value>,
}

/// The fields of `AuthorizeRequest`, by name.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Authorize {
    pub(crate) team: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) user: String,
    pub(crate) request_id: String,
    pub(crate) model: String,
    pub(crate) operation: Operation,
    pub(crate) service_tier: ServiceTier,
    pub(crate) input_tokens: i64,
    pub(crate) input_bytes: i64,
    pub(crate) max_output_tokens: i64,
    pub(crate) audio_duration: Option<Millis>,
    pub(crate) character_count: i64,
    pub(crate) max_wait: Option<Millis>,
    pub(crate) dry_run: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) batch: Option<Batch>,
    pub(crate) tools: Vec<String>,
}

/// The fields of `Batch`, by name.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Batch {
    pub(crate) line_operation: Operation,
    pub(crate) request_count: i64,
    pub(crate) completion_window: Option<Millis>,
}

/// The fields of `RecordUsageRequest`, by name; `reservation` is the name that an earlier step gave.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Record {
    pub(crate) reservation: Option<String>,
    pub(crate) reservation_id: String,
    pub(crate) team: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) user: String,
    pub(crate) request_id: String,
    pub(crate) model: String,
    pub(crate) operation: Operation,
    pub(crate) service_tier: ServiceTier,
    pub(crate) usage: Option<Usage>,
    pub(crate) outcome: Outcome,
    pub(crate) upstream_retry_delay: Option<Millis>,
    pub(crate) batch: Option<Batch>,
    pub(crate) upstream_status: i32,
}

/// The fields of `Usage`, by name.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Usage {
    pub(crate) input_tokens: i64,
    pub(crate) cached_input_tokens: i64,
    pub(crate) output_tokens: i64,
    pub(crate) reasoning_tokens: i64,
    pub(crate) audio_duration: Option<Millis>,
    pub(crate) character_count: i64,
    pub(crate) tool_calls: Vec<ToolUsage>,
    pub(crate) request_count: i64,
}

/// The fields of `ToolUsage`, by name.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ToolUsage {
    pub(crate) tool: String,
    pub(crate) call_count: i64,
    pub(crate) run_duration: Option<Millis>,
}

/// The fields of `GetSpendRequest`, by name; `page_after` is the name that an earlier step gave its page.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spend {
    pub(crate) team: String,
    pub(crate) month: String,
    pub(crate) page_size: i32,
    pub(crate) page_token: String,
    pub(crate) page_after: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    #[default]
    Unspecified,
    ChatCompletion,
    Response,
    Transcription,
    Translation,
    Speech,
    Embedding,
    Batch,
}

impl From<Operation> for i32 {
    fn from(operation: Operation) -> Self {
        Self::from(match operation {
            Operation::Unspecified => proto::Operation::Unspecified,
            Operation::ChatCompletion => proto::Operation::ChatCompletion,
            Operation::Response => proto::Operation::Response,
            Operation::Transcription => proto::Operation::Transcription,
            Operation::Translation => proto::Operation::Translation,
            Operation::Speech => proto::Operation::Speech,
            Operation::Embedding => proto::Operation::Embedding,
            Operation::Batch => proto::Operation::Batch,
        })
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceTier {
    #[default]
    Unspecified,
    OnDemand,
    Flex,
    Auto,
    Performance,
}

impl From<ServiceTier> for i32 {
    fn from(tier: ServiceTier) -> Self {
        Self::from(match tier {
            ServiceTier::Unspecified => proto::ServiceTier::Unspecified,
            ServiceTier::OnDemand => proto::ServiceTier::OnDemand,
            ServiceTier::Flex => proto::ServiceTier::Flex,
            ServiceTier::Auto => proto::ServiceTier::Auto,
            ServiceTier::Performance => proto::ServiceTier::Performance,
        })
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    #[default]
    Unspecified,
    Completed,
    Aborted,
    Failed,
    RateLimited,
    NotSent,
}

impl From<Outcome> for i32 {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Unspecified => proto::Outcome::Unspecified,
            Outcome::Completed => proto::Outcome::Completed,
            Outcome::Aborted => proto::Outcome::Aborted,
            Outcome::Failed => proto::Outcome::Failed,
            Outcome::RateLimited => proto::Outcome::RateLimited,
            Outcome::NotSent => proto::Outcome::NotSent,
        })
    }
}

/// Where the cases are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions")
}

/// All cases, by name.
pub(crate) fn load_all() -> Result<Vec<Case>, String> {
    let directory = directory();
    let entries = fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.map_err(|e| format!("{}: {e}", directory.display()))?.path());
    }
    files.sort();
    files.iter().map(|file| load(file).map_err(|e| format!("{}: {e}", file.display()))).collect()
}

fn load(path: &Path) -> Result<Case, String> {
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Err("not a case: every file here is `<behaviour>.toml`".to_owned());
    }
    let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("the name is not UTF-8")?.to_owned();
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    parse(name, &text)
}

/// The case that `text` is.
pub(crate) fn parse(name: String, text: &str) -> Result<Case, String> {
    let file: CaseFile = toml_edit::de::from_str(text).map_err(|e| e.to_string())?;
    let start: jiff::Timestamp = file.start.to_string().parse().map_err(|e| format!("start: {e}"))?;
    let start = u64::try_from(start.as_millisecond()).map_err(|_| "start is before 1970")?;
    let mut steps: Vec<Step> = Vec::new();
    for (index, entry) in file.steps.into_iter().enumerate() {
        let step = entry.parse(&file.request).map_err(|e| format!("step {}: {e}", index + 1))?;
        let earliest =
            steps.last().map_or(0, |last| last.at.0 + last.advance_while_waiting.map_or(0, |by| by.0));
        if step.at.0 < earliest {
            return Err(format!(
                "step {} is at {}, before the step ahead of it has ended",
                index + 1,
                step.at
            ));
        }
        steps.push(step);
    }
    Ok(Case { name, description: file.description, start: Timestamp(start), policy: file.policy, steps })
}

impl StepEntry {
    fn parse(self, defaults: &Map<String, Value>) -> Result<Step, String> {
        let action = match (self.authorize, self.record, self.spend, self.policy) {
            (Some(fields), None, None, None) => Action::Authorize(typed(with_defaults(fields, defaults))?),
            (None, Some(fields), None, None) => Action::Record(typed(fields)?),
            (None, None, Some(fields), None) => Action::Spend(typed(fields)?),
            (None, None, None, Some(policy)) => Action::Policy(policy),
            _ => return Err("needs exactly one of `authorize`, `record`, `spend` and `policy`".to_owned()),
        };
        let expect = Expect::parse(&action, self.expect)?;
        let record_while_waiting = self.record_while_waiting.map(typed).transpose()?;
        let step = Step {
            at: self.at,
            action,
            expect,
            name: self.name,
            repeat: self.repeat.unwrap_or(1),
            advance_while_waiting: self.advance_while_waiting,
            record_while_waiting,
        };
        if step.repeat == 0 || (step.repeat > 1 && (step.name.is_some() || step.waits())) {
            return Err("`repeat` is at least 1 and goes with neither `as` nor waiting".to_owned());
        }
        if step.waits() && !matches!(&step.action, Action::Authorize(Authorize { max_wait: Some(_), .. })) {
            return Err("what happens while waiting needs an `authorize` with `max_wait`".to_owned());
        }
        Ok(step)
    }
}

fn with_defaults(fields: Map<String, Value>, defaults: &Map<String, Value>) -> Value {
    let mut merged = defaults.clone();
    if fields.contains_key("team") || fields.contains_key("api_key") {
        merged.remove("team");
        merged.remove("api_key");
    }
    merged.extend(fields);
    Value::Object(merged)
}

pub(super) fn typed<T: DeserializeOwned>(fields: Value) -> Result<T, String> {
    serde_json::from_value(fields).map_err(|e| e.to_string())
}
