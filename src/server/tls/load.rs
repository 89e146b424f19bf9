//! Turns files into what a handshake needs. Every error names its file and what to do about it.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use thiserror::Error;
use x509_parser::parse_x509_certificate;

use crate::{
    domain::Timestamp,
    settings::{ClientAuth, TlsFiles},
};

/// A bundle of every public CA is a quarter of this; a wrong file is not read to its end.
const MAX_BYTES: u64 = 1 << 20;

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {reason}; name a PEM file that the user of this process may read")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's message, or what is wrong.
        reason: String,
    },
    /// A file of certificates holds none.
    #[error("`{0}` holds no certificate; it has to be PEM, with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(String),
    /// A certificate, or the armour around it, is malformed.
    #[error("`{path}` holds a malformed certificate ({reason}); issue it again")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The key file holds no readable key.
    #[error("`{0}` holds no private key; it has to be PEM, unencrypted, with `-----BEGIN PRIVATE KEY-----`")]
    NoKey(String),
    /// The key is encrypted, and no one is there to type its password.
    #[error(
        "the key in `{0}` is encrypted; write it unencrypted with `openssl pkey`, and let only this user read it"
    )]
    EncryptedKey(String),
    /// The key is of a kind that cannot be used.
    #[error(
        "the key in `{path}` cannot be used ({reason}); make one with ECDSA P-256, Ed25519 or RSA of 2,048 bits or more"
    )]
    Key {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The certificate and the key do not belong together.
    #[error(
        "the key in `{key}` does not match the first certificate in `{cert}`; name the key that it was made with, and put the server's certificate before those of its CAs"
    )]
    Mismatch {
        /// The file of the key.
        key: String,
        /// The file of the certificate.
        cert: String,
    },
    /// The CA file cannot verify any client.
    #[error("no client can be verified against `{path}`: {reason}")]
    ClientCa {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The system cannot start a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// The contents of the files.
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let client_ca = files.client_ca.as_deref().map(read).transpose()?;
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)?, client_ca })
    }

    /// Identifies contents, so no copy of the key has to be kept for comparison.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten() {
            hasher.update(blake3::hash(part).as_bytes());
        }
        hasher.finalize()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |reason| TlsError::Unreadable { path: shown_path(path), reason };
    let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(unreadable(format!("{size} bytes are more than keys and certificates have")));
    }
    let text = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    // Some editors put a byte order mark before the first line, which PEM does not allow.
    Ok(text.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| text.clone(), <[u8]>::to_vec))
}

fn shown_path(path: &Path) -> String {
    path.display().to_string()
}

/// The configurations for handshakes.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// For listeners of gRPC.
    pub(super) grpc: Arc<ServerConfig>,
    /// For listeners of HTTP/1.1.
    pub(super) pages: Arc<ServerConfig>,
    pub(super) valid_from: Timestamp,
    pub(super) valid_until: Timestamp,
    /// The digest of the [`Contents`] it was made from.
    pub(super) digest: blake3::Hash,
}

impl Handshakes {
    pub(super) fn new(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let chain = certificates(&files.cert, &contents.cert)?;
        let (valid_from, valid_until) = dates(&files.cert, &chain)?;
        let key = private_key(&files.key, &contents.key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| key_error(files, error))?;
        let builder = match client_verifier(files, contents)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| key_error(files, error))?;
        // A resumed session is not verified again, so a client would stay accepted after its certificate expired or its CA was
        // removed. Connections here live long, so resuming would save next to nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let with_protocol = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Self {
            grpc: with_protocol(b"h2"),
            pages: with_protocol(b"http/1.1"),
            valid_from,
            valid_until,
            digest: contents.digest(),
        })
    }
}

fn key_error(files: &TlsFiles, error: rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Mismatch { key: shown_path(&files.key), cert: shown_path(&files.cert) }
        }
        rustls::Error::InvalidCertificate(reason) => {
            TlsError::Malformed { path: shown_path(&files.cert), reason: reason.to_string() }
        }
        error => TlsError::Key { path: shown_path(&files.key), reason: error.to_string() },
    }
}

fn client_verifier(
    files: &TlsFiles,
    contents: &Contents,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (Some(path), Some(text)) = (&files.client_ca, &contents.client_ca) else { return Ok(None) };
    // Read even if no client is asked for a certificate, so a fault shows now and not on the day one is.
    let unusable = |reason: String| TlsError::ClientCa { path: shown_path(path), reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, text)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match files.client_auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Optional => builder.allow_unauthenticated(),
        ClientAuth::Required => builder,
    };
    builder.build().map(Some).map_err(|error| unusable(error.to_string()))
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let found =
        found.map_err(|error| TlsError::Malformed { path: shown_path(path), reason: error.to_string() })?;
    if found.is_empty() { Err(TlsError::NoCertificate(shown_path(path))) } else { Ok(found) }
}

fn private_key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| {
        // The error is not shown: it can hold a line of the file.
        let says = |words: &str| text.windows(words.len()).any(|window| window == words.as_bytes());
        match says("BEGIN ENCRYPTED PRIVATE KEY") || says("Proc-Type: 4,ENCRYPTED") {
            true => TlsError::EncryptedKey(shown_path(path)),
            false => TlsError::NoKey(shown_path(path)),
        }
    })
}

/// When a certificate may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first instant.
    pub from: Timestamp,
    /// Its last.
    pub until: Timestamp,
}

/// Reads the files as the service does; when the server's own certificate may be used.
///
/// # Errors
/// Which file is wrong and what to do about it.
pub fn examine(files: &TlsFiles) -> Result<Validity, TlsError> {
    let made = Handshakes::new(files, &Contents::read(files)?)?;
    Ok(Validity { from: made.valid_from, until: made.valid_until })
}

/// When the certificates in the file `path` may be used, all of them together.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub fn validity_of(path: &Path) -> Result<Validity, TlsError> {
    let mut all = Validity { from: Timestamp(0), until: Timestamp(u64::MAX) };
    for certificate in certificates(path, &read(path)?)? {
        let (from, until) = dates(path, &[certificate])?;
        all = Validity { from: all.from.max(from), until: all.until.min(until) };
    }
    Ok(all)
}

/// The first certificate in the file `path`.
pub(super) fn first_certificate(path: &Path) -> Result<CertificateDer<'static>, TlsError> {
    let mut found = certificates(path, &read(path)?)?.into_iter();
    found.next().ok_or_else(|| TlsError::NoCertificate(shown_path(path)))
}

/// The start and the end of the first certificate's validity.
fn dates(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(Timestamp, Timestamp), TlsError> {
    let malformed = |reason: String| TlsError::Malformed { path: shown_path(path), reason };
    let first = chain.first().ok_or_else(|| TlsError::NoCertificate(shown_path(path)))?;
    let (_, certificate) = parse_x509_certificate(first).map_err(|error| malformed(error.to_string()))?;
    let validity = certificate.validity();
    // A date before 1970 counts as valid since forever.
    let at = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000));
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

/// An instant in human-readable form.
pub(super) fn shown(instant: Timestamp) -> String {
    let seconds = i64::try_from(instant.0 / 1_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "for ever".to_owned(), |at| at.to_string())
}
