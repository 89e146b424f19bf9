//! A client that speaks HTTP/2 by hand, and so can leave out what every real one does.

use std::{io, net::SocketAddr};

use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::harness::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The most that flow control can permit.
const ALL: u32 = (1 << 31) - 1;

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

/// What the server sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) ends: bool,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // What is not read is to be the server's, and not the system's.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        Self { stream: socket.connect(address).await.unwrap() }
    }

    /// Connects, and lets the server send as much as it likes.
    pub(crate) async fn greet(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(PREFACE).await;
        let window = [&4_u16.to_be_bytes()[..], &ALL.to_be_bytes()].concat();
        raw.frame(SETTINGS, 0, 0, &window).await;
        raw.frame(WINDOW_UPDATE, 0, 0, &(ALL - 65_535).to_be_bytes()).await;
        raw
    }

    /// Connects, and gives no room for any answer.
    pub(crate) async fn greet_without_window(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(PREFACE).await;
        let window = [&4_u16.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
        raw.frame(SETTINGS, 0, 0, &window).await;
        raw
    }

    /// Sends what may not arrive: the server may have closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.send(&[&head, payload].concat()).await;
    }

    /// The head of a call, without its message.
    pub(crate) async fn head(&mut self, stream: u32, path: &str) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        self.frame(HEADERS, END_HEADERS, stream, &block).await;
    }

    /// A whole call.
    pub(crate) async fn call(&mut self, stream: u32, path: &str, message: &impl Message) {
        self.head(stream, path).await;
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.frame(DATA, END_STREAM, stream, &[&[0], &length[..], &message].concat()).await;
    }

    /// Whether so many bytes have come that are not read. They stay unread.
    pub(crate) async fn waiting(&self, bytes: usize) -> bool {
        let mut seen = vec![0; bytes];
        self.stream.peek(&mut seen).await.is_ok_and(|count| count == bytes)
    }

    /// The next frame; `None` where the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read_frame()).await.expect("neither a frame nor the end").ok()
    }

    async fn read_frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await?;
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        Ok(Frame { kind, stream: u32::from_be_bytes(stream), ends, payload })
    }

    /// Reads until there is a frame of `kind`; whether there was one before the end.
    pub(crate) async fn sees(&mut self, kind: u8) -> bool {
        while let Some(frame) = self.next().await {
            if frame.kind == kind {
                return true;
            }
        }
        false
    }

    /// Reads until the call on `stream` has ended; whether it did before the connection.
    pub(crate) async fn is_answered(&mut self, stream: u32) -> bool {
        while let Some(frame) = self.next().await {
            if frame.stream == stream && frame.ends {
                return true;
            }
        }
        false
    }

    /// Bytes that come until the connection ends.
    pub(crate) async fn rest(&mut self) -> usize {
        let mut rest = vec![0; 1 << 20];
        let mut count = 0;
        loop {
            match timeout(PATIENCE, self.stream.read(&mut rest)).await.expect("the connection does not end") {
                Ok(0) | Err(_) => return count,
                Ok(length) => count += length,
            }
        }
    }
}
