//! TLS for the listeners: certificate, key and CA are read from files, and read again when these change, without a restart.
//!
//! A connection keeps the configuration that was in force when it was accepted; the next one gets the one in force then.

mod identity;
mod load;
mod shown;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tracing::{info, warn};

pub(super) use identity::identities_of;
pub use load::{TlsError, Validity, examine as examine_tls, validity_of};
pub use shown::{certificate_at, certificate_in};

use crate::{
    runtime::clock::Clock,
    settings::TlsFiles,
    watch::{FileSource, Pace, Watch},
};
use load::{Contents, Handshakes};

/// Makes this program's cryptography the default of every TLS library in it. Call it before anything else; later calls change
/// nothing.
pub fn install_cryptography() {
    // It fails only if a default is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Keeps certificate, key and CA up to date until dropped.
#[derive(Debug)]
pub struct TlsSource {
    current: Arc<ArcSwap<Handshakes>>,
    _watch: Watch<PemFiles>,
}

impl TlsSource {
    /// Reads the files, now and whenever they change.
    ///
    /// # Errors
    /// Which file is wrong and what to do about it; or no thread can be started.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let (mut files, seen) = PemFiles::open(files)?;
        let current = Arc::clone(&files.current);
        files.judge_dates();
        let watch = Watch::start("tls", files, seen, Pace::WITHIN_A_SECOND).map_err(TlsError::Thread)?;
        Ok(Self { current, _watch: watch })
    }

    /// The TLS of a gRPC listener.
    #[must_use]
    pub fn grpc(&self) -> ListenerTls {
        ListenerTls { current: Arc::clone(&self.current), protocol: Protocol::Grpc }
    }

    /// The TLS of an HTTP/1.1 listener.
    #[must_use]
    pub fn pages(&self) -> ListenerTls {
        ListenerTls { current: Arc::clone(&self.current), protocol: Protocol::Pages }
    }

    /// When the certificate in force expires, in human-readable form.
    #[must_use]
    pub fn valid_until(&self) -> String {
        load::shown(self.current.load().valid_until)
    }
}

/// The source of each new connection's configuration.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    current: Arc<ArcSwap<Handshakes>>,
    protocol: Protocol,
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Grpc,
    Pages,
}

impl ListenerTls {
    /// The configuration in force now.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let current = self.current.load();
        Arc::clone(match self.protocol {
            Protocol::Grpc => &current.grpc,
            Protocol::Pages => &current.pages,
        })
    }
}

/// How long files may be unusable without a word: certificate and key are replaced one after the other.
const BETWEEN_TWO_FILES: Duration = Duration::from_secs(1);

/// The files, and where their content goes.
struct PemFiles {
    files: TlsFiles,
    current: Arc<ArcSwap<Handshakes>>,
    /// Why the files are unusable, and since when, until that is logged.
    unusable: Option<(String, Instant)>,
    /// The last report about unusable files, so that each is logged only once.
    said: Option<String>,
    /// Whether a warning was logged that the certificate in force is outside its dates.
    outdated: bool,
}

impl FileSource for PemFiles {
    const NAME: &'static str = "the TLS files";

    type Content = Result<Contents, TlsError>;

    fn paths(&self) -> Vec<PathBuf> {
        let TlsFiles { cert, key, client_ca, .. } = &self.files;
        [cert, key].into_iter().chain(client_ca).cloned().collect()
    }

    fn read(&self) -> Self::Content {
        Contents::read(&self.files)
    }

    fn digest(content: &Self::Content) -> blake3::Hash {
        match content {
            Ok(contents) => contents.digest(),
            Err(error) => blake3::hash(error.to_string().as_bytes()),
        }
    }

    /// Unusable files (one of them is being replaced) leave the configuration in force.
    fn apply(&mut self, content: Self::Content, _: bool) -> bool {
        let new = content.and_then(|contents| {
            // Files that were unusable, and are now as they were before.
            let is_in_force = self.current.load().digest == contents.digest();
            if is_in_force { Ok(None) } else { Handshakes::new(&self.files, &contents).map(Some) }
        });
        match new {
            Ok(None) => (self.said, self.unusable) = (None, None),
            Ok(Some(new)) => {
                info!(file = %self.files.cert.display(), valid_until = %load::shown(new.valid_until), "the new TLS files are in force");
                (self.said, self.unusable) = (None, None);
                self.outdated = false;
                self.current.store(Arc::new(new));
            }
            Err(error) => {
                self.unusable = Some((error.to_string(), Instant::now()));
                return false;
            }
        }
        true
    }

    fn after_read(&mut self) {
        self.report_unusable();
        self.judge_dates();
    }
}

impl PemFiles {
    /// Reads the files for the first time; also returns the digest of their content.
    fn open(files: TlsFiles) -> Result<(Self, blake3::Hash), TlsError> {
        let contents = Contents::read(&files)?;
        let current = Arc::new(ArcSwap::from_pointee(Handshakes::new(&files, &contents)?));
        Ok((Self { files, current, unusable: None, said: None, outdated: false }, contents.digest()))
    }

    /// Logs why the files cannot be used, once they could not for a while: certificate and key are replaced one after the other.
    fn report_unusable(&mut self) {
        if let Some((reason, _)) = self.unusable.take_if(|(_, since)| since.elapsed() >= BETWEEN_TWO_FILES)
            && self.said.as_ref() != Some(&reason)
        {
            warn!(error = reason, "the new TLS files cannot be used; the old ones stay in force");
            self.said = Some(reason);
        }
    }

    /// Clients refuse a certificate outside its dates; the server still serves, since some do not check.
    fn judge_dates(&mut self) {
        let current = self.current.load();
        let now = Clock::System.now();
        let outdated = now < current.valid_from || now > current.valid_until;
        if outdated && !self.outdated {
            warn!(
                file = %self.files.cert.display(),
                valid_from = %load::shown(current.valid_from),
                valid_until = %load::shown(current.valid_until),
                "the TLS certificate is not valid now, so clients refuse it: replace the file with a new one"
            );
        }
        self.outdated = outdated;
    }
}

#[cfg(test)]
mod tests;
