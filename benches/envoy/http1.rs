//! As much of an HTTP/1.1 client as a benchmark needs: blocking, with one request after another on one connection.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// No answer takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kept-alive connection.
pub(crate) struct Client {
    socket: TcpStream,
    input: Vec<u8>,
}

/// An answer, and when its parts arrived.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// When the first byte of the body had arrived, and when all of it had.
    pub(crate) first: Instant,
    pub(crate) whole: Instant,
}

/// How the end of a body is found.
enum Length {
    Bytes(usize),
    Chunked,
}

impl Client {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, input: Vec::with_capacity(64 * 1024) })
    }

    /// Sends a request and reads the answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.socket.write_all(request)?;
        self.input.clear();
        let end = loop {
            match self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more()?,
            }
        };
        let (status, length) = head(&self.input[..end])?;
        if self.input.len() == end {
            self.more()?;
        }
        let first = Instant::now();
        loop {
            let body = match length {
                Length::Bytes(length) => self.input.get(end..end + length).map(<[u8]>::to_vec),
                Length::Chunked => unchunked(&self.input[end..]),
            };
            if let Some(body) = body {
                return Ok(Answer { status, body, first, whole: Instant::now() });
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = self.socket.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("the connection was closed within an answer"));
        }
        self.input.extend_from_slice(&buffer[..count]);
        Ok(())
    }
}

/// A request with a body.
pub(crate) fn post(path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:10000\r\nauthorization: Bearer {key}\r\naccept: application/json\r\n\
         accept-encoding: gzip, deflate\r\ncontent-type: application/json\r\nuser-agent: Groq/Python 1.7.0\r\n\
         x-stainless-lang: python\r\nx-stainless-package-version: 1.7.0\r\nx-stainless-os: Linux\r\n\
         x-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\nx-stainless-runtime-version: 3.11.2\r\n\
         x-stainless-async: false\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 60\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn head(bytes: &[u8]) -> io::Result<(u16, Length)> {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length = field("content-length:").and_then(|length| length.parse().ok());
    Ok((status, length.map_or(Length::Chunked, Length::Bytes)))
}

/// The content of a chunked body; `None` until it is complete.
fn unchunked(mut raw: &[u8]) -> Option<Vec<u8>> {
    // Cheaper than walking over all chunks each time some bytes arrive.
    if !raw.ends_with(b"0\r\n\r\n") {
        return None;
    }
    let mut body = Vec::with_capacity(raw.len());
    loop {
        let at = raw.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..at]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(at + 2..at + 2 + length)?);
        raw = raw.get(at + 2 + length + 2..)?;
    }
}
