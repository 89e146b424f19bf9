//! Server-sent events, however their bytes are split.

/// The largest event that is read. The last event of a response repeats its whole text, a few hundred KiB at most.
const MAX_EVENT: usize = 8 << 20;

/// Collects bytes into events.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    /// The line so far.
    line: Vec<u8>,
    /// The `data` of the event so far, its lines joined by line feeds.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return: a line feed right after it is part of the same line break.
    after_return: bool,
    /// Whether any byte has arrived: a byte order mark is only allowed at the beginning.
    begun: bool,
    /// An event was too large to read.
    overflowed: bool,
}

impl SseReader {
    /// Takes bytes, and calls `event` with the data of each event that ends in them.
    pub(super) fn push(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if std::mem::take(&mut self.after_return) && *first == b'\n' {
                rest = after;
                continue;
            }
            match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                None => {
                    self.extend_line(rest);
                    return;
                }
                Some(at) => {
                    self.extend_line(rest.get(..at).unwrap_or_default());
                    self.after_return = rest.get(at) == Some(&b'\r');
                    rest = rest.get(at + 1..).unwrap_or_default();
                    self.end_line(&mut event);
                }
            }
        }
    }

    /// Ends the stream. An event without the blank line after it is passed to `event` as well: the standard drops it, but
    /// its data did arrive.
    pub(super) fn finish(&mut self, mut event: impl FnMut(&[u8])) {
        self.end_line(&mut event);
        self.end_line(&mut event);
    }

    /// Whether an event was too large to read.
    pub(super) const fn overflowed(&self) -> bool {
        self.overflowed
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.line.len() + self.data.len() + bytes.len() > MAX_EVENT {
            self.overflowed = true;
            self.line.clear();
            self.data.clear();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, event: &mut impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
            text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        }
        if text.is_empty() {
            if std::mem::take(&mut self.has_data) {
                event(&self.data);
            }
            self.data.clear();
        } else if let Some(value) = text.strip_prefix(b"data") {
            // `data` alone is an empty line of data; `database: x` is a different field.
            if let Some(value) = if value.is_empty() { Some(value) } else { value.strip_prefix(b":") } {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            }
        }
        self.line = line;
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece, |data| events.push(String::from_utf8_lossy(data).into_owned()));
        }
        events
    }

    #[test]
    fn events_are_read_as_the_standard_has_them() {
        for (stream, expected) in [
            ("data: a\n\n", vec!["a"]),
            ("data:a\n\ndata:  b\n\n", vec!["a", " b"]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", vec!["a", "b", "c"]),
            ("\u{feff}data: a\n\n", vec!["a"]),
            (": note\nevent: x\nid: 5\nretry: 1\ndata: a\ndata\ndata: b\n\n", vec!["a\n\nb"]),
            ("event: x\n\ndatabase: y\n\ndata: cut", vec![]),
        ] {
            assert_eq!(events(&[stream.as_bytes()]), expected, "{stream:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_let_go() {
        let mut reader = SseReader::default();
        let mut events = 0;
        for _ in 0..10 {
            reader.push(&vec![b'x'; 1 << 20], |_| events += 1);
        }
        assert!(reader.overflowed() && reader.line.len() <= MAX_EVENT);
    }

    proptest! {
        /// Any split gives the same events.
        #[test]
        fn any_split_is_the_same(
            stream in "(data: [aü😀\\\\n]{0,5}|data:|:|event: x|)(\n|\r\n|\r)((data: [bß]{0,3}|)(\n|\r\n|\r)){0,8}",
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = stream.as_bytes();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(events(&pieces), events(&[bytes]));
            prop_assert_eq!(events(&bytewise), events(&[bytes]));
        }
    }
}
