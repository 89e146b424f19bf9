//! Bodies: JSON, plain or compressed, and streams that split, stall and break where they are told to.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::Value;
use tokio::time::Sleep;
use tokio_stream::Stream;

use super::{
    Call,
    directive::Directive,
    errors::add_headers,
    ledger::{Bill, Tokens},
};

/// A client that is to leave a stalled stream has this long.
const STALL: Duration = Duration::from_secs(30);

/// What was sent must reach the reader before the connection breaks: it is lost with the connection's own buffer otherwise.
const BEFORE_CUT: Duration = Duration::from_millis(30);

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON answer. What it costs is settled already.
pub(crate) fn json(call: &Call<'_>, directive: &Directive, value: &Value) -> Response {
    let plain = Bytes::from(value.to_string());
    let taken = call.headers.get_all(header::ACCEPT_ENCODING).iter().any(|value| {
        value.to_str().is_ok_and(|list| list.split(',').any(|coding| coding.trim().starts_with("gzip")))
    });
    let compress = directive.force_gzip || (directive.gzip && taken);
    let bytes = if compress { gzip(&plain) } else { plain };
    let body = match directive.split {
        None => Body::from(bytes),
        Some(size) => {
            let pieces = split([Event { bytes, tokens: 0 }], size);
            Body::from_stream(Script::new(pieces, None, Duration::ZERO))
        }
    };
    let mut response = answer(call, body, JSON);
    if compress {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// An answer with any other body.
pub(crate) fn answer(call: &Call<'_>, body: Body, content_type: HeaderValue) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    add_headers(&mut response, call.number);
    response
}

/// A piece of a stream.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) bytes: Bytes,
    /// How many tokens a reader has seen more when it has read it.
    pub(crate) tokens: u64,
}

/// A stream of server-sent events that costs `billed` if it comes to its end.
pub(crate) fn events(
    call: &Call<'_>,
    directive: &Directive,
    events: Vec<Event>,
    bill: Bill,
    billed: Tokens,
) -> Response {
    let size = directive.split;
    let split = |events: Vec<Event>| match size {
        None => events.into_iter().map(Step::Send).collect(),
        Some(size) => split(events, size),
    };
    let mut steps;
    if let Some(count) = directive.cut_after {
        let (before, _) = after_tokens(events, count);
        steps = split(before);
        steps.extend([Step::Wait(BEFORE_CUT), Step::Break]);
    } else if let Some(count) = directive.stall_after {
        let (before, after) = after_tokens(events, count);
        steps = split(before);
        steps.push_back(Step::Wait(STALL));
        steps.extend(split(after));
    } else {
        steps = split(events);
    }
    let script = Script::new(steps, Some((bill, billed)), Duration::from_millis(directive.chunk_ms));
    answer(call, Body::from_stream(script), EVENT_STREAM)
}

/// The events up to the one with the token of that number, and the rest. The events before the first token come in any case.
fn after_tokens(mut events: Vec<Event>, count: u64) -> (Vec<Event>, Vec<Event>) {
    let mut seen = 0;
    let end = events.iter().position(|event| {
        let is_past = seen >= count && (count > 0 || event.tokens > 0);
        seen += event.tokens;
        is_past
    });
    let rest = events.split_off(end.unwrap_or(events.len()));
    (events, rest)
}

/// The same bytes in pieces of `size`. A token counts with the piece that completes its event.
fn split(events: impl IntoIterator<Item = Event>, size: usize) -> VecDeque<Step> {
    let size = size.max(1);
    let mut pieces = VecDeque::new();
    let (mut piece, mut tokens) = (Vec::new(), 0);
    for event in events {
        let mut bytes = &event.bytes[..];
        while let Some((some, rest)) = bytes.split_at_checked(size - piece.len()) {
            piece.extend_from_slice(some);
            bytes = rest;
            if rest.is_empty() {
                tokens += event.tokens;
            }
            pieces.push_back(Step::Send(Event { bytes: std::mem::take(&mut piece).into(), tokens }));
            tokens = 0;
            if rest.is_empty() {
                break;
            }
        }
        if !bytes.is_empty() {
            piece.extend_from_slice(bytes);
            tokens += event.tokens;
        }
    }
    if !piece.is_empty() {
        pieces.push_back(Step::Send(Event { bytes: piece.into(), tokens }));
    }
    pieces
}

#[derive(Debug)]
enum Step {
    Send(Event),
    Wait(Duration),
    Break,
}

/// Plays the steps. The bill goes with it: dropped before the end, it knows what was sent.
struct Script {
    steps: VecDeque<Step>,
    bill: Option<(Bill, Tokens)>,
    between: Duration,
    wait: Option<Pin<Box<Sleep>>>,
    has_sent: bool,
}

impl Script {
    const fn new(steps: VecDeque<Step>, bill: Option<(Bill, Tokens)>, between: Duration) -> Self {
        Self { steps, bill, between, wait: None, has_sent: false }
    }

    /// Waits between two pieces. Even without a time to wait the task is left once, so that each piece is written by itself.
    fn pause(&mut self, context: &mut Context<'_>) -> bool {
        if !std::mem::take(&mut self.has_sent) || self.steps.is_empty() {
            return false;
        }
        if self.between.is_zero() {
            context.waker().wake_by_ref();
            return true;
        }
        self.wait = Some(Box::pin(tokio::time::sleep(self.between)));
        false
    }

    fn send(&mut self, event: Event) -> Bytes {
        self.has_sent = true;
        if let Some((bill, billed)) = &mut self.bill {
            bill.send(event.tokens);
            // Settled with the last piece: a server need not ask again for what comes after it.
            if self.steps.is_empty() {
                bill.settle_tokens(*billed);
            }
        }
        event.bytes
    }
}

impl Stream for Script {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.pause(context) {
            return Poll::Pending;
        }
        loop {
            if let Some(wait) = &mut self.wait {
                if wait.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.wait = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Wait(time)) => self.wait = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Break) => return Poll::Ready(Some(Err(io::Error::other("cut as directed")))),
                Some(Step::Send(event)) => return Poll::Ready(Some(Ok(self.send(event)))),
            }
        }
    }
}

/// A gzip file whose blocks are stored: to a reader it is as compressed as any other, and it takes no library to write.
pub(crate) fn gzip(plain: &[u8]) -> Bytes {
    const STORED_AT_MOST: usize = 65_535;
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = plain.chunks(STORED_AT_MOST).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        file.push(u8::from(blocks.peek().is_none()));
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(block);
    }
    file.extend(crc32(plain).to_le_bytes());
    file.extend(u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    file.into()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &'static str, tokens: u64) -> Event {
        Event { bytes: text.into(), tokens }
    }

    #[test]
    fn a_token_counts_with_the_piece_that_completes_its_event() {
        for (size, expected) in [
            (1, vec![("a", 0), ("b", 1), ("c", 0), ("d", 0), ("e", 1)]),
            (2, vec![("ab", 1), ("cd", 0), ("e", 1)]),
            (3, vec![("abc", 1), ("de", 1)]),
            (9, vec![("abcde", 2)]),
        ] {
            let pieces: Vec<_> = split([event("ab", 1), event("cde", 1)], size)
                .into_iter()
                .map(|step| match step {
                    Step::Send(event) => (String::from_utf8(event.bytes.to_vec()).unwrap(), event.tokens),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<_> = expected.into_iter().map(|(text, n)| (text.to_owned(), n)).collect();
            assert_eq!(pieces, expected, "pieces of {size}");
        }
    }

    #[test]
    fn a_stream_is_parted_after_the_tokens_asked_for() {
        let stream = || vec![event("role", 0), event("a", 1), event("b", 1), event("end", 0)];
        for (count, before) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
            assert_eq!(after_tokens(stream(), count).0.len(), before, "after {count}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_gzip_wants() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
