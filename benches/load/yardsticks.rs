//! The yardsticks for the service: an empty call, calls of the same size without a decision, and a minimal service on Redis, with
//! the set-up of `src/server`, and an empty call with tonic's defaults.

use std::{
    fs,
    future::{Future, ready},
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use redis::{IntoConnectionInfo as _, aio::MultiplexedConnection, io::tcp::TcpSettings};
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

use crate::calls::SAME_SIZE_RECORD_USAGE;

/// As in `src/server/mod.rs` and `src/server/serving.rs`.
const BACKLOG: u32 = 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_STREAMS: u32 = 1024;

/// The files with the answers of the calls of the same size.
pub(crate) const AUTHORIZE_ANSWER: &str = "authorize";
pub(crate) const RECORD_USAGE_ANSWER: &str = "record-usage";

const SCRIPT: &str = include_str!("minimal.lua");

/// Serves empty calls until killed: one current-thread runtime and one listener per core.
pub(crate) fn serve_empty() {
    per_core(|_, listener| serve(listener, Unary(Empty)));
}

/// Serves calls that are answered with the bytes of the files in `answers`, until killed.
pub(crate) fn serve_same_size(answers: &Path) {
    let read = |name| Bytes::from(fs::read(answers.join(name)).unwrap());
    let answers = SameSize { authorize: read(AUTHORIZE_ANSWER), record_usage: read(RECORD_USAGE_ANSWER) };
    per_core(move |_, listener| serve(listener, Unary(answers.clone())));
}

/// Serves the minimal service on the Redis server at `url`, with one runtime, listener and connection per core.
pub(crate) fn serve_minimal(url: &str) {
    let url = url.to_owned();
    per_core(move |index, listener| {
        let url = url.clone();
        async move {
            let minimal = Minimal::connect(index, &url).await;
            serve(listener, Unary(minimal)).await;
        }
    });
}

/// Serves empty calls with tonic's defaults: one multi-threaded runtime and one listener. Only `TCP_NODELAY` is set, as
/// `Server::serve` does.
pub(crate) fn serve_default() {
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        announce(listener.local_addr().unwrap());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let router = Server::builder().add_service(Unary(Empty));
        router.serve_with_incoming(incoming).await.unwrap();
    });
}

/// The line that the parent waits for.
fn announce(address: SocketAddr) {
    println!("listens on {address}");
}

fn per_core<F>(serve: impl Fn(usize, TcpListener) -> F + Clone + Send + 'static)
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

async fn serve<H: Handler>(listener: TcpListener, service: Unary<H>) {
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
trait Handler: Clone + Send + Sync + 'static {
    const SERVICE: &'static str;

    /// The answer to a call; `settles`: of `RecordUsage`, where there is one.
    fn answer(&mut self, settles: bool) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

#[derive(Clone)]
struct Empty;

impl Handler for Empty {
    const SERVICE: &'static str = "tollgate.bench.Empty";

    fn answer(&mut self, _: bool) -> impl Future<Output = Result<Bytes, Status>> + Send {
        ready(Ok(Bytes::new()))
    }
}

/// Answers that the service gave, byte for byte, whatever is asked.
#[derive(Clone)]
struct SameSize {
    authorize: Bytes,
    record_usage: Bytes,
}

impl Handler for SameSize {
    const SERVICE: &'static str = "tollgate.bench.SameSize";

    fn answer(&mut self, settles: bool) -> impl Future<Output = Result<Bytes, Status>> + Send {
        ready(Ok(if settles { &self.record_usage } else { &self.authorize }.clone()))
    }
}

/// One `EVALSHA` per call.
#[derive(Clone)]
struct Minimal {
    connection: MultiplexedConnection,
    sha: String,
    /// Amounts and limits.
    numbers: Vec<u8>,
    /// Distinguishes records of different workers.
    worker: usize,
}

/// As many opaque bytes as the service keeps with a reservation.
const RECORD: [u8; 128] = [7; 128];

impl Minimal {
    async fn connect(worker: usize, url: &str) -> Self {
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = url.into_connection_info().unwrap().set_tcp_settings(tcp);
        let mut connection =
            redis::Client::open(info).unwrap().get_multiplexed_async_connection().await.unwrap();
        let sha: String =
            redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await.unwrap();
        let amounts = [1.0, 1600.0, 1.0, 1600.0, 1.0, 1.0, 420_000.0, 420_000.0];
        let limits = [9e15; 8];
        let numbers = amounts.into_iter().chain(limits).flat_map(f64::to_le_bytes).collect();
        Self { connection, sha, numbers, worker }
    }
}

impl Handler for Minimal {
    const SERVICE: &'static str = "tollgate.bench.Minimal";

    async fn answer(&mut self, _: bool) -> Result<Bytes, Status> {
        let id = next_id(self.worker);
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(&self.sha)
            .arg(2)
            .arg(b"minimal:{bench}:counters")
            .arg(&id)
            .arg(&self.numbers)
            .arg(&RECORD);
        let granted: i64 = command
            .query_async(&mut self.connection)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        // `decision` and nothing else.
        Ok(Bytes::from_static(if granted == 1 { &[0x08, 0x01] } else { &[0x08, 0x02] }))
    }
}

/// A record's key; unique without a random number, so nothing could be cheaper.
fn next_id(worker: usize) -> Vec<u8> {
    thread_local! {
        static NEXT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    let number = NEXT.replace(NEXT.get() + 1);
    let mut id = b"minimal:{bench}:reservation:".to_vec();
    id.extend(worker.to_le_bytes());
    id.extend(number.to_le_bytes());
    id
}

#[derive(Clone)]
struct Unary<H>(H);

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
        let settles = request.uri().path() == SAME_SIZE_RECORD_USAGE;
        let method = Method { handler: self.0.clone(), settles };
        Box::pin(async move { Ok(Grpc::new(Raw).unary(method, request).await) })
    }
}

struct Method<H> {
    handler: H,
    settles: bool,
}

impl<H: Handler> UnaryService<Bytes> for Method<H> {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let (mut handler, settles) = (self.handler.clone(), self.settles);
        Box::pin(async move { handler.answer(settles).await.map(Response::new) })
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
