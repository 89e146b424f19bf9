//! Reads the usage from Groq's answer while the answer passes through.

use super::{
    json::readable,
    long::LongReader,
    sse::SseReader,
    usage::{Counts, Piece},
};
use crate::domain::request::{Billing, Operation};

/// The largest single-piece answer that is kept for reading. A model's longest output is a few hundred KiB; of longer
/// answers only the usage is kept.
const MAX_JSON: usize = 8 << 20;
/// The end marker of a chat stream.
const DONE: &[u8] = b"[DONE]";

/// The findings from an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The usage, if the answer states it. If it is stated twice, the last value of each count applies, once.
    pub usage: Option<Counts>,
    /// Whether a count in its usage is invalid.
    pub odd: bool,
    /// The bytes of the model's output, as far as it was seen.
    pub output_bytes: u64,
    /// Whether some of the model's output was not kept, which makes `output_bytes` incomplete.
    pub text_is_missing: bool,
    /// Whether it is complete.
    pub complete: bool,
    /// Whether it reports an error although its status does not.
    pub failed: bool,
    /// Whether it could not be read: compressed, too large, or not what its headers claim.
    pub unreadable: bool,
}

/// Reads one successful answer.
#[derive(Debug)]
pub struct AnswerReader {
    kind: Kind,
    /// Whether the model writes text that is billed.
    writes: bool,
    reading: Reading,
}

#[derive(Debug)]
enum Kind {
    /// Server-sent events.
    Events(SseReader),
    /// One JSON document.
    Json(Vec<u8>),
    /// One document that is only partly kept.
    Long(LongReader),
    /// An answer without usage: speech, or the text of a transcription.
    Opaque,
    /// An answer that cannot be read.
    Unreadable,
}

impl AnswerReader {
    /// Reads an answer to `operation` with these headers.
    #[must_use]
    pub fn new(operation: Operation, content_type: &str, content_encoding: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let plain = matches!(content_encoding.trim().to_ascii_lowercase().as_str(), "" | "identity");
        let kind = match operation {
            // Billed by the request; the answer has nothing to add.
            Operation::Speech => Kind::Opaque,
            _ if !plain => Kind::Unreadable,
            _ if media.eq_ignore_ascii_case("text/event-stream") => Kind::Events(SseReader::default()),
            Operation::Embeddings if is_json(media) => Kind::Long(LongReader::default()),
            _ if is_json(media) => Kind::Json(Vec::new()),
            Operation::Transcription | Operation::Translation => Kind::Opaque,
            _ => Kind::Unreadable,
        };
        let writes = operation.billing() == Billing::Tokens;
        Self { kind, writes, reading: Reading::default() }
    }

    /// Takes the next bytes, split anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        let reading = &mut self.reading;
        match &mut self.kind {
            Kind::Events(events) => events.push(bytes, |data| take_event(reading, data)),
            Kind::Json(body) if body.len() + bytes.len() > MAX_JSON => {
                let mut long = LongReader::default();
                long.push(body);
                long.push(bytes);
                self.kind = Kind::Long(long);
            }
            Kind::Long(long) => long.push(bytes),
            Kind::Json(body) => body.extend_from_slice(bytes),
            Kind::Opaque | Kind::Unreadable => {}
        }
    }

    /// Whether a stream has sent its final event; its connection may still be open.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.reading.complete
    }

    /// The findings. `ended` says whether the body ended properly instead of being cut off.
    #[must_use]
    pub fn finish(self, ended: bool) -> Reading {
        let mut reading = self.reading;
        match self.kind {
            Kind::Events(mut events) => {
                events.finish(|data| take_event(&mut reading, data));
                reading.text_is_missing = events.overflowed();
                reading.unreadable = events.overflowed() && reading.usage.is_none();
            }
            Kind::Json(body) => {
                reading.complete = ended;
                match Piece::parse(&readable(&body)) {
                    Some(piece) => take(&mut reading, &piece),
                    None => reading.unreadable = true,
                }
            }
            Kind::Long(long) => {
                // Embeddings have no text.
                reading.text_is_missing = self.writes;
                reading.complete = ended;
                let kept = long.finish();
                if let Some(piece) = kept.as_deref().map(readable).as_deref().and_then(Piece::parse) {
                    take(&mut reading, &piece);
                }
                // The rest of the answer was not kept, so only its usage says what it cost.
                reading.unreadable = reading.usage.is_none() && !reading.failed;
            }
            Kind::Opaque => reading.complete = ended,
            Kind::Unreadable => (reading.complete, reading.unreadable) = (ended, true),
        }
        reading
    }
}

fn take_event(reading: &mut Reading, data: &[u8]) {
    if data == DONE {
        reading.complete = true;
        return;
    }
    let data = readable(data);
    if let Some(piece) = Piece::parse(&data) {
        reading.complete |= piece.ends_stream();
        take(reading, &piece);
    }
}

fn take(reading: &mut Reading, piece: &Piece<'_>) {
    reading.output_bytes = reading.output_bytes.saturating_add(piece.output_bytes());
    reading.failed |= piece.is_error();
    let usage = piece.usage();
    reading.odd |= usage.odd;
    if usage.tells() {
        reading.usage = Some(match &reading.usage {
            Some(earlier) => usage.or(earlier),
            None => usage,
        });
    }
}

fn is_json(media: &str) -> bool {
    media.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"x_groq\":{\"id\":\"r\"}}\n\n\
        data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"grüße 😀\"}}]}\r\n\r\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}\n\n\
        data: [DONE]\n\n";

    fn read(pieces: &[&[u8]], content_type: &str, ended: bool) -> Reading {
        let mut reader = AnswerReader::new(Operation::Chat, content_type, "");
        pieces.iter().for_each(|piece| reader.push(piece));
        reader.finish(ended)
    }

    #[test]
    fn usage_in_two_places_of_a_stream_counts_once() {
        let reading = read(&[STREAM.as_bytes()], "text/event-stream; charset=utf-8", true);
        let usage = reading.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(9), Some(5)));
        assert_eq!(reading.output_bytes, 2 + 12);
        assert!(reading.complete && !reading.failed && !reading.unreadable);
    }

    #[test]
    fn a_cut_stream_tells_what_was_seen() {
        let cut = STREAM.find("data: {\"choices\":[{\"delta\":{},").unwrap();
        let reading = read(&[&STREAM.as_bytes()[..cut + 20]], "text/event-stream", false);
        let expected = Reading { output_bytes: 14, ..Reading::default() };
        assert_eq!(reading, expected);
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        assert!(read(&[b"{\"usage\":"], "application/json", false).unreadable);
        assert!(read(&[b"<html>"], "text/html", true).unreadable);
        let mut zipped = AnswerReader::new(Operation::Chat, "application/json", "gzip");
        zipped.push(b"\x1f\x8b");
        assert!(zipped.finish(true).unreadable);
        assert!(read(&[&vec![b' '; MAX_JSON], b"{}"], "application/json", true).unreadable);
    }

    /// Longer than what is kept, in pieces, and with the usage at the end, as in Groq's answers.
    #[test]
    fn a_long_answer_is_read_for_its_usage() {
        let numbers = "0.123456789,".repeat(1 << 16);
        for operation in [Operation::Embeddings, Operation::Chat] {
            let mut reader = AnswerReader::new(operation, "application/json", "");
            reader.push(b"{\"object\":\"list\",\"data\":[{\"embedding\":[");
            for _ in 0..=MAX_JSON / numbers.len() {
                reader.push(numbers.as_bytes());
            }
            reader.push(b"0]}],\"usage\":{\"prompt_tokens\":70000,\"total_tokens\":70000}}");
            let reading = reader.finish(true);
            assert_eq!(reading.usage.unwrap().input_tokens, Some(70_000), "{operation}");
            assert!(reading.complete && !reading.unreadable);
            assert_eq!(reading.text_is_missing, operation == Operation::Chat);
        }
        let mut cut = AnswerReader::new(Operation::Embeddings, "application/json", "");
        cut.push(b"{\"data\":[");
        assert!(cut.finish(false).unreadable);
    }

    #[test]
    fn a_mark_at_the_beginning_and_a_byte_that_is_no_text_hide_nothing() {
        let text = b"{\"id\":\"\xff\",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}".to_vec();
        for body in [[b"\xef\xbb\xbf".as_slice(), &text].concat(), text] {
            for operation in [Operation::Chat, Operation::Embeddings] {
                let mut reader = AnswerReader::new(operation, "application/json", "Identity");
                reader.push(&body);
                let usage = reader.finish(true).usage;
                assert_eq!(usage.and_then(|usage| usage.input_tokens), Some(5), "{operation}");
            }
            let event = [b"data: ".as_slice(), &body, b"\n\n"].concat();
            let usage = read(&[&event], "text/event-stream", true).usage;
            assert_eq!(usage.and_then(|usage| usage.output_tokens), Some(7));
        }
    }

    #[test]
    fn half_a_character_hides_nothing() {
        let event = br#"data: {"choices":[{"delta":{"content":"ab\ud83d"}}]}"#;
        let reading = read(&[event, b"\n\n"], "text/event-stream", false);
        assert_eq!(reading.output_bytes, 5);
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        let stream = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}";
        for end in ["", "\n", "\r\n"] {
            let reading = read(&[stream, end.as_bytes()], "text/event-stream", true);
            assert_eq!(reading.usage.and_then(|usage| usage.output_tokens), Some(7), "{end:?}");
        }
    }

    #[test]
    fn an_error_in_a_stream_is_one() {
        let reading = read(&[b"data: {\"error\":{\"message\":\"x\"}}\n\n"], "text/event-stream", true);
        assert!(reading.failed && !reading.complete);
    }

    proptest! {
        /// Any split gives the same reading, for streams and documents.
        #[test]
        fn any_split_is_the_same(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let document = r#"{"choices":[{"message":{"content":"grüße"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
            for (text, kind) in [(STREAM, "text/event-stream"), (document, "application/json")] {
                let bytes = text.as_bytes();
                let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
                places.extend([0, bytes.len()]);
                places.sort_unstable();
                let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
                let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
                prop_assert_eq!(read(&pieces, kind, true), read(&[bytes], kind, true));
                prop_assert_eq!(read(&bytewise, kind, true), read(&[bytes], kind, true));
            }
        }

        /// No input causes a panic.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in ["text/event-stream", "application/json"] {
                let framed = [b"data: ".as_slice(), &bytes, b"\n\n"].concat();
                let _ = read(&[&framed], kind, true);
                let _ = read(&[&bytes], kind, false);
            }
        }
    }
}
