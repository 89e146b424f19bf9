//! The smallest service on bytes that has the set-up of `src/server`: for yardsticks and for peers.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
};
use tokio_stream::StreamExt as _;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{
        Server,
        server::{Connected, TcpIncoming},
    },
};

/// As in `src/server/mod.rs` and `src/server/serving.rs`.
const BACKLOG: u32 = 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_STREAMS: u32 = 1024;

/// The line that the parent waits for.
pub(crate) fn announce(address: SocketAddr) {
    println!("listens on {address}");
}

pub(crate) fn per_core<F>(serve: impl Fn(usize, TcpListener) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()>,
{
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut workers = Vec::new();
    for index in 0..cores {
        let (bound, binding) = std::sync::mpsc::channel();
        let serve = serve.clone();
        let worker = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = listen(address);
                bound.send(listener.local_addr().unwrap()).unwrap();
                serve(index, listener).await;
            });
        });
        workers.push(worker.unwrap());
        address = binding.recv().unwrap();
    }
    announce(address);
    for worker in workers {
        worker.join().unwrap();
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(BACKLOG).unwrap()
}

pub(crate) async fn serve<H: Handler>(listener: TcpListener, service: Unary<H>) {
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .add_service(service);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    router.serve_with_incoming(incoming.map(|stream| stream.map(OneBuffer))).await.unwrap();
}

/// A connection that claims to take one buffer at a time, as that in `src/server/connection.rs`: h2 then writes answers of 256 to
/// 1,023 bytes together, and not each with a system call of its own.
struct OneBuffer(TcpStream);

impl AsyncRead for OneBuffer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

// `is_write_vectored` and `poll_write_vectored` stay as they are by default: one buffer.
impl AsyncWrite for OneBuffer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connected for OneBuffer {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.0.connect_info()
    }
}

/// Unary methods on bytes.
pub(crate) trait Handler: Clone + Send + Sync + 'static {
    const SERVICE: &'static str;

    /// The answer to a call.
    fn answer(&mut self, call: Call) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// The method of a call, as its path ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    RecordUsage,
    Check,
    /// Any other.
    Authorize,
}

impl Asked {
    fn of(path: &str) -> Self {
        match path.rsplit('/').next() {
            Some("RecordUsage") => Self::RecordUsage,
            Some("Check") => Self::Check,
            _ => Self::Authorize,
        }
    }
}

/// A call: its request, and its method, where there are several.
pub(crate) struct Call {
    #[allow(dead_code, reason = "yardsticks do not read it")]
    pub(crate) request: Bytes,
    #[allow(dead_code, reason = "peers have one method")]
    pub(crate) asked: Asked,
}

#[derive(Clone)]
pub(crate) struct Unary<H>(pub(crate) H);

impl<H: Handler> NamedService for Unary<H> {
    const NAME: &'static str = H::SERVICE;
}

impl<H: Handler> Service<http::Request<Body>> for Unary<H> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method { handler: self.0.clone(), asked: Asked::of(request.uri().path()) };
        Box::pin(async move { Ok(Grpc::new(Raw).unary(method, request).await) })
    }
}

struct Method<H> {
    handler: H,
    asked: Asked,
}

impl<H: Handler> UnaryService<Bytes> for Method<H> {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let call = Call { request: request.into_inner(), asked: self.asked };
        let mut handler = self.handler.clone();
        Box::pin(async move { handler.answer(call).await.map(Response::new) })
    }
}

/// Messages passed through unchanged.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
