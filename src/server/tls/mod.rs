//! TLS for the listeners: certificate, key and CA are read from files, and read again when these change, without a restart.
//!
//! A connection keeps the configuration that was in force when it was accepted; the next one gets the one in force then.

mod identity;
mod load;

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tracing::{info, warn};

pub(super) use identity::identities_of;
pub use load::TlsError;

use crate::{settings::TlsFiles, store::clock::Clock};
use load::{Contents, Loaded};

/// How often the files are read: the longest time until a new certificate is in force. Reading three small files costs
/// microseconds, and sees changes that no watch does: mounted secrets, network disks, swapped links.
const POLL: Duration = Duration::from_secs(1);

/// Makes this program's cryptography the default of every TLS library in it. Call it before anything else; later calls change
/// nothing.
pub fn install_cryptography() {
    // It fails only if a default is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Keeps certificate, key and CA up to date until dropped.
#[derive(Debug)]
pub struct TlsSource {
    current: Arc<ArcSwap<Loaded>>,
    /// Closed on drop, which ends the thread.
    _running: mpsc::Sender<()>,
}

impl TlsSource {
    /// Reads the files now, and then every second.
    ///
    /// # Errors
    /// Which file is wrong and what to do about it; or no thread can be started.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let loaded = Loaded::new(&files, &contents)?;
        let current = Arc::new(ArcSwap::from_pointee(loaded));
        let mut reader = Reader { files, current: Arc::clone(&current), said: None, outdated: false };
        reader.judge_dates();
        let (running, ended) = mpsc::channel();
        thread::Builder::new()
            .name("tls".to_owned())
            .spawn(move || {
                while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                    reader.look();
                }
            })
            .map_err(TlsError::Thread)?;
        Ok(Self { current, _running: running })
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
    current: Arc<ArcSwap<Loaded>>,
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

struct Reader {
    files: TlsFiles,
    current: Arc<ArcSwap<Loaded>>,
    /// The last report about unusable files, so that each is logged only once.
    said: Option<String>,
    /// Whether a warning was logged that the certificate in force is outside its dates.
    outdated: bool,
}

impl Reader {
    /// Unusable files (one of them is being replaced) leave the configuration in force.
    fn look(&mut self) {
        let read = Contents::read(&self.files).and_then(|contents| {
            let unchanged = self.current.load().digest == contents.digest();
            if unchanged { Ok(None) } else { Loaded::new(&self.files, &contents).map(Some) }
        });
        match read {
            Ok(None) => self.said = None,
            Ok(Some(loaded)) => {
                info!(certificate = %self.files.cert.display(), valid_until = %load::shown(loaded.valid_until), "the new TLS files are in force");
                self.said = None;
                self.outdated = false;
                self.current.store(Arc::new(loaded));
            }
            Err(error) => {
                let reason = error.to_string();
                if self.said.as_ref() != Some(&reason) {
                    warn!(reason, "the new TLS files cannot be used; the old ones stay in force");
                    self.said = Some(reason);
                }
            }
        }
        self.judge_dates();
    }

    /// Clients refuse a certificate outside its dates; the server still serves, since some do not check.
    fn judge_dates(&mut self) {
        let loaded = self.current.load();
        let now = Clock::System.now();
        let outdated = now < loaded.valid_from || now > loaded.valid_until;
        if outdated && !self.outdated {
            warn!(
                certificate = %self.files.cert.display(),
                valid_from = %load::shown(loaded.valid_from),
                valid_until = %load::shown(loaded.valid_until),
                "the TLS certificate is not valid now, so clients refuse it: replace the file with a new one"
            );
        }
        self.outdated = outdated;
    }
}

#[cfg(test)]
mod tests;
