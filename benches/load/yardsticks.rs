//! The yardsticks for the service: an empty call and a minimal service on Redis, with the set-up of `src/server`, and an empty
//! call with tonic's defaults.

use std::{
    future::{Future, ready},
    net::SocketAddr,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use redis::{IntoConnectionInfo as _, aio::MultiplexedConnection, io::tcp::TcpSettings};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Builder,
};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};

/// As in `src/server/mod.rs`.
const BACKLOG: u32 = 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);

const SCRIPT: &str = include_str!("minimal.lua");

/// Serves empty calls until killed: one current-thread runtime and one listener per core.
pub(crate) fn serve_empty() {
    per_core(|_, listener| serve(listener, Unary(Empty)));
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
    let router = Server::builder().http2_keepalive_interval(Some(KEEPALIVE)).add_service(service);
    router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await.unwrap();
}

/// One unary method on bytes.
trait Handler: Clone + Send + Sync + 'static {
    const SERVICE: &'static str;

    fn answer(&mut self) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

#[derive(Clone)]
struct Empty;

impl Handler for Empty {
    const SERVICE: &'static str = "tollgate.bench.Empty";

    fn answer(&mut self) -> impl Future<Output = Result<Bytes, Status>> + Send {
        ready(Ok(Bytes::new()))
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

    async fn answer(&mut self) -> Result<Bytes, Status> {
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
        let method = Method(self.0.clone());
        Box::pin(async move { Ok(Grpc::new(Raw).unary(method, request).await) })
    }
}

struct Method<H>(H);

impl<H: Handler> UnaryService<Bytes> for Method<H> {
    type Response = Bytes;
    type Future = BoxFuture<Response<Bytes>, Status>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let mut handler = self.0.clone();
        Box::pin(async move { handler.answer().await.map(Response::new) })
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
