//! Asks an issuer: for its keys (two small documents), for its addresses, and for the ID token of someone who signs in. All over
//! HTTPS, each answer bounded in size, with one deadline for all that one question takes.

use std::{error::Error, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use jsonwebtoken::jwk::Jwk;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

/// How long both documents may take: many times what an issuer on another continent needs.
const DEADLINE: Duration = Duration::from_secs(3);
/// The most bytes of a document; a usual one has a few thousand.
const MAX_BYTES: usize = 256 * 1024;
/// The most keys of an issuer; a usual one has two or three.
const MAX_KEYS: usize = 100;

/// The most bytes of the word by which an issuer says why it refuses.
const MAX_ERROR: usize = 40;

/// Why an issuer gives no answer. It goes to the log only; callers do not see it.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("no answer within {DEADLINE:?}")]
    Deadline,
    #[error("`{0}` is no URL that is asked: https, or http where the issuer's own is")]
    Url(String),
    #[error("the system's certificates cannot be read: {0}")]
    Roots(io::Error),
    #[error("`{url}` cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("`{url}` answers {status}{}", error.as_deref().map(|error| format!(" (`{error}`)")).unwrap_or_default())]
    Status { url: String, status: u16, error: Option<String> },
    #[error("`{url}` answers with something else: {reason}")]
    Malformed { url: String, reason: String },
    #[error("its configuration is of another issuer, `{0}`")]
    OtherIssuer(String),
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Where an issuer is asked when people sign in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Endpoints {
    issuer: String,
    /// Where browsers go.
    pub(super) authorization_endpoint: String,
    /// Where codes are redeemed.
    pub(super) token_endpoint: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether each answer to the browser names the issuer (RFC 9207).
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl Endpoints {
    /// Whether a client's secret goes into the form: only where the issuer does not take it as Basic, which every one has to know
    /// (RFC 6749, 2.3.1).
    fn wants_secret_in_form(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_deref().unwrap_or_default();
        let has = |name: &str| methods.iter().any(|method| method == name);
        has("client_secret_post") && !has("client_secret_basic")
    }
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

/// What an issuer says when it refuses.
#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// A code, and what it is redeemed with.
pub(super) struct Redeem<'a> {
    pub(super) code: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) verifier: &'a str,
    pub(super) client_id: &'a str,
    pub(super) secret: Option<&'a str>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// The keys that `issuer` publishes. Keys that cannot be read are left out.
pub(super) async fn keys(issuer: &str) -> Result<Vec<Jwk>, FetchError> {
    let both = async {
        let plain = is_plain(issuer);
        let configuration: Configuration = get(&configuration_of(issuer), plain).await?;
        if configuration.issuer != issuer {
            return Err(FetchError::OtherIssuer(configuration.issuer));
        }
        let set: KeySet = get(&configuration.jwks_uri, plain).await?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        Ok(keys.filter_map(|key| serde_json::from_value(key).ok()).collect())
    };
    tokio::time::timeout(DEADLINE, both).await.map_err(|_| FetchError::Deadline)?
}

/// Asks `issuer` for its keys, as the service does before it trusts a token; how many it publishes.
///
/// # Errors
/// Why there is no answer, in words for a log.
pub async fn reach(issuer: &str) -> Result<usize, String> {
    keys(issuer).await.map(|keys| keys.len()).map_err(|error| error.to_string())
}

/// Where `issuer` is asked when people sign in.
pub(super) async fn endpoints(issuer: &str) -> Result<Endpoints, FetchError> {
    let plain = is_plain(issuer);
    let at = configuration_of(issuer);
    let asked = tokio::time::timeout(DEADLINE, get::<Endpoints>(&at, plain));
    let found = asked.await.map_err(|_| FetchError::Deadline)??;
    if found.issuer != issuer {
        return Err(FetchError::OtherIssuer(found.issuer));
    }
    // The browser is sent to the first, and a secret to the second.
    let is_safe = |url: &&String| url.starts_with("https://") || plain && url.starts_with("http://");
    let unsafe_one =
        [&found.authorization_endpoint, &found.token_endpoint].into_iter().find(|url| !is_safe(url));
    unsafe_one.cloned().map_or(Ok(found), |url| Err(FetchError::Url(url)))
}

/// The ID token for a code.
pub(super) async fn redeem(endpoints: &Endpoints, redeem: &Redeem<'_>) -> Result<String, FetchError> {
    let url = &endpoints.token_endpoint;
    let (form, basic) = redeem.as_form(endpoints);
    let mut request = Request::post(url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(basic) = basic {
        request = request.header(AUTHORIZATION, basic);
    }
    let request = request.body(Full::from(form)).map_err(|_| FetchError::Url(url.clone()))?;
    let asked = tokio::time::timeout(DEADLINE, ask::<Tokens>(request, url, is_plain(&endpoints.issuer)));
    Ok(asked.await.map_err(|_| FetchError::Deadline)??.id_token)
}

impl Redeem<'_> {
    /// The form that is sent, and the header `authorization` beside it.
    fn as_form(&self, endpoints: &Endpoints) -> (String, Option<String>) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", self.code)
            .append_pair("redirect_uri", self.redirect_uri)
            .append_pair("code_verifier", self.verifier);
        match self.secret {
            Some(secret) if !endpoints.wants_secret_in_form() => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(self.client_id), encoded(secret));
                return (form.finish(), Some(format!("Basic {}", STANDARD.encode(pair))));
            }
            Some(secret) => {
                form.append_pair("client_id", self.client_id).append_pair("client_secret", secret)
            }
            None => form.append_pair("client_id", self.client_id),
        };
        (form.finish(), None)
    }
}

fn configuration_of(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// Whether an issuer is asked without TLS: it is on loopback then.
fn is_plain(issuer: &str) -> bool {
    issuer.starts_with("http://")
}

/// The document at `url`. `plain`: the issuer is on loopback and is asked without TLS.
async fn get<T: DeserializeOwned>(url: &str, plain: bool) -> Result<T, FetchError> {
    let request = Request::get(url).header(ACCEPT, "application/json").body(Full::default());
    ask(request.map_err(|_| FetchError::Url(url.to_owned()))?, url, plain).await
}

async fn ask<T: DeserializeOwned>(
    request: Request<Full<Bytes>>,
    url: &str,
    plain: bool,
) -> Result<T, FetchError> {
    if url.starts_with("https://") {
        // This reads files, which would block the thread of a core for a while.
        let roots = tokio::task::spawn_blocking(|| HttpsConnectorBuilder::new().with_native_roots());
        let roots = roots.await.map_err(io::Error::other).flatten().map_err(FetchError::Roots)?;
        ask_by(roots.https_only().enable_http1().build(), request, url).await
    } else if plain && url.starts_with("http://") {
        ask_by(HttpConnector::new(), request, url).await
    } else {
        Err(FetchError::Url(url.to_owned()))
    }
}

/// Opens a connection for each question, as they are few. Redirects are not followed: what is asked for is where the issuer says
/// it is.
async fn ask_by<C, T>(connector: C, request: Request<Full<Bytes>>, url: &str) -> Result<T, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
    T: DeserializeOwned,
{
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let unreachable = |reason: String| FetchError::Unreachable { url: url.to_owned(), reason };
    let answer = client.request(request).await.map_err(|error| unreachable(cause(&error)))?;
    let status = answer.status();
    let malformed = |reason: String| FetchError::Malformed { url: url.to_owned(), reason };
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    if !status.is_success() {
        let error = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        let error = error.map(|Refused { error }| error).filter(|error| is_error_code(error));
        return Err(FetchError::Status { url: url.to_owned(), status: status.as_u16(), error });
    }
    let body = body.map_err(|error| malformed(error.to_string()))?.to_bytes();
    // Only what kind of fault it is, and where: the error itself may quote a token.
    serde_json::from_slice(&body)
        .map_err(|error| malformed(format!("{:?} at column {}", error.classify(), error.column())))
}

/// Whether `text` is one of the words by which issuers say why they refuse, and nothing that they echo.
pub(super) fn is_error_code(text: &str) -> bool {
    (1..=MAX_ERROR).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// The root cause of `error`, as the client itself only says that it could not connect; and what may help.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let cause = root.to_string();
    match cause.contains("UnknownIssuer") {
        true => format!(
            "{cause}; a CA of your own is trusted through SSL_CERT_FILE or SSL_CERT_DIR, in place of the system's"
        ),
        false => cause,
    }
}
