//! As much of an HTTP/2 client as unary gRPC needs, blocking, on one connection.
//!
//! A general client costs about as much as an empty call costs the server, and on one machine that halves the load that can be
//! measured. This one writes the calls of a batch with one system call and reads the answers with another. It does not decode
//! header blocks: a call succeeded if its stream carried one whole message and was not reset.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
const MESSAGE_HEADER: usize = 5;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The largest flow-control window.
const WINDOW: u32 = (1 << 31) - 1;
const INITIAL_WINDOW: u32 = 65_535;
/// The first index of HPACK's dynamic table.
const FIRST_DYNAMIC: usize = 62;

/// What happened on a stream.
pub(crate) enum Event<'a> {
    /// A whole message arrived.
    Message(&'a [u8]),
    /// The stream ended; no more events.
    End,
}

/// A connection to a gRPC server.
pub(crate) struct Connection {
    socket: TcpStream,
    headers: HeaderTable,
    next_stream: u32,
    /// How much the server lets us send.
    send_window: i64,
    /// The bytes received since the server was last allowed to send more.
    received: u32,
    /// The beginnings of messages that arrive in several frames, by stream.
    partial: HashMap<u32, Vec<u8>>,
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// `token` is sent with every call.
    pub(crate) fn open(address: SocketAddr, token: Option<&str>) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let mut connection = Self {
            socket,
            headers: HeaderTable::new(address, token),
            next_stream: 1,
            send_window: i64::from(INITIAL_WINDOW),
            received: 0,
            partial: HashMap::new(),
            out: PREFACE.to_vec(),
            input: vec![0; 256 * 1024],
            filled: 0,
        };
        // ENABLE_PUSH = 0, INITIAL_WINDOW_SIZE.
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend(WINDOW.to_be_bytes());
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.frame(WINDOW_UPDATE, 0, 0, &(WINDOW - INITIAL_WINDOW).to_be_bytes());
        connection.flush()?;
        Ok(connection)
    }

    /// Queues a call; returns its stream.
    pub(crate) fn call(&mut self, path: &'static str, message: &[u8]) -> io::Result<u32> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let at = self.begin(HEADERS, END_HEADERS, stream);
        self.headers.encode(path, &mut self.out);
        self.end(at);
        let at = self.begin(DATA, END_STREAM, stream);
        self.out.push(0);
        self.out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        self.out.extend(message);
        self.end(at);
        self.send_window -= i64::try_from(MESSAGE_HEADER + message.len()).unwrap();
        if self.send_window < 0 {
            return Err(io::Error::other("the server's flow-control window is used up"));
        }
        Ok(stream)
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.socket.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Waits for data, and passes all of it on.
    pub(crate) fn receive(&mut self, mut on_event: impl FnMut(u32, Event<'_>)) -> io::Result<()> {
        let count = self.socket.read(&mut self.input[self.filled..])?;
        if count == 0 {
            return Err(io::Error::other("the server closed the connection"));
        }
        self.filled += count;
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(header) = input[at..self.filled].first_chunk::<FRAME_HEADER>() {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let end = at + FRAME_HEADER + length;
            if end > self.filled {
                break;
            }
            let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
            self.take(header[3], header[4], stream, &input[at + FRAME_HEADER..end], &mut on_event)?;
            at = end;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        self.flush()
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        on_event: &mut impl FnMut(u32, Event<'_>),
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.received += u32::try_from(payload.len()).unwrap();
                if self.received > WINDOW / 4 {
                    let received = std::mem::take(&mut self.received);
                    self.frame(WINDOW_UPDATE, 0, 0, &received.to_be_bytes());
                }
                self.message(stream, payload, on_event);
            }
            RST_STREAM => on_event(stream, Event::End),
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            GOAWAY => return Err(io::Error::other("the server goes away")),
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                self.send_window += i64::from(more);
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            on_event(stream, Event::End);
        }
        Ok(())
    }

    /// Passes on the message in `payload`, or keeps it until the rest arrives.
    fn message(&mut self, stream: u32, payload: &[u8], on_event: &mut impl FnMut(u32, Event<'_>)) {
        let begun = if self.partial.is_empty() { None } else { self.partial.remove(&stream) };
        let joined = begun.map(|begun| [&begun, payload].concat());
        let whole = joined.as_deref().unwrap_or(payload);
        match whole.split_first_chunk::<MESSAGE_HEADER>() {
            Some(([_, length @ ..], message)) if u32::from_be_bytes(*length) as usize == message.len() => {
                on_event(stream, Event::Message(message));
            }
            // The frame that ends a stream may be empty.
            _ if whole.is_empty() => {}
            _ => {
                self.partial.insert(stream, whole.to_vec());
            }
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let at = self.begin(kind, flags, stream);
        self.out.extend(payload);
        self.end(at);
    }

    fn begin(&mut self, kind: u8, flags: u8, stream: u32) -> usize {
        let at = self.out.len();
        self.out.extend([0, 0, 0, kind, flags]);
        self.out.extend(stream.to_be_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let length = u32::try_from(self.out.len() - at - FRAME_HEADER).unwrap().to_be_bytes();
        self.out[at..at + 3].copy_from_slice(&length[1..]);
    }
}

/// HPACK as clients use it: once a header was sent, it is an index from then on.
struct HeaderTable {
    authority: String,
    authorization: Option<String>,
    /// What went into the dynamic table, oldest first.
    inserted: Vec<&'static str>,
}

/// Names from HPACK's static table.
const PATH: u8 = 4;
const AUTHORITY: u8 = 1;
const CONTENT_TYPE: u8 = 31;
const AUTHORIZATION: u8 = 23;

impl HeaderTable {
    fn new(address: SocketAddr, token: Option<&str>) -> Self {
        let authorization = token.map(|token| format!("Bearer {token}"));
        Self { authority: address.to_string(), authorization, inserted: Vec::new() }
    }

    fn encode(&mut self, path: &'static str, out: &mut Vec<u8>) {
        // :method POST, :scheme http
        out.extend([0x83, 0x86]);
        let authority = self.authority.clone();
        self.field(path, PATH, path, out);
        self.field("authority", AUTHORITY, &authority, out);
        self.field("content-type", CONTENT_TYPE, "application/grpc", out);
        self.field("te", 0, "trailers", out);
        if let Some(authorization) = self.authorization.clone() {
            self.field("authorization", AUTHORIZATION, &authorization, out);
        }
    }

    fn field(&mut self, id: &'static str, name: u8, value: &str, out: &mut Vec<u8>) {
        if let Some(position) = self.inserted.iter().position(|known| *known == id) {
            let index = FIRST_DYNAMIC + self.inserted.len() - 1 - position;
            out.push(0x80 | u8::try_from(index).unwrap());
            return;
        }
        out.push(0x40 | name);
        if name == 0 {
            text(id, out);
        }
        text(value, out);
        self.inserted.push(id);
    }
}

/// A string without Huffman coding, shorter than 127 bytes.
fn text(value: &str, out: &mut Vec<u8>) {
    assert!(value.len() < 127, "`{value}` needs a longer length");
    out.push(u8::try_from(value.len()).unwrap());
    out.extend(value.as_bytes());
}
