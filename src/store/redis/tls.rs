//! TLS to Redis: the CA and a client certificate stand in files, which are read again for each new connection.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use thiserror::Error;

use super::reread::{Files, Reread};

/// A bundle of every public CA is a quarter of this; a wrong file is not read to its end.
const MAX_BYTES: u64 = 1 << 20;

/// The files of TLS to Redis. Without any, the CAs of this machine are trusted and no certificate is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisTlsFiles {
    /// The CA of the servers' certificates (PEM, one or more).
    pub ca: Option<PathBuf>,
    /// A client certificate (PEM) and its private key (PEM, unencrypted).
    pub pair: Option<(PathBuf, PathBuf)>,
}

/// TLS to Redis. Clones share what they know of the files.
#[derive(Clone, Default)]
pub struct RedisTls(Option<Arc<Reread<RedisTlsFiles>>>);

/// Why the files cannot be used. Reveals nothing of their content.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RedisTlsError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {reason}; name a PEM file that the user of this process may read")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's message, or what is wrong.
        reason: String,
    },
    /// A file of certificates holds none, or a malformed one.
    #[error("`{0}` holds no certificate; it has to be PEM, with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(String),
    /// The key file holds no readable key.
    #[error("`{0}` holds no private key; it has to be PEM, unencrypted, with `-----BEGIN PRIVATE KEY-----`")]
    NoKey(String),
    /// The certificate and the key do not belong together, or cannot be used.
    #[error(
        "the key in `{key}` cannot be used with the certificate in `{cert}` ({reason}); name the key that it was made with"
    )]
    Pair {
        /// The file of the key.
        key: String,
        /// The file of the certificate.
        cert: String,
        /// Why.
        reason: String,
    },
}

/// The content of the files, which made a working configuration.
#[derive(PartialEq)]
pub(super) struct Pem {
    ca: Option<Vec<u8>>,
    pair: Option<(Vec<u8>, Vec<u8>)>,
}

impl RedisTls {
    /// Reads the files, now and for each connection that is made later than a second from now.
    ///
    /// # Errors
    /// Which file is wrong and what to do about it.
    pub fn open(files: RedisTlsFiles) -> Result<Self, RedisTlsError> {
        if files == RedisTlsFiles::default() {
            return Ok(Self::default());
        }
        let first = files.read()?;
        Ok(Self(Some(Arc::new(Reread::new(files, first)))))
    }

    /// The certificates for a connection that is made now.
    pub(super) async fn current(&self) -> TlsCertificates {
        let Some(files) = &self.0 else { return TlsCertificates { client_tls: None, root_cert: None } };
        let pem = files.current().await;
        let client_tls = pem.pair.clone();
        let client_tls =
            client_tls.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        TlsCertificates { client_tls, root_cert: pem.ca.clone() }
    }
}

impl Files for RedisTlsFiles {
    type Content = Pem;
    type Error = RedisTlsError;

    fn read(&self) -> Result<Pem, RedisTlsError> {
        let (mut roots, mut chain) = (RootCertStore::empty(), None);
        let ca = self.ca.as_deref().map(read).transpose()?;
        if let (Some(path), Some(pem)) = (&self.ca, &ca) {
            for certificate in certificates(path, pem)? {
                roots.add(certificate).map_err(|_| RedisTlsError::NoCertificate(shown(path)))?;
            }
        }
        let pair = self.pair.as_ref().map(|(cert, key)| Ok((read(cert)?, read(key)?))).transpose()?;
        if let (Some((cert_path, key_path)), Some((cert, key))) = (&self.pair, &pair) {
            let key = PrivateKeyDer::from_pem_slice(key);
            let key = key.map_err(|_| RedisTlsError::NoKey(shown(key_path)))?;
            chain = Some((certificates(cert_path, cert)?, key));
        }
        // A certificate whose key is still to be written is noticed here, and not by each connection.
        let unusable = |error: rustls::Error| {
            let (cert, key) = self.pair.clone().unwrap_or_default();
            let reason = match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    "they do not match".to_owned()
                }
                error => error.to_string(),
            };
            RedisTlsError::Pair { key: shown(&key), cert: shown(&cert), reason }
        };
        if let Some((chain, key)) = chain {
            let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
            builder.with_root_certificates(roots).with_client_auth_cert(chain, key).map_err(unusable)?;
        }
        Ok(Pem { ca, pair })
    }

    fn say_new(&self) {
        tracing::info!(files = "of TLS to redis", "the new TLS files are in force");
    }

    fn say_unusable(&self, reason: &dyn fmt::Display) {
        tracing::error!(
            error = %reason,
            "the files of TLS to redis are unusable; using the last good ones"
        );
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, RedisTlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| RedisTlsError::NoCertificate(shown(path)))
}

fn read(path: &Path) -> Result<Vec<u8>, RedisTlsError> {
    let unreadable = |reason| RedisTlsError::Unreadable { path: shown(path), reason };
    let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(unreadable(format!("{size} bytes are more than keys and certificates have")));
    }
    fs::read(path).map_err(|error| unreadable(error.to_string()))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
