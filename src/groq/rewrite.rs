//! Writes the granted values into a request, and leaves every other byte unchanged.

use std::{fmt, ops::Range};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{error::ApiError, fields, json::without_lone_surrogates, request};
use crate::domain::request::Operation;

/// The values to write into a request to Groq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The most output tokens of each choice.
    pub max_output_tokens: u64,
    /// Whether a stream should end with its usage.
    pub include_usage: bool,
}

/// The `body` with `change` applied; `None` if the body already matches, or if the operation has nothing to change.
///
/// # Errors
/// The body cannot be read, as in [`request::read`].
pub fn rewrite(operation: Operation, body: &[u8], change: Change) -> Result<Option<Vec<u8>>, ApiError> {
    let limits: &[&str] = match operation {
        Operation::Chat => &["max_completion_tokens", "max_tokens"],
        Operation::Responses => &["max_output_tokens"],
        _ => return Ok(None),
    };
    // Anything ambiguous is refused here, as it was at admission.
    let asked = request::read(operation, "application/json", body)?;
    // A body that cannot be parsed directly is parsed as a copy of the same length; every byte that stays comes from the
    // body itself.
    let readable = without_lone_surrogates(body);
    let fields = raw_fields(&readable)?;
    let mut edits = Edits { body, readable: &readable, edits: Vec::new() };
    edits.limit(&fields, limits, change.max_output_tokens);
    if change.include_usage && asked.stream && operation == Operation::Chat {
        edits.include_usage(&fields)?;
    }
    Ok(edits.apply())
}

type Fields<'a> = Vec<(String, &'a RawValue)>;

fn raw_fields(body: &[u8]) -> Result<Fields<'_>, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let unreadable = |_| ApiError::invalid("", "the body is not valid JSON");
    deserializer.deserialize_map(RawFields).map_err(unreadable)
}

struct RawFields;

impl<'de> Visitor<'de> for RawFields {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            fields.push(entry);
        }
        Ok(fields)
    }
}

/// Pieces of a body, and their replacements.
struct Edits<'a> {
    body: &'a [u8],
    /// The body in the form that is parsed: a copy of the same length, or itself.
    readable: &'a [u8],
    edits: Vec<(Range<usize>, String)>,
}

impl Edits<'_> {
    /// Lowers every limit above `most`, and adds one if there is none.
    fn limit(&mut self, fields: &Fields<'_>, names: &[&str], most: u64) {
        let mut given = false;
        for (_, value) in fields.iter().filter(|(name, _)| names.contains(&name.as_str())) {
            let asked = value.get().parse::<u64>().ok();
            given |= asked.is_some();
            if asked.is_some_and(|asked| asked > most) {
                self.replace(value, most.to_string());
            }
        }
        if given {
            return;
        }
        // A `null` limit counts as absent. It is replaced, since adding one would give two fields with the same name.
        match fields.iter().find(|(name, _)| names.contains(&name.as_str())) {
            Some((_, value)) => self.replace(value, most.to_string()),
            None => {
                let name = names.first().copied().unwrap_or_default();
                self.insert(self.body, 0, &format!("\"{name}\":{most}"));
            }
        }
    }

    fn include_usage(&mut self, fields: &Fields<'_>) -> Result<(), ApiError> {
        let Some((_, options)) = fields.iter().find(|(name, _)| name == "stream_options") else {
            self.insert(self.body, 0, "\"stream_options\":{\"include_usage\":true}");
            return Ok(());
        };
        if options.get() == "null" {
            self.replace(options, "{\"include_usage\":true}".to_owned());
            return Ok(());
        }
        // The same reader refuses two fields with the same name in it.
        fields::read(None, options.get().as_bytes()).map_err(|fault| {
            ApiError::invalid("stream_options", format!("`stream_options`: {}", fault.message))
        })?;
        let inner = raw_fields(options.get().as_bytes())?;
        match inner.iter().find(|(name, _)| name == "include_usage") {
            Some((_, value)) if value.get() == "true" => {}
            Some((_, value)) => self.replace(value, "true".to_owned()),
            None => {
                self.insert(options.get().as_bytes(), self.offset(options.get()), "\"include_usage\":true")
            }
        }
        Ok(())
    }

    fn replace(&mut self, value: &RawValue, text: String) {
        let at = self.offset(value.get());
        self.edits.push((at..at + value.get().len(), text));
    }

    /// Inserts a field at the beginning of `object`, which starts `from` bytes into the body.
    fn insert(&mut self, object: &[u8], from: usize, field: &str) {
        let brace = object.iter().position(|byte| *byte == b'{').unwrap_or_default() + 1;
        let is_empty = object.get(brace..).unwrap_or_default().trim_ascii_start().starts_with(b"}");
        let at = from + brace;
        self.edits.push((at..at, if is_empty { field.to_owned() } else { format!("{field},") }));
    }

    /// Where `part`, a piece of the parsed text, begins in the body.
    fn offset(&self, part: &str) -> usize {
        part.as_ptr().addr() - self.readable.as_ptr().addr()
    }

    fn apply(mut self) -> Option<Vec<u8>> {
        if self.edits.is_empty() {
            return None;
        }
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut changed = Vec::with_capacity(self.body.len() + 128);
        let mut from = 0;
        for (range, text) in &self.edits {
            changed.extend_from_slice(self.body.get(from..range.start).unwrap_or_default());
            changed.extend_from_slice(text.as_bytes());
            from = range.end;
        }
        changed.extend_from_slice(self.body.get(from..).unwrap_or_default());
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn chat(body: &str, include_usage: bool) -> Option<String> {
        let change = Change { max_output_tokens: 100, include_usage };
        let changed = rewrite(Operation::Chat, body.as_bytes(), change).unwrap();
        changed.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn limits_are_lowered_and_given() {
        for (body, expected) in [
            (r#"{"model":"m"}"#, Some(r#"{"max_completion_tokens":100,"model":"m"}"#)),
            (r#"{ "model":"m","max_tokens":500}"#, Some(r#"{ "model":"m","max_tokens":100}"#)),
            (r#"{"model":"m","max_tokens":50}"#, None),
            (
                r#"{"model":"m","max_tokens":50,"max_completion_tokens": 101 }"#,
                Some(r#"{"model":"m","max_tokens":50,"max_completion_tokens": 100 }"#),
            ),
            (r#"{"model":"m","max_tokens":null}"#, Some(r#"{"model":"m","max_tokens":100}"#)),
            (r#"{"model":"m","max_tokens":null,"max_completion_tokens":7}"#, None),
            ("\n {\"model\":\"m\"}", Some("\n {\"max_completion_tokens\":100,\"model\":\"m\"}")),
        ] {
            assert_eq!(chat(body, false).as_deref(), expected, "{body}");
        }
        let change = Change { max_output_tokens: 100, include_usage: true };
        let changed =
            rewrite(Operation::Responses, br#"{"model":"m","stream":true}"#, change).unwrap().unwrap();
        assert_eq!(changed, br#"{"max_output_tokens":100,"model":"m","stream":true}"#);
    }

    #[test]
    fn half_a_surrogate_pair_stays_as_it_is() {
        let body = r#"{"messages":[{"content":"\ud800"}],"stream":true,"max_tokens":200,"stream_options":{"x":"\udfff"}}"#;
        let expected = r#"{"messages":[{"content":"\ud800"}],"stream":true,"max_tokens":100,"stream_options":{"include_usage":true,"x":"\udfff"}}"#;
        assert_eq!(
            chat(&body.replace("{\"messages", "{\"model\":\"m\",\"messages"), true).unwrap(),
            expected.replace("{\"messages", "{\"model\":\"m\",\"messages")
        );
    }

    #[test]
    fn usage_is_asked_for_in_streams() {
        for (body, expected) in [
            (r#"{"model":"m","max_tokens":1}"#, None),
            (
                r#"{"model":"m","max_tokens":1,"stream":true}"#,
                Some(r#"{"stream_options":{"include_usage":true},"model":"m","max_tokens":1,"stream":true}"#),
            ),
            (
                r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":null}"#,
                Some(r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}"#),
            ),
            (
                r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":{ }}"#,
                Some(
                    r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":true }}"#,
                ),
            ),
            (
                r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":false,"x":1}}"#,
                Some(
                    r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":true,"x":1}}"#,
                ),
            ),
            (r#"{"model":"m","max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}"#, None),
        ] {
            assert_eq!(chat(body, true).as_deref(), expected, "{body}");
        }
        let twice =
            br#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#;
        let change = Change { max_output_tokens: 1, include_usage: true };
        assert!(rewrite(Operation::Chat, twice, change).is_err());
    }

    proptest! {
        /// Whatever a body contains, the change is in place afterwards and nothing else has changed.
        #[test]
        fn only_what_is_meant_changes(
            max_tokens in proptest::option::of(proptest::option::of(1_u64..200)),
            max_completion_tokens in proptest::option::of(proptest::option::of(1_u64..200)),
            options in proptest::option::of(proptest::option::of(any::<bool>())),
            content in ".{0,20}",
        ) {
            let mut body = json!({"model": "m", "stream": true, "messages": [{"content": content}], "top_p": 0.1});
            if let Some(value) = max_tokens { body["max_tokens"] = json!(value); }
            if let Some(value) = max_completion_tokens { body["max_completion_tokens"] = json!(value); }
            if let Some(value) = options {
                body["stream_options"] = value.map_or_else(|| json!({}), |flag| json!({"include_usage": flag}));
            }
            let text = body.to_string();
            let change = Change { max_output_tokens: 100, include_usage: true };
            let changed = rewrite(Operation::Chat, text.as_bytes(), change).unwrap();
            let mut after: Value = serde_json::from_slice(changed.as_deref().unwrap_or(text.as_bytes())).unwrap();
            prop_assert_eq!(&after["stream_options"]["include_usage"], &json!(true));
            let limits = ["max_tokens", "max_completion_tokens"].map(|name| after[name].as_u64());
            let asked = [max_tokens, max_completion_tokens].into_iter().flatten().flatten().max();
            prop_assert_eq!(limits.into_iter().flatten().max(), Some(asked.unwrap_or(100).min(100)));
            for document in [&mut body, &mut after] {
                for name in ["max_tokens", "max_completion_tokens", "stream_options"] {
                    document.as_object_mut().unwrap().remove(name);
                }
            }
            prop_assert_eq!(body, after);
        }
    }
}
