//! TLS to Redis: the CA and a client certificate stand in files, which are read again for each new connection.
//!
//! Connections share one configuration until the files hold something else: making one takes reading every CA of the machine where no
//! CA is named, which the threads that serve requests do not wait for.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use rustls_native_certs::load_native_certs;
use thiserror::Error;
use tokio::{sync::OnceCell, task::spawn_blocking};

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
pub struct RedisTls {
    /// Empty where no file is named, until the first connection: the machine's CAs are read by those who need them.
    known: Arc<OnceCell<Arc<Reread<RedisTlsFiles>>>>,
}

/// Clones are the same.
impl PartialEq for RedisTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.known, &other.known)
    }
}

impl Eq for RedisTls {}

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
    /// No CA is named, and the machine has none.
    #[error("the CAs of this machine cannot be read ({0}); name the CA of Redis in `redis_tls_ca_file`")]
    NoMachineCas(String),
}

/// The content of the files, and the configuration that was made of it.
pub(super) struct Pem {
    roots: Vec<CertificateDer<'static>>,
    pair: Option<(Vec<u8>, Vec<u8>)>,
    config: Arc<ClientConfig>,
}

/// The same files make the same configuration.
impl PartialEq for Pem {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots && self.pair == other.pair
    }
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
        Ok(Self { known: Arc::new(OnceCell::new_with(Some(Arc::new(Reread::new(files, first))))) })
    }

    /// The configuration for a connection that is made now.
    ///
    /// # Errors
    /// No CA is named, and the machine has none.
    pub(super) async fn current(&self) -> Result<Arc<ClientConfig>, RedisTlsError> {
        let files = self.known.get_or_try_init(|| async {
            let files = RedisTlsFiles::default();
            let read = spawn_blocking(|| RedisTlsFiles::default().read()).await;
            let first = read.unwrap_or_else(|ended| Err(RedisTlsError::NoMachineCas(ended.to_string())))?;
            Ok(Arc::new(Reread::new(files, first)))
        });
        Ok(Arc::clone(&files.await?.current().await.config))
    }
}

impl Files for RedisTlsFiles {
    type Content = Pem;
    type Error = RedisTlsError;

    fn read(&self) -> Result<Pem, RedisTlsError> {
        let roots = match &self.ca {
            Some(path) => certificates(path, &read(path)?)?,
            None => of_machine()?,
        };
        let pair = self.pair.as_ref().map(|(cert, key)| Ok((read(cert)?, read(key)?))).transpose()?;
        let config = Arc::new(self.config(&roots, pair.as_ref())?);
        Ok(Pem { roots, pair, config })
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

impl RedisTlsFiles {
    fn config(
        &self,
        roots: &[CertificateDer<'static>],
        pair: Option<&(Vec<u8>, Vec<u8>)>,
    ) -> Result<ClientConfig, RedisTlsError> {
        let mut store = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in roots {
                    let added = store.add(certificate.clone());
                    added.map_err(|_| RedisTlsError::NoCertificate(shown(path)))?;
                }
            }
            // A machine may have some that nothing can use.
            None => drop(store.add_parsable_certificates(roots.iter().cloned())),
        }
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
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
        let builder = builder.with_root_certificates(store);
        let (Some((cert_path, key_path)), Some((cert, key))) = (&self.pair, pair) else {
            return Ok(builder.with_no_client_auth());
        };
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|_| RedisTlsError::NoKey(shown(key_path)))?;
        // A certificate whose key is still to be written is noticed here, and not by each connection.
        builder.with_client_auth_cert(certificates(cert_path, cert)?, key).map_err(unusable)
    }
}

/// The CAs that this machine trusts.
fn of_machine() -> Result<Vec<CertificateDer<'static>>, RedisTlsError> {
    let mut found = load_native_certs();
    match (found.certs.is_empty(), found.errors.pop()) {
        (false, _) => Ok(found.certs),
        (true, Some(error)) => Err(RedisTlsError::NoMachineCas(error.to_string())),
        (true, None) => Err(RedisTlsError::NoMachineCas("there are none".to_owned())),
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, RedisTlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| RedisTlsError::NoCertificate(shown(path)))
}

fn read(path: &Path) -> Result<Vec<u8>, RedisTlsError> {
    let unreadable = |reason| RedisTlsError::Unreadable { path: shown(path), reason };
    let found = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    // A pipe would hold up the start, and has nothing for the next connection.
    if !found.is_file() {
        return Err(unreadable("it is no regular file".to_owned()));
    }
    let size = found.len();
    if size > MAX_BYTES {
        return Err(unreadable(format!("{size} bytes are more than keys and certificates have")));
    }
    fs::read(path).map_err(|error| unreadable(error.to_string()))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
