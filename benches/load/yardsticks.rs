//! The yardsticks for the service: an empty call, calls of the same size without a decision, and a minimal service on Redis, with
//! the set-up of `src/server`, and an empty call with tonic's defaults.

use std::{
    fs,
    future::{Future, ready},
    path::Path,
};

use bytes::Bytes;
use redis::{IntoConnectionInfo as _, aio::MultiplexedConnection, io::tcp::TcpSettings};
use tokio::{net::TcpListener, runtime::Builder};
use tonic::{
    Status,
    transport::{Server, server::TcpIncoming},
};

use crate::rpc::{Asked, Call, Handler, Unary, announce, per_core, serve};

/// The files with the answers of the calls of the same size.
pub(crate) const AUTHORIZE_ANSWER: &str = "authorize";
pub(crate) const RECORD_USAGE_ANSWER: &str = "record-usage";
pub(crate) const CHECK_ANSWER: &str = "check";

const SCRIPT: &str = include_str!("minimal.lua");

/// Serves empty calls until killed: one current-thread runtime and one listener per core.
pub(crate) fn serve_empty() {
    per_core(|_, listener| serve(listener, Unary(Empty)));
}

/// Serves calls that are answered with the bytes of the files in `answers`, until killed.
pub(crate) fn serve_same_size(answers: &Path) {
    let read = |name| Bytes::from(fs::read(answers.join(name)).unwrap());
    let answers = SameSize {
        authorize: read(AUTHORIZE_ANSWER),
        record_usage: read(RECORD_USAGE_ANSWER),
        check: read(CHECK_ANSWER),
    };
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

#[derive(Clone)]
struct Empty;

impl Handler for Empty {
    const SERVICE: &'static str = "tollgate.bench.Empty";

    fn answer(&mut self, _: Call) -> impl Future<Output = Result<Bytes, Status>> + Send {
        ready(Ok(Bytes::new()))
    }
}

/// Answers that the service gave, byte for byte, whatever is asked.
#[derive(Clone)]
struct SameSize {
    authorize: Bytes,
    record_usage: Bytes,
    check: Bytes,
}

impl Handler for SameSize {
    const SERVICE: &'static str = "tollgate.bench.SameSize";

    fn answer(&mut self, call: Call) -> impl Future<Output = Result<Bytes, Status>> + Send {
        let answer = match call.asked {
            Asked::Authorize => &self.authorize,
            Asked::RecordUsage => &self.record_usage,
            Asked::Check => &self.check,
        };
        ready(Ok(answer.clone()))
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

    async fn answer(&mut self, _: Call) -> Result<Bytes, Status> {
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
