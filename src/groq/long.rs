//! Extracts what an answer says about itself without storing the answer, however long it is: the embeddings of a few
//! hundred texts are tens of megabytes of numbers, followed by the usage.

use super::json::BYTE_ORDER_MARK;

/// The fields of an answer that are kept unchanged.
const KEPT: [&[u8]; 4] = [b"duration", b"error", b"usage", b"x_groq"];
/// The most bytes of one kept value; a usage has a few hundred.
const MAX_VALUE: usize = 64 << 10;
/// The most bytes of a field's name that are compared: one more than the longest kept name.
const MAX_NAME: usize = 9;

/// Reads one JSON object as it passes. It checks only what it needs to tell the fields apart.
#[derive(Debug)]
pub(super) struct LongReader {
    /// How many objects and lists are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// What the next byte at the top level belongs to.
    place: Place,
    name: Vec<u8>,
    /// The kept fields, in the form of an object under construction.
    kept: Vec<u8>,
    /// Where the current value's field begins in `kept`; `None`: it is not kept.
    keeps: Option<usize>,
    /// The object began and ended, and nothing else followed.
    is_whole: bool,
    is_broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Name,
    Value,
}

impl Default for LongReader {
    fn default() -> Self {
        Self {
            depth: 0,
            in_string: false,
            escaped: false,
            place: Place::Name,
            name: Vec::new(),
            kept: vec![b'{'],
            keeps: None,
            is_whole: false,
            is_broken: false,
        }
    }
}

impl LongReader {
    /// Takes the next bytes, split anywhere.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.take(*byte);
        }
    }

    /// The kept fields as an object; `None` if the answer is not one complete object.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        self.kept.push(b'}');
        (self.is_whole && !self.is_broken).then_some(self.kept)
    }

    fn take(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            if self.escaped {
                self.escaped = false;
            } else if byte == b'\\' {
                self.escaped = true;
            } else if byte == b'"' {
                self.in_string = false;
            }
            if self.in_string && self.depth == 1 && self.place == Place::Name && self.name.len() < MAX_NAME {
                self.name.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == 1 && self.place == Place::Name {
                    self.name.clear();
                }
                self.keep(byte);
            }
            b':' if self.depth == 1 && self.place == Place::Name => self.begin_value(),
            b',' if self.depth == 1 => self.end_value(),
            b'{' | b'[' => {
                self.is_broken |= self.is_whole || (self.depth == 0 && byte == b'[');
                self.depth += 1;
                self.keep(byte);
            }
            b'}' | b']' => {
                match self.depth {
                    0 => self.is_broken = true,
                    1 => {
                        self.end_value();
                        self.is_whole = true;
                    }
                    _ => self.keep(byte),
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {
                let is_mark = !self.is_whole && BYTE_ORDER_MARK.contains(&byte);
                self.is_broken |= self.depth == 0 && !byte.is_ascii_whitespace() && !is_mark;
                self.keep(byte);
            }
        }
    }

    fn begin_value(&mut self) {
        self.place = Place::Value;
        self.keeps = KEPT.contains(&self.name.as_slice()).then_some(self.kept.len());
        if self.keeps.is_some() {
            if self.kept.len() > 1 {
                self.kept.push(b',');
            }
            self.kept.push(b'"');
            self.kept.extend_from_slice(&self.name);
            self.kept.extend_from_slice(b"\":");
        }
    }

    fn end_value(&mut self) {
        (self.place, self.keeps) = (Place::Name, None);
    }

    fn keep(&mut self, byte: u8) {
        let Some(from) = self.keeps else { return };
        if self.kept.len() - from > MAX_VALUE {
            self.kept.truncate(from);
            self.keeps = None;
        } else {
            self.kept.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: &[u8]) -> Option<String> {
        let mut reader = LongReader::default();
        reader.push(bytes);
        reader.finish().map(|kept| String::from_utf8(kept).unwrap())
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        for (document, expected) in [
            (
                r#"{"data":[{"usage":1,"embedding":[0.1,-2]}],"usage":{"prompt_tokens":7}}"#,
                Some(r#"{"usage":{"prompt_tokens":7}}"#),
            ),
            (
                r#" {"a":"}\"{,\\","usage" : {"a":"}]\""} ,"error":null} "#,
                Some(r#"{"usage": {"a":"}]\""} ,"error":null}"#),
            ),
            (r#"{"usage_of":1,"usag":2,"x_groq":[1,{"usage":2}]}"#, Some(r#"{"x_groq":[1,{"usage":2}]}"#)),
            ("{}", Some("{}")),
            (r#"{"usage":{"prompt_tokens":7}"#, None),
            (r#"{"a":1}{"usage":2}"#, None),
            (r#"[{"usage":2}]"#, None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(kept(document.as_bytes()).as_deref(), expected, "{document}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = format!(r#"{{"usage":"{}","error":1}}"#, "x".repeat(2 * MAX_VALUE));
        assert_eq!(kept(long.as_bytes()).as_deref(), Some(r#"{"error":1}"#));
        let names = format!(r#"{{"{}":1}}"#, "x".repeat(1 << 20));
        assert_eq!(kept(names.as_bytes()).as_deref(), Some("{}"));
    }
}
