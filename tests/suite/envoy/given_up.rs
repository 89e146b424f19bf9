//! Calls that Envoy gives up in a burst, as it does when they time out while this process has no core.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::edge::policy;
use crate::harness::{PATIENCE, START, Server, StoreKind};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// As many as are given up at once: those of one stalled Envoy.
const CALLS: u32 = 500;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block in HPACK, with nothing in its table.
pub(crate) fn headers(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // :method POST, :scheme http; then :path, :authority and content-type by their index, and te by its name.
    [
        vec![0x83, 0x86, 0x04],
        text(path),
        vec![0x01],
        text("tollgate"),
        vec![0x0f, 0x10],
        text("application/grpc"),
        vec![0x00],
        text("te"),
        text("trailers"),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_in_a_burst_do_not_end_the_connection() {
    let server = Server::start(StoreKind::Embedded, &policy(&[]), START).await;
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(SETTINGS, 0, 0, &[]));
    for call in 0..CALLS {
        let stream = 2 * call + 1;
        out.extend(frame(
            HEADERS,
            END_HEADERS,
            stream,
            &headers("/envoy.service.auth.v3.Authorization/Check"),
        ));
        // CANCEL
        out.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let last = 2 * CALLS + 1;
    out.extend(frame(HEADERS, END_HEADERS, last, &headers("/grpc.health.v1.Health/Check")));
    out.extend(frame(DATA, END_STREAM, last, &[0; 5]));
    socket.write_all(&out).await.unwrap();
    answer_on(&mut socket, last).await;
}

/// Reads until there is an answer on `stream`.
pub(crate) async fn answer_on(socket: &mut TcpStream, stream: u32) {
    until(socket, |kind, on| kind == DATA && on == stream).await;
}

/// Reads until there is the head of an answer.
pub(crate) async fn head(socket: &mut TcpStream) {
    until(socket, |kind, _| kind == HEADERS).await;
}

/// Reads until there is a frame whose kind and stream are `awaited`.
async fn until(socket: &mut TcpStream, awaited: impl Fn(u8, u32) -> bool) {
    let answered = async {
        loop {
            let mut header = [0; 9];
            socket.read_exact(&mut header).await.unwrap();
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut payload).await.unwrap();
            assert_ne!(header[3], GOAWAY, "{}", String::from_utf8_lossy(&payload));
            if awaited(header[3], u32::from_be_bytes([header[5], header[6], header[7], header[8]])) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("no answer");
}
