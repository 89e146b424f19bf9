//! One attempt: one connection, one request, and what came of it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request,
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_rustls::ConfigBuilderExt as _;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::target::Target;
use crate::domain::occasion::first_line;

/// Why an attempt failed. Shows neither the path nor the query of an address, which may be a secret, nor any header.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum SendError {
    #[error("its address is none of https or http")]
    Url,
    #[error(
        "its address has a user, which is not sent; put a secret into the path, or in front of it a proxy that adds it"
    )]
    User,
    #[error("its address has a query, which Alertmanager's path cannot follow")]
    Query,
    /// Which, if it is one, is told to those who have the log, and not to those who see alerts.
    #[error("a file of its settings cannot be read: {1}")]
    File(Option<PathBuf>, String),
    #[error("a file of its settings holds no secret; a secret is `whsec_` and the base64 of 24 to 64 bytes")]
    Secret,
    #[error("its name is not known")]
    Unknown,
    #[error("its address is private; `allow_private` in its settings allows that")]
    Private,
    #[error("it was older than `retry_for` before it could be sent")]
    Late,
    #[error("it had ended before it could be sent")]
    Ended,
    #[error("no answer in time")]
    Timeout,
    #[error("cannot be reached: {0}")]
    Connect(io::ErrorKind),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error("the connection broke before an answer")]
    Broken,
    #[error("answered {0}, and redirects are not followed")]
    Redirect(u16),
    #[error("answered {0}")]
    Status(u16),
}

impl SendError {
    /// The status of the answer, if there was one.
    pub(super) const fn status(&self) -> Option<u16> {
        match self {
            Self::Redirect(status) | Self::Status(status) => Some(*status),
            _ => None,
        }
    }

    /// The error with the path of a file, for the log and for those who may test receivers.
    pub(super) fn with_path(&self) -> String {
        match self {
            Self::File(Some(path), _) => format!("{self} ({})", path.display()),
            _ => self.to_string(),
        }
    }
}

/// What a peer makes long, such as the names in its certificate, must not keep an entry from being written.
fn tls(error: impl ToString) -> SendError {
    SendError::Tls(first_line(&error.to_string()).to_string())
}

/// What is sent.
pub(super) struct Message {
    pub(super) body: Bytes,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// How a receiver is asked.
pub(super) struct Way<'a> {
    pub(super) url: &'a str,
    pub(super) ca_file: Option<&'a Path>,
    pub(super) allow_private: bool,
    pub(super) timeout: Duration,
}

/// Sends a message, and returns the status of the answer if that says that it has arrived.
pub(super) async fn send(way: &Way<'_>, message: Message) -> Result<u16, SendError> {
    #[cfg(test)]
    if super::sink::arrives(&message.body) {
        return Ok(200);
    }
    let sent = tokio::time::timeout(way.timeout, attempt(way, message)).await;
    let status = sent.map_err(|_| SendError::Timeout)??;
    match status {
        200..=299 => Ok(status),
        300..=399 => Err(SendError::Redirect(status)),
        _ => Err(SendError::Status(status)),
    }
}

async fn attempt(way: &Way<'_>, message: Message) -> Result<u16, SendError> {
    let target = Target::read(way.url)?;
    let stream = connect(&target, way.allow_private, way.timeout).await?;
    if !target.is_tls {
        return exchange(stream, &target, message).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|_| SendError::Url)?;
    let ca_file = way.ca_file.map(Path::to_owned);
    // This reads files, which would block the thread for a while.
    let config = tokio::task::spawn_blocking(move || config(ca_file.as_deref())).await;
    let config = config.map_err(|_| SendError::Broken)??;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    exchange(stream.map_err(tls)?, &target, message).await
}

/// Connects to the first address that takes a connection. Each has its share of half of `time`, so that one that drops packets leaves some
/// for the others and for the answer.
async fn connect(target: &Target, allow_private: bool, time: Duration) -> Result<TcpStream, SendError> {
    let addresses = target.addresses(allow_private).await?;
    let share = time / 2 / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = SendError::Unknown;
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = SendError::Connect(error.kind()),
            Err(_) => last = SendError::Connect(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

/// TLS that trusts the CAs in a file, or those of the machine.
fn config(ca_file: Option<&Path>) -> Result<ClientConfig, SendError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(tls)?;
    let Some(path) = ca_file else {
        let builder = builder.with_native_roots().map_err(tls)?;
        return Ok(builder.with_no_client_auth());
    };
    let unreadable = |error: String| SendError::File(Some(path.to_owned()), error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
    }
    // Then none would be trusted, and the receiver be blamed.
    if roots.is_empty() {
        return Err(unreadable("it has no certificate".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn exchange<S>(stream: S, target: &Target, message: Message) -> Result<u16, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| SendError::Broken)?;
    // It is closed as soon as the answer's head is there: what else it says is of no use.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request(target, message)?).await;
    connection.abort();
    answer.map(|answer| answer.status().as_u16()).map_err(|_| SendError::Broken)
}

fn request(target: &Target, message: Message) -> Result<Request<Full<Bytes>>, SendError> {
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = target.uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &message.headers {
        let value = HeaderValue::from_str(value).map_err(|_| SendError::Url)?;
        request = request.header(*name, value);
    }
    request.body(Full::new(message.body)).map_err(|_| SendError::Url)
}
