//! A connection that puts several small answers into one system call, and counts its traffic.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::record::Record;

/// A connection, plain or encrypted, that claims to take one buffer at a time.
///
/// If a connection takes several, h2 does not copy a message of 256 bytes or more behind the frames before it, but writes it by
/// itself: one system call for each answer, several times the cost of the decision. With this one it gathers pieces below 1,024
/// bytes, into which answers are cut.
pub(super) struct Connection {
    stream: Stream,
    record: Arc<Record>,
    /// Whether bytes that arrive outside a call begin a request.
    begins_requests: bool,
}

pub(super) enum Stream {
    Plain(TcpStream),
    /// Boxed: it is ten times the size of the other.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Counts in `record`; `begins_requests`: over HTTP/1.
    pub(super) const fn new(stream: Stream, record: Arc<Record>, begins_requests: bool) -> Self {
        Self { stream, record, begins_requests }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        })?;
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.record.received(bytes, self.begins_requests);
        }
        Poll::Ready(Ok(()))
    }
}

// `is_write_vectored` and `poll_write_vectored` stay as they are by default: one buffer.
impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = ready!(match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        })?;
        self.record.wrote(bytes);
        Poll::Ready(Ok(bytes))
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
