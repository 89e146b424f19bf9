//! TLS of the commands that ask a running service.

use std::{
    error::Error,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Args;
use tonic::{
    Status,
    transport::{Certificate, ClientTlsConfig, Identity},
};

use super::screen::Failure;

/// How to trust the service, and how to be known to it.
#[derive(Args, Clone)]
pub(super) struct TlsArgs {
    /// The CA of an https:// service's certificate (PEM) [default: the CAs of this machine]
    #[arg(long, value_name = "FILE", env = "TOLLGATE_TLS_CA_FILE")]
    tls_ca_file: Option<OsString>,
    /// The certificate to show an https:// service (PEM) [env: TOLLGATE_CLIENT_CERT_FILE]
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// Its private key (PEM, unencrypted) [env: TOLLGATE_CLIENT_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
}

/// The file that a flag names, or else the variable of this name; an empty variable counts as not set.
fn file(flag: Option<&PathBuf>, variable: &str) -> Option<PathBuf> {
    let of_variable = || std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    flag.cloned().or_else(of_variable)
}

impl TlsArgs {
    /// What a connection to `address` needs; `None` for one without TLS.
    pub(super) fn config_for(&self, address: &str) -> Result<Option<ClientTlsConfig>, Failure> {
        if !address.starts_with("https://") {
            // What comes from the environment does not depend on the address.
            return match self.tls_cert_file {
                Some(_) => Err(Failure::new(format!(
                    "--tls-cert-file is shown only to a service with TLS: write https://{address}, or leave it out"
                ))),
                None => Ok(None),
            };
        }
        let mut config = ClientTlsConfig::new();
        // An empty variable counts as not set.
        config = match self.tls_ca_file.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => config.ca_certificate(Certificate::from_pem(certificates(Path::new(path))?)),
            None => config.with_native_roots(),
        };
        let cert = file(self.tls_cert_file.as_ref(), "TOLLGATE_CLIENT_CERT_FILE");
        let key = file(self.tls_key_file.as_ref(), "TOLLGATE_CLIENT_KEY_FILE");
        let lacking = |given: &str, other: &str, variable: &str| {
            let text = format!("a client's {given} needs its {other}: name it with --tls-{variable}-file");
            Err(Failure::new(format!("{text} or TOLLGATE_CLIENT_{}_FILE", variable.to_ascii_uppercase())))
        };
        match (cert, key) {
            (Some(cert), Some(key)) => {
                config = config.identity(Identity::from_pem(certificates(&cert)?, read(&key)?));
            }
            (Some(_), None) => return lacking("certificate", "key", "key"),
            (None, Some(_)) => return lacking("key", "certificate", "cert"),
            (None, None) => {}
        }
        Ok(Some(config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = std::fs::read(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    // Some editors put a byte order mark before the first line, which is not valid PEM.
    Ok(text.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| text.clone(), <[u8]>::to_vec))
}

/// A file of certificates. A file without any would look like an empty list, and the service would be blamed for it.
fn certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let text = read(path)?;
    match text.windows(BEGIN.len()).any(|window| window == BEGIN) {
        true => Ok(text),
        false => Err(Failure::new(format!("{} holds no certificate; it has to be PEM", path.display()))),
    }
}

/// Files that could be read but do not make a TLS configuration.
pub(super) fn unusable(error: &(dyn Error + 'static)) -> Failure {
    let cause = cause(error).unwrap_or_else(|| error.to_string());
    Failure::new(format!("cannot use the files of --tls-…: {cause}"))
}

/// A service with TLS that cannot be reached.
pub(super) fn unreachable(authority: &str, error: &(dyn Error + 'static)) -> Failure {
    let cause = cause(error).unwrap_or_else(|| error.to_string());
    let help = if cause.contains("UnknownIssuer") {
        "; name the CA of its certificate with --tls-ca-file"
    } else if cause.contains("CaUsedAsEndEntity") {
        // A certificate such as `openssl req -x509` makes.
        "; the service shows the certificate of a CA: have one issued for it (basicConstraints CA:FALSE)"
    } else {
        ""
    };
    Failure::new(format!("cannot reach https://{authority}: {cause}{help}"))
}

/// What to add to the error of a call whose connection broke: the cause, and what may help. With TLS 1.3 a client completes
/// its handshake before the server has checked its certificate, so a refused certificate breaks the first call; and by then
/// the server's alert may be lost.
pub(super) fn broken(status: &Status) -> Option<String> {
    let cause = cause(status).filter(|cause| !cause.contains("Timeout"))?;
    Some(format!(
        ": {cause}; the connection broke: a service with TLS wants https://, and it may want a client certificate of its CA \
         (--tls-cert-file)"
    ))
}

/// The root cause of an error that another error caused.
pub(super) fn cause(error: &(dyn Error + 'static)) -> Option<String> {
    let mut root = error.source()?;
    while let Some(source) = root.source() {
        root = source;
    }
    Some(root.to_string())
}
