//! The TLS settings: which files, and what clients must show.

use std::path::PathBuf;

use super::{Settings, kind::Choice};

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for one.
    None,
    /// Optional; a certificate that is shown must be valid.
    Optional,
    /// Required: connections without a valid certificate are refused.
    Required,
}

impl ClientAuth {
    pub(super) const CHOICES: Choice<Self> =
        Choice(&[("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)]);
}

/// The TLS files, and what clients must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and the intermediates between it and its CA (PEM).
    pub cert: PathBuf,
    /// The certificate's private key (PEM, unencrypted).
    pub key: PathBuf,
    /// The CA of client certificates (PEM).
    pub client_ca: Option<PathBuf>,
    /// Whether clients must show one.
    pub client_auth: ClientAuth,
}

impl Settings {
    /// TLS for gRPC, if it is configured.
    #[must_use]
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let client_ca = self.tls_client_ca_file.clone();
        let by_default = if client_ca.is_some() { ClientAuth::Required } else { ClientAuth::None };
        Some(TlsFiles {
            cert: self.tls_cert_file.clone()?,
            key: self.tls_key_file.clone()?,
            client_ca,
            client_auth: self.tls_client_auth.unwrap_or(by_default),
        })
    }

    /// Whether the operators' pages use TLS. Unless set, they do if gRPC does and they are reachable from beyond this
    /// machine.
    #[must_use]
    pub fn admin_is_tls(&self) -> bool {
        let seen = self.admin_address().is_some_and(|address| !address.ip().to_canonical().is_loopback());
        self.admin_tls.unwrap_or(seen && self.tls_cert_file.is_some())
    }

    /// The first TLS setting that cannot be satisfied, and why.
    pub(super) fn check_tls(&self) -> Result<(), (&'static str, &'static str)> {
        let asks = matches!(self.tls_client_auth, Some(ClientAuth::Optional | ClientAuth::Required));
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => {
                Err(("tls_cert_file", "a certificate needs its private key; name it in tls_key_file"))
            }
            (None, Some(_)) => Err(("tls_key_file", "a key needs its certificate; name it in tls_cert_file")),
            (None, None) if self.tls_client_ca_file.is_some() => Err((
                "tls_client_ca_file",
                "clients show certificates only where the server has one; name it in tls_cert_file, and its key in tls_key_file",
            )),
            (None, None) if self.admin_tls == Some(true) => Err((
                "admin_tls",
                "there is no certificate; name it in tls_cert_file, and its key in tls_key_file",
            )),
            _ if asks && self.tls_client_ca_file.is_none() => {
                Err(("tls_client_auth", "clients are verified against a CA; name it in tls_client_ca_file"))
            }
            _ => Ok(()),
        }
    }
}
