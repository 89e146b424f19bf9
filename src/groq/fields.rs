//! The fields that are read from a JSON body: only small values, whatever the body contains.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{
    error::ApiError,
    input::ReadInput,
    json::{SKIP, without_exponents, without_lone_surrogates},
    names::{self, folded, misspelt},
};
use crate::domain::{bounds::MAX_COUNT, request::Operation};

/// The most fields of one body; the APIs have fewer than fifty.
const MAX_FIELDS: usize = 256;
/// The most bytes of a string that are kept: the longest useful value, and a little more to detect values that are too
/// long.
const MAX_TEXT: usize = 1024;

/// The fields of a request. Values are kept as received; each is validated where it is used.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) model: Scalar,
    pub(super) max_tokens: Scalar,
    pub(super) max_completion_tokens: Scalar,
    pub(super) max_output_tokens: Scalar,
    pub(super) n: Scalar,
    pub(super) stream: Scalar,
    pub(super) service_tier: Scalar,
    pub(super) user: Scalar,
    pub(super) include_reasoning: Scalar,
    pub(super) reasoning_format: Scalar,
    pub(super) previous_response_id: Scalar,
    pub(super) conversation: Scalar,
    pub(super) prompt: Scalar,
    pub(super) background: Scalar,
    pub(super) endpoint: Scalar,
    pub(super) completion_window: Scalar,
    pub(super) metadata: Declared,
    /// Characters of the text in `input`.
    pub(super) input_characters: Option<u64>,
    /// Whether there are content parts that Groq fetches.
    pub(super) fetches: bool,
    /// The types of the tools.
    pub(super) tools: Vec<Scalar>,
    /// The tools enabled for Compound; `None`: not given.
    pub(super) enabled_tools: Option<Vec<Scalar>>,
}

impl Fields {
    fn slot(&mut self, name: &str) -> Option<&mut Scalar> {
        Some(match name {
            "model" => &mut self.model,
            "max_tokens" => &mut self.max_tokens,
            "max_completion_tokens" => &mut self.max_completion_tokens,
            "max_output_tokens" => &mut self.max_output_tokens,
            "n" => &mut self.n,
            "stream" => &mut self.stream,
            "service_tier" => &mut self.service_tier,
            "user" => &mut self.user,
            "include_reasoning" => &mut self.include_reasoning,
            "reasoning_format" => &mut self.reasoning_format,
            "previous_response_id" => &mut self.previous_response_id,
            "conversation" => &mut self.conversation,
            "prompt" => &mut self.prompt,
            "background" => &mut self.background,
            "endpoint" => &mut self.endpoint,
            "completion_window" => &mut self.completion_window,
            _ => return None,
        })
    }

    /// Whether a field of this name is read.
    fn knows(&mut self, name: &str) -> bool {
        const OTHERS: [&str; 7] =
            ["compound_custom", "documents", "input", "messages", "metadata", "stream_options", "tools"];
        self.slot(name).is_some() || OTHERS.contains(&name)
    }
}

/// A small value, or one that is only known to be present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `null`, or absent.
    #[default]
    Null,
    Flag(bool),
    Count(u64),
    Text(String),
    /// Anything else; no field that is read allows it.
    Other,
}

impl Scalar {
    pub(super) fn text(&self, param: &'static str) -> Result<String, ApiError> {
        match self {
            Self::Null => Ok(String::new()),
            Self::Text(text) => Ok(text.clone()),
            _ => Err(ApiError::invalid(param, format!("`{param}` must be a string"))),
        }
    }

    pub(super) fn flag(&self, param: &'static str) -> Result<Option<bool>, ApiError> {
        match self {
            Self::Null => Ok(None),
            Self::Flag(flag) => Ok(Some(*flag)),
            _ => Err(ApiError::invalid(param, format!("`{param}` must be true or false"))),
        }
    }

    pub(super) fn count(&self, param: &'static str) -> Result<Option<u64>, ApiError> {
        match self {
            Self::Null => Ok(None),
            Self::Count(count) if *count <= MAX_COUNT => Ok(Some(*count)),
            _ => {
                let message = format!("`{param}` must be a whole number from 0 to {MAX_COUNT}");
                Err(ApiError::invalid(param, message))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReadScalar)
    }
}

struct ReadScalar;

impl<'de> Visitor<'de> for ReadScalar {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Scalar, E> {
        Ok(Scalar::Flag(flag))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_u64<E>(self, count: u64) -> Result<Scalar, E> {
        Ok(Scalar::Count(count))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text[..text.floor_char_boundary(MAX_TEXT)].to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element_seed(SKIP)?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar, A::Error> {
        while entries.next_key_seed(SKIP)?.is_some() {
            entries.next_value_seed(SKIP)?;
        }
        Ok(Scalar::Other)
    }
}

/// The declarations in a batch's `metadata`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Declared {
    #[serde(rename = "tollgate_model")]
    pub(super) model: Scalar,
    #[serde(rename = "tollgate_input_tokens")]
    pub(super) input_tokens: Scalar,
    #[serde(rename = "tollgate_max_output_tokens")]
    pub(super) max_output_tokens: Scalar,
    #[serde(rename = "tollgate_audio_seconds")]
    pub(super) audio_seconds: Scalar,
    #[serde(rename = "tollgate_characters")]
    pub(super) characters: Scalar,
    #[serde(rename = "tollgate_batch_operation")]
    pub(super) batch_operation: Scalar,
    #[serde(rename = "tollgate_batch_requests")]
    pub(super) batch_requests: Scalar,
}

/// One of `tools`.
struct Tool {
    kind: Scalar,
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        names::known(["type"], deserializer).map(|[kind]| Self { kind })
    }
}

/// The parts of `compound_custom` that concern tools.
struct Compound {
    tools: Option<CompoundTools>,
}

impl<'de> Deserialize<'de> for Compound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        names::known(["tools"], deserializer).map(|[tools]| Self { tools })
    }
}

struct CompoundTools {
    enabled_tools: Option<Vec<Scalar>>,
}

impl<'de> Deserialize<'de> for CompoundTools {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        names::known(["enabled_tools"], deserializer).map(|[enabled_tools]| Self { enabled_tools })
    }
}

/// Reads the fields of a JSON object: of a request for this operation, or of a nested object, where only the names and the
/// allowed content are checked.
pub(super) fn read(operation: Option<Operation>, body: &[u8]) -> Result<Fields, ApiError> {
    let body = without_lone_surrogates(body);
    let (read, reader) = read_once(operation, &body);
    let is_too_large = |error: &serde_json::Error| error.to_string().starts_with("number out of range");
    let (read, reader) = match read {
        Err(error) if is_too_large(&error) => read_once(operation, &without_exponents(&body)),
        read => (read, reader),
    };
    match (read, reader.fault) {
        (Ok(()), _) => Ok(reader.fields),
        (Err(_), Some(fault)) => Err(fault),
        // The parser's message may contain a part of the body; the position does not.
        (Err(error), None) => Err(ApiError::invalid("", described(&error, reader.at))),
    }
}

fn read_once(operation: Option<Operation>, body: &[u8]) -> (Result<(), serde_json::Error>, Reader) {
    let mut reader = Reader { operation, ..Reader::default() };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = reader.read(&mut deserializer).and_then(|()| deserializer.end());
    (read, reader)
}

fn described(error: &serde_json::Error, field: &str) -> String {
    if let Some(name) = misspelt(error) {
        return format!("in `{field}`: {}", in_lower_case(&name));
    }
    let at = format!("line {}, column {}", error.line(), error.column());
    if error.to_string().starts_with("recursion limit exceeded") {
        return format!("the body is nested too deeply at {at}: at most 127 levels are read");
    }
    match error.classify() {
        serde_json::error::Category::Eof => format!("the body is not valid JSON: it ends at {at}"),
        serde_json::error::Category::Data if !field.is_empty() => format!("`{field}` cannot be read"),
        serde_json::error::Category::Data => "the body must be a JSON object".to_owned(),
        _ => format!("the body is not valid JSON at {at}"),
    }
}

fn in_lower_case(name: &str) -> String {
    format!("a field's name must be written `{name}`, in lower case")
}

#[derive(Default)]
struct Reader {
    operation: Option<Operation>,
    fields: Fields,
    seen: HashSet<String>,
    /// The field with a special format that is being read.
    at: &'static str,
    /// The fault, if it is not in the JSON itself.
    fault: Option<ApiError>,
}

impl Reader {
    fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    /// Records a name; an error if another reader could take it for a known name or for one that was already seen.
    fn name(&mut self, name: &str) -> Result<(), ApiError> {
        let folded = folded(name);
        if *folded != *name && self.fields.knows(&folded) {
            return Err(ApiError::invalid("", in_lower_case(&folded)));
        }
        if self.seen.len() >= MAX_FIELDS {
            return Err(ApiError::invalid("", format!("the body has more than {MAX_FIELDS} fields")));
        }
        if self.seen.insert(folded.into_owned()) {
            return Ok(());
        }
        let shown = name.chars().take(64).collect::<String>();
        Err(ApiError::invalid("", format!("the body has the field `{shown}` twice")))
    }

    fn value<'de, A: MapAccess<'de>>(&mut self, name: &str, entries: &mut A) -> Result<(), A::Error> {
        if let Some(slot) = self.fields.slot(name) {
            *slot = entries.next_value()?;
            return Ok(());
        }
        // Fields of other operations may have any form.
        let has_tools = matches!(self.operation, Some(Operation::Chat | Operation::Responses));
        match name {
            "input" => {
                self.at = "input";
                let input = entries.next_value_seed(ReadInput)?;
                self.fields.input_characters = Some(input.characters);
                self.fields.fetches |= input.fetched > 0;
            }
            "messages" | "documents" => {
                self.at = if name == "messages" { "messages" } else { "documents" };
                self.fields.fetches |= entries.next_value_seed(ReadInput)?.fetched > 0;
            }
            "metadata" if self.operation == Some(Operation::Batch) => {
                self.at = "metadata";
                self.fields.metadata = entries.next_value::<Option<Declared>>()?.unwrap_or_default();
            }
            "tools" if has_tools => {
                self.at = "tools";
                let tools = entries.next_value::<Option<Vec<Tool>>>()?.unwrap_or_default();
                self.fields.tools = tools.into_iter().map(|tool| tool.kind).collect();
            }
            "compound_custom" if has_tools => {
                self.at = "compound_custom";
                let compound = entries.next_value::<Option<Compound>>()?.and_then(|compound| compound.tools);
                self.fields.enabled_tools = compound.and_then(|tools| tools.enabled_tools);
            }
            _ => {
                entries.next_value_seed(SKIP)?;
            }
        }
        self.at = "";
        Ok(())
    }
}

impl<'de> Visitor<'de> for &mut Reader {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key::<Cow<'_, str>>()? {
            if let Err(fault) = self.name(&name) {
                self.fault = Some(fault);
                return Err(A::Error::custom("a fault"));
            }
            self.value(&name, &mut entries)?;
        }
        Ok(())
    }
}
