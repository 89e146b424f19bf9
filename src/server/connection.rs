//! A connection on which small answers share a system call.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::rpc::Peer;

/// A connection, plain or encrypted, that says that it takes one buffer at a time.
///
/// Over a connection that takes several, h2 does not copy a message of 256 bytes or more behind the frames before it, but
/// writes it by itself: one system call for each answer, several times the cost of the decision. Over this one it gathers
/// messages below 1,024 bytes, which answers with up to a dozen limits are.
pub(super) struct Connection {
    stream: Stream,
    peer: Peer,
}

enum Stream {
    Plain(TcpStream),
    /// Boxed: it is ten times the size of the other.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// A plain connection.
    pub(super) fn plain(stream: TcpStream) -> Self {
        let peer = Peer::plain(stream.peer_addr().ok());
        Self { stream: Stream::Plain(stream), peer }
    }

    /// An encrypted one, after the handshake.
    pub(super) fn tls(stream: TlsStream<TcpStream>, peer: Peer) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), peer }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

// `is_write_vectored` and `poll_write_vectored` stay as they are by default: one buffer.
impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
