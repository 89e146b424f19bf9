//! Asks an issuer for its keys: two small documents over HTTPS, each bounded in size, with one deadline for both.

use std::{error::Error, io, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
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

/// Why an issuer's keys are unavailable. It goes to the log only; callers do not see it.
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
    #[error("`{url}` answers {status}")]
    Status { url: String, status: u16 },
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

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// The keys that `issuer` publishes. Keys that cannot be read are left out.
pub(super) async fn keys(issuer: &str) -> Result<Vec<Jwk>, FetchError> {
    let both = async {
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let plain = issuer.starts_with("http://");
        let configuration: Configuration = get(&at, plain).await?;
        if configuration.issuer != issuer {
            return Err(FetchError::OtherIssuer(configuration.issuer));
        }
        let set: KeySet = get(&configuration.jwks_uri, plain).await?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        Ok(keys.filter_map(|key| serde_json::from_value(key).ok()).collect())
    };
    tokio::time::timeout(DEADLINE, both).await.map_err(|_| FetchError::Deadline)?
}

/// The document at `url`. `plain`: the issuer is on loopback and is asked without TLS.
async fn get<T: DeserializeOwned>(url: &str, plain: bool) -> Result<T, FetchError> {
    if url.starts_with("https://") {
        // This reads files, which would block the thread of a core for a while.
        let roots = tokio::task::spawn_blocking(|| HttpsConnectorBuilder::new().with_native_roots());
        let roots = roots.await.map_err(io::Error::other).flatten().map_err(FetchError::Roots)?;
        get_by(roots.https_only().enable_http1().build(), url).await
    } else if plain && url.starts_with("http://") {
        get_by(HttpConnector::new(), url).await
    } else {
        Err(FetchError::Url(url.to_owned()))
    }
}

/// Opens a connection for each document, as they are fetched only once an hour. Redirects are not followed: the keys are where
/// the issuer says they are.
async fn get_by<C, T>(connector: C, url: &str) -> Result<T, FetchError>
where
    C: Connect + Clone + Send + Sync + 'static,
    T: DeserializeOwned,
{
    let uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build::<_, Empty<bytes::Bytes>>(connector);
    let unreachable = |reason: String| FetchError::Unreachable { url: url.to_owned(), reason };
    let answer = client.get(uri).await.map_err(|error| unreachable(cause(&error)))?;
    if !answer.status().is_success() {
        return Err(FetchError::Status { url: url.to_owned(), status: answer.status().as_u16() });
    }
    let malformed = |reason: String| FetchError::Malformed { url: url.to_owned(), reason };
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|error| malformed(error.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))
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
