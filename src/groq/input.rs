//! What a request gives a model to read, as far as the request contains it: text and inline data, and also content parts
//! that Groq fetches from elsewhere. An address in any other position (a citation, the result of a tool, a schema) is text
//! like any other.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    json::{CHARACTERS, LINKS},
    names,
};

/// The content of one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    /// Characters of text.
    pub(super) characters: u64,
    /// Content parts that Groq fetches.
    pub(super) fetched: u64,
}

impl Input {
    const fn and(self, other: Self) -> Self {
        Self {
            characters: self.characters.saturating_add(other.characters),
            fetched: self.fetched.saturating_add(other.fetched),
        }
    }
}

/// Whether a content part of this type may be an address that Groq fetches. All other parts are complete in themselves.
fn may_be_fetched(kind: &str) -> bool {
    const KINDS: [&str; 10] = [
        "audio_url",
        "computer_screenshot",
        "file",
        "image",
        "image_url",
        "input_file",
        "input_image",
        "input_video",
        "url",
        "video_url",
    ];
    KINDS.contains(&kind)
}

/// Reads `messages`, `input` or `documents`: text, or items, or the parts of one.
#[derive(Clone, Copy)]
pub(super) struct ReadInput;

impl<'de> DeserializeSeed<'de> for ReadInput {
    type Value = Input;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Input, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ReadInput {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Input, E> {
        Ok(Input::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Input, E> {
        Ok(Input::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Input, E> {
        Ok(Input::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Input, E> {
        Ok(Input::default())
    }

    fn visit_unit<E>(self) -> Result<Input, E> {
        Ok(Input::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Input, E> {
        let characters = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        Ok(Input { characters, fetched: 0 })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Input, A::Error> {
        let mut sum = Input::default();
        while let Some(item) = items.next_element_seed(self)? {
            sum = sum.and(item);
        }
        Ok(sum)
    }

    /// An item or a part. Its type may come after its address, so the two are combined at the end.
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Input, A::Error> {
        let mut sum = Input::default();
        let (mut links, mut may_fetch) = (0_u64, false);
        while let Some(field) = entries.next_key::<Cow<'_, str>>()? {
            names::check(&field, &["type", "content", "output", "source"])?;
            match &*field {
                "type" => {
                    let Kind { may_be_fetched, is_kept } = entries.next_value_seed(ReadKind)?;
                    may_fetch |= may_be_fetched;
                    sum.fetched += u64::from(is_kept);
                }
                // The content of a message or of a tool's result, and the source of a document.
                "content" | "output" | "source" => sum = sum.and(entries.next_value_seed(self)?),
                _ => {
                    let (characters, found) =
                        entries.next_value_seed(CHARACTERS.and(LINKS).in_field(&field))?;
                    sum.characters = sum.characters.saturating_add(characters);
                    links = links.saturating_add(found);
                }
            }
        }
        sum.fetched = sum.fetched.saturating_add(if may_fetch { links } else { 0 });
        Ok(sum)
    }
}

/// What the `type` of an item says.
#[derive(Clone, Copy, Default)]
struct Kind {
    may_be_fetched: bool,
    /// It refers to something that Groq stores.
    is_kept: bool,
}

struct ReadKind;

impl<'de> DeserializeSeed<'de> for ReadKind {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        let kind = serde::Deserialize::deserialize(deserializer)?;
        Ok(match kind {
            super::fields::Scalar::Text(kind) => {
                Kind { may_be_fetched: may_be_fetched(&kind), is_kept: kind == "item_reference" }
            }
            _ => Kind::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: &str) -> Input {
        ReadInput.deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn only_content_parts_that_groq_fetches_count() {
        for (json, fetched) in [
            (r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y"}}]}]"#, 1),
            (r#"[{"role":"user","content":[{"image_url":{"url":"https://x/y"},"type":"image_url"}]}]"#, 1),
            (r#"[{"role":"tool","content":[{"type":"image_url","image_url":"https://x/y"}]}]"#, 1),
            (r#"[{"content":[{"type":"image_url","image_url":{"url":"DATA:image/png;base64,aaaa"}}]}]"#, 0),
            (
                r#"[{"content":[{"type":"input_image","image_url":"http://x"},{"type":"input_file","file_id":"f"}]}]"#,
                2,
            ),
            (
                r#"[{"type":"function_call_output","output":[{"type":"input_image","image_url":"http://x"}]}]"#,
                1,
            ),
            (r#"[{"type":"computer_call_output","output":{"type":"computer_screenshot","file_id":"f"}}]"#, 1),
            (r#"[{"type":"item_reference","id":"msg_1"}]"#, 1),
            (r#"[{"id":"d","source":{"type":"url","url":"https://x"}}]"#, 1),
            (r#"[{"content":[{"type":"image_url","Image_URL":{"Url":"https://x"}}]}]"#, 1),
            (r#"[{"content":[{"type":"image_url","type":"text","url":"https://x"}]}]"#, 1),
            // Content that a conversation carries along.
            (r#"[{"id":"d","source":{"type":"json","data":{"url":"https://x"}}}]"#, 0),
            (r#"[{"content":[{"type":"document","document":{"data":{"url":"https://x"}}}]}]"#, 0),
            (
                r#"[{"role":"assistant","content":"a","annotations":[{"type":"url_citation","url":"https://x"}]}]"#,
                0,
            ),
            (
                r#"[{"role":"assistant","content":null,"executed_tools":[{"type":"search",
                "search_results":{"results":[{"url":"https://x"}],"images":["https://x"]}}]}]"#,
                0,
            ),
            (r#"[{"role":"tool","content":"{\"url\":\"https://x\"}"}]"#, 0),
            (r#"[{"role":"user","content":[{"type":"text","text":"a","url":"https://x"}]}]"#, 0),
            (
                r#"[{"type":"message","content":[{"type":"output_text","text":"a",
                "annotations":[{"type":"url_citation","url":"https://x"}]}]}]"#,
                0,
            ),
            (r#"[{"type":"web_search_call","action":{"type":"search","url":"https://x"}}]"#, 0),
            (r#"[{"type":"function_call","arguments":"{\"image_url\":\"https://x\"}"}]"#, 0),
            (
                r#"[{"type":"mcp_list_tools","tools":[{"input_schema":{"properties":{"url":{"type":"string"}}}}]}]"#,
                0,
            ),
            (r#"[{"url":"https://x","image_url":"https://x"}]"#, 0),
            (r#""see https://x/y.png""#, 0),
        ] {
            assert_eq!(input(json).fetched, fetched, "{json}");
        }
    }

    #[test]
    fn characters_are_those_of_all_text() {
        assert_eq!(input(r#""gr\u00fcße""#).characters, 5);
        assert_eq!(input(r#"[{"content":[{"type":"text","text":"abc"}]},"de"]"#).characters, 5);
    }
}
