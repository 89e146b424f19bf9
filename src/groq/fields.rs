//! The fields of a JSON body that are read: small values only, whatever a body holds.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{
    error::ApiError,
    input::ReadInput,
    json::{SKIP, without_lone_surrogates},
};
use crate::domain::bounds::MAX_COUNT;

/// Fields of one body; the APIs have fewer than fifty.
const MAX_FIELDS: usize = 256;
/// Bytes of a string that is kept: the longest that is of use, and some more so that it is seen to be too long.
const MAX_TEXT: usize = 1024;

/// The fields of a request. Values as they came; each is judged where it is used.
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
    /// The tools that Compound is to have; `None`: not said.
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

/// A value that is small, or only known to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `null`, or not given.
    #[default]
    Null,
    Flag(bool),
    Count(u64),
    Text(String),
    /// Anything else, which nothing that is read may be.
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

/// What the `metadata` of a batch declares.
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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tool {
    #[serde(rename = "type")]
    kind: Scalar,
}

/// `compound_custom`, as far as it tells of tools.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Compound {
    tools: Option<CompoundTools>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompoundTools {
    enabled_tools: Option<Vec<Scalar>>,
}

/// Reads the fields of a JSON object.
pub(super) fn read(body: &[u8]) -> Result<Fields, ApiError> {
    let body = without_lone_surrogates(body);
    let mut reader = Reader::default();
    let mut deserializer = serde_json::Deserializer::from_slice(&body);
    let read = reader.read(&mut deserializer).and_then(|()| deserializer.end());
    match (read, reader.fault) {
        (Ok(()), _) => Ok(reader.fields),
        (Err(_), Some(fault)) => Err(fault),
        // The parser's own words may hold a part of the body; its place in it does not.
        (Err(error), None) => Err(ApiError::invalid("", described(&error, reader.at))),
    }
}

fn described(error: &serde_json::Error, field: &str) -> String {
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

#[derive(Default)]
struct Reader {
    fields: Fields,
    seen: HashSet<String>,
    /// The field with a form of its own that is being read.
    at: &'static str,
    /// What is wrong, where it is not the JSON itself.
    fault: Option<ApiError>,
}

impl Reader {
    fn read<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    /// Notes a name; an error where another reader could take it for one that is known or was seen.
    fn name(&mut self, name: &str) -> Result<(), ApiError> {
        let folded = folded(name);
        if *folded != *name && self.fields.knows(&folded) {
            let message = format!("a field's name must be written `{folded}`, in lower case");
            return Err(ApiError::invalid("", message));
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
        match name {
            "input" => {
                let input = entries.next_value_seed(ReadInput)?;
                self.fields.input_characters = Some(input.characters);
                self.fields.fetches |= input.fetched > 0;
            }
            "messages" | "documents" => {
                self.fields.fetches |= entries.next_value_seed(ReadInput)?.fetched > 0;
            }
            "metadata" => {
                self.at = "metadata";
                self.fields.metadata = entries.next_value::<Option<Declared>>()?.unwrap_or_default();
                self.at = "";
            }
            "tools" => {
                self.at = "tools";
                let tools = entries.next_value::<Option<Vec<Tool>>>()?.unwrap_or_default();
                self.fields.tools = tools.into_iter().map(|tool| tool.kind).collect();
                self.at = "";
            }
            "compound_custom" => {
                self.at = "compound_custom";
                let compound = entries.next_value::<Option<Compound>>()?.unwrap_or_default();
                self.fields.enabled_tools = compound.tools.and_then(|tools| tools.enabled_tools);
                self.at = "";
            }
            _ => {
                entries.next_value_seed(SKIP)?;
            }
        }
        Ok(())
    }
}

/// A name as a reader takes it that ignores case, with the letters that only some fold (`ſ`, the Kelvin sign).
fn folded(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.to_uppercase().to_lowercase())
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
