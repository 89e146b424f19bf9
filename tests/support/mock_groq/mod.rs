//! A mock of Groq's HTTP API on loopback, for tests and benchmarks: real shapes, and a ledger that bills by itself.
//!
//! What it answers is chosen by the prompt, so that any official SDK can drive it: `mock:{"completion_tokens":40}` in the
//! last message asks for 40 tokens. All directives are in [`directive`].
//!
//! Its tokenizer counts one token for every three bytes of the body that it received, and each token that it writes has
//! three bytes of text. Whoever sees the bytes of an exchange can therefore know its bill, even where the exchange broke.
//!
//! The suite includes it as a module; `cargo run --example mock-groq` runs it as a program.

mod audio;
pub(crate) mod body;
mod chat;
mod directive;
mod errors;
mod generation;
mod ledger;
mod responses;

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse as _, Response},
    serve::ListenerExt as _,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

pub(crate) use self::ledger::Ledger;
use self::{directive::Directive, errors::ApiError, ledger::Bill};

/// The key that the mock takes from the start.
pub(crate) const UPSTREAM_KEY: &str = "gsk_mock_upstream_key";

/// How many requests are kept for assertions.
const KEPT_REQUESTS: usize = 512;

/// How much of a request's body is kept: enough for any assertion, and no audio upload fills the memory.
const KEPT_BODY: usize = 64 * 1024;

/// More than Groq's 25 MB for an audio upload.
const BODY_LIMIT: usize = 32 * 1024 * 1024;

/// A running mock. It stops when dropped.
#[derive(Debug)]
pub(crate) struct MockGroq {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<io::Result<()>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: Method,
    /// With the query, as it was sent.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    /// Its first [`KEPT_BODY`] bytes.
    pub(crate) body: Bytes,
    /// The whole length of the body.
    pub(crate) body_length: usize,
}

/// A mock at `address` as a cluster of Envoy, in place of the one of Groq in the shipped configuration.
pub(crate) fn envoy_cluster(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "  - name: groq
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: groq
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: {ip}, port_value: {port} }}
"
    )
}

impl MockGroq {
    /// Starts on a free port of loopback.
    pub(crate) async fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port of loopback")
    }

    /// Starts on `address`.
    pub(crate) async fn start_on(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let app =
            Router::new().fallback(serve).layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state(shared.clone());
        // Without it the pieces of a stream wait for each other.
        let listener = listener.tap_io(|connection| {
            let _ = connection.set_nodelay(true);
        });
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, shared, server })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What Groq would bill for everything that ended so far.
    pub(crate) fn ledger(&self) -> Ledger {
        lock(&self.shared.ledger).clone()
    }

    /// The last requests, oldest first.
    pub(crate) fn requests(&self) -> Vec<Received> {
        lock(&self.shared.requests).iter().cloned().collect()
    }

    /// Takes exactly these keys from now on, as during a rotation.
    pub(crate) fn accept_keys(&self, keys: &[&str]) {
        *lock(&self.shared.keys) = keys.iter().map(|&key| key.to_owned()).collect();
    }

    /// Waits for the end of the server, which comes only with an error.
    pub(crate) async fn ended(mut self) -> io::Result<()> {
        (&mut self.server).await.map_err(io::Error::other)?
    }
}

impl Drop for MockGroq {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug)]
struct Shared {
    keys: Mutex<Vec<String>>,
    ledger: Arc<Mutex<Ledger>>,
    requests: Mutex<VecDeque<Received>>,
    /// Numbers the answers, for their ids.
    answers: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            keys: Mutex::new(vec![UPSTREAM_KEY.to_owned()]),
            ledger: Arc::default(),
            requests: Mutex::default(),
            answers: AtomicU64::new(1),
        }
    }
}

/// Nothing panics while it holds one of these locks, and a test that fails elsewhere still wants to read them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request on its way to an answer.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    shared: &'a Shared,
    headers: &'a HeaderMap,
    body: &'a Bytes,
    /// Unique in this mock: `chatcmpl-{number}`, `req_{number}`.
    number: u64,
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if uri.path() == "/ledger" {
        let ledger = lock(&shared.ledger).clone();
        return Json(ledger).into_response();
    }
    shared.receive(&method, &uri, &headers, &body);
    let number = shared.answers.fetch_add(1, Ordering::Relaxed);
    let call = Call { shared: &shared, headers: &headers, body: &body, number };
    call.answer(&method, uri.path()).await.unwrap_or_else(|error| {
        *lock(&shared.ledger).errors.entry(error.status).or_default() += 1;
        error.into_response(number)
    })
}

impl Shared {
    fn receive(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) {
        lock(&self.ledger).requests += 1;
        let kept = if body.len() > KEPT_BODY {
            Bytes::copy_from_slice(body.get(..KEPT_BODY).unwrap_or_default())
        } else {
            body.clone()
        };
        let received = Received {
            method: method.clone(),
            target: uri.to_string(),
            headers: headers.clone(),
            body: kept,
            body_length: body.len(),
        };
        let mut requests = lock(&self.requests);
        if requests.len() == KEPT_REQUESTS {
            requests.pop_front();
        }
        requests.push_back(received);
    }
}

impl Call<'_> {
    async fn answer(&self, method: &Method, path: &str) -> Result<Response, ApiError> {
        self.authenticate()?;
        let endpoint = path.strip_prefix("/openai/v1").unwrap_or_default();
        match (method.as_str(), endpoint) {
            ("POST", "/chat/completions") => chat::answer(self).await,
            ("POST", "/responses") => responses::answer(self).await,
            ("POST", "/embeddings") => self.embeddings().await,
            ("POST", "/audio/transcriptions" | "/audio/translations") => audio::transcribe(self).await,
            ("POST", "/audio/speech") => audio::speak(self).await,
            ("POST", "/batches") => self.batch(),
            ("GET", "/models") => Ok(body::json(self, &Directive::default(), &models())),
            _ => Err(errors::unknown_url(method, path)),
        }
    }

    fn authenticate(&self) -> Result<(), ApiError> {
        let authorization = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let known = key.is_some_and(|key| lock(&self.shared.keys).iter().any(|one| one == key));
        if known { Ok(()) } else { Err(errors::invalid_api_key()) }
    }

    /// The body as JSON.
    fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(self.body)
            .map_err(|error| errors::invalid_request(format!("the body is no valid JSON: {error}")))
    }

    /// Opens the bill, waits as the directive says, and refuses as it says. A client that leaves meanwhile pays its input.
    async fn begin(&self, model: &str, directive: &Directive) -> Result<Bill, ApiError> {
        let Some(price) = ledger::price_of(model) else { return Err(errors::unknown_model(model)) };
        let mut bill = Bill::open(self.shared.ledger.clone(), price, self.counted_input());
        if directive.refuses().is_some() {
            // Groq bills nothing for an answer that is an error, whenever the client left.
            bill.waive();
        }
        if let Some(delay) = directive.delay() {
            tokio::time::sleep(delay).await;
        }
        match directive.refuses() {
            Some(status) => Err(errors::directed(status, model, directive.retry_after)),
            None => Ok(bill),
        }
    }

    /// The input by this mock's tokenizer: one token for three bytes of the body.
    fn counted_input(&self) -> u64 {
        u64::try_from(self.body.len()).unwrap_or(u64::MAX).div_ceil(3)
    }

    async fn embeddings(&self) -> Result<Response, ApiError> {
        let request = self.json()?;
        let model = text(&request, "model")?;
        let directive = Directive::in_value(request.get("input"));
        let mut bill = self.begin(model, &directive).await?;
        let tokens = directive.prompt_tokens.unwrap_or_else(|| self.counted_input());
        bill.settle_tokens(ledger::Tokens { input: tokens, ..Default::default() });
        let answer = json!({
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.75]}],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        });
        Ok(body::json(self, &directive, &answer))
    }

    /// A batch is billed when it is done, which is after any test.
    fn batch(&self) -> Result<Response, ApiError> {
        let request = self.json()?;
        let answer = json!({
            "id": format!("batch_{}", self.number),
            "object": "batch",
            "endpoint": text(&request, "endpoint")?,
            "errors": null,
            "input_file_id": text(&request, "input_file_id")?,
            "completion_window": text(&request, "completion_window")?,
            "status": "validating",
            "output_file_id": null,
            "error_file_id": null,
            "created_at": now(),
            "expires_at": now() + 24 * 60 * 60,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": request.get("metadata"),
        });
        Ok(body::json(self, &Directive::default(), &answer))
    }
}

/// A field that must be there.
fn text<'a>(request: &'a Value, field: &str) -> Result<&'a str, ApiError> {
    request
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| errors::invalid_request(format!("property '{field}' is missing")))
}

fn models() -> Value {
    let entry = |price: &ledger::Price| {
        json!({
            "id": price.model,
            "object": "model",
            "created": 1_754_407_957,
            "owned_by": price.model.split_once('/').map_or("OpenAI", |(owner, _)| owner),
            "active": true,
            "context_window": 131_072,
            "public_apps": null,
            "max_completion_tokens": 65_536,
        })
    };
    json!({"object": "list", "data": ledger::PRICES.iter().map(entry).collect::<Vec<_>>()})
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
