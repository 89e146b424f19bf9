//! A client that sends exactly the bytes it is told to, and can leave at any point of an answer.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::PATIENCE;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header by its name in lower case; a panic where it comes twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "`{name}` twice in {:?}", self.headers);
        first
    }

    /// All values of a header by its name in lower case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// `status code` of an error.
    pub(crate) fn error(&self) -> String {
        format!("{} {}", self.status, self.json()["error"]["code"].as_str().unwrap_or_default())
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    in_chunks: bool,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            in_chunks: false,
        }
    }

    /// A POST of JSON with a virtual key.
    pub(crate) fn json(path: &str, key: &str, body: &Value) -> Self {
        Self::post(path, key, body.to_string().as_bytes())
    }

    /// The same with any bytes.
    pub(crate) fn post(path: &str, key: &str, body: &[u8]) -> Self {
        let request = Self::new("POST", path).header("content-type", "application/json").key(key);
        Self { body: body.to_vec(), ..request }
    }

    /// A POST of a form.
    pub(crate) fn form(path: &str, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Self::new("POST", path).header("content-type", "application/x-www-form-urlencoded");
        Self { body: body.into_bytes(), ..request }
    }

    /// A POST of a form in parts, as browsers send one that may have files: an empty file is sent as one that was not chosen.
    pub(crate) fn parts(path: &str, fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> Self {
        let mut body = Vec::new();
        for (name, value) in fields {
            let head = format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
            body.extend_from_slice(&[head.as_bytes(), value.as_bytes(), b"\r\n"].concat());
        }
        if let Some((name, content)) = file {
            let head = format!(
                "--cut\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"policy.toml\"\r\n\
                 content-type: application/octet-stream\r\n\r\n"
            );
            body.extend_from_slice(&[head.as_bytes(), content, b"\r\n"].concat());
        }
        body.extend_from_slice(b"--cut--\r\n");
        let request = Self::new("POST", path).header("content-type", "multipart/form-data; boundary=cut");
        Self { body, ..request }
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Sends the body in two chunks, with a trailer behind them.
    pub(crate) fn in_chunks(self) -> Self {
        let body = self.body.split_at(self.body.len() / 2);
        let mut chunks = Vec::new();
        for chunk in [body.0, body.1] {
            chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
        let request = Self { body: chunks, in_chunks: true, ..self };
        request.header("transfer-encoding", "chunked")
    }

    /// Sets a header in place of one of the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.method != "GET"
            && !self.in_chunks
            && !self.headers.iter().any(|(name, _)| name == "content-length")
        {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it and reads the answer to its end.
    pub(crate) async fn send(&self, to: SocketAddr) -> Answer {
        self.start(to).await.finish().await
    }

    /// Sends it. The client leaves when the exchange is dropped.
    pub(crate) async fn start(&self, to: SocketAddr) -> Exchange {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // A server may refuse before it has read everything.
        let _ = stream.write_all(&self.bytes()).await;
        Exchange { stream, raw: Vec::new() }
    }
}

/// A request that was sent, and what came for it so far.
pub(crate) struct Exchange {
    stream: TcpStream,
    raw: Vec<u8>,
}

impl Exchange {
    /// Reads until `enough` came; what came by then.
    pub(crate) async fn until(&mut self, enough: impl Fn(&str) -> bool) -> String {
        let read = async {
            loop {
                let text = String::from_utf8_lossy(&self.raw).into_owned();
                if enough(&text) {
                    return text;
                }
                assert!(self.read().await, "ended before: {text}");
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("it does not come")
    }

    /// Reads to the end, also where that is a break.
    pub(crate) async fn finish(mut self) -> Answer {
        let read = async { while self.read().await {} };
        tokio::time::timeout(PATIENCE, read).await.expect("the answer does not end");
        parse(&self.raw)
    }

    /// Whether anything more came.
    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let length = self.stream.read(&mut buffer).await.unwrap_or_default();
        self.raw.extend_from_slice(&buffer[..length]);
        length > 0
    }
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(raw)));
    let head = std::str::from_utf8(&raw[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<_> = lines.map(header).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &raw[end + 4..];
    Answer { status, headers, body: if chunked { unchunk(body) } else { body.to_vec() } }
}

/// What a chunked body holds, as far as it came.
fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = raw.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&raw[..at]).unwrap().trim(), 16).unwrap();
        let from = at + 2;
        if length == 0 || raw.len() < from + length {
            break;
        }
        body.extend_from_slice(&raw[from..from + length]);
        raw = &raw[(from + length + 2).min(raw.len())..];
    }
    body
}
